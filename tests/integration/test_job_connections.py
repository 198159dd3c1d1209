"""Jobs whose connection to Ray is gone: given up by somebody, or the cluster with it."""

from __future__ import annotations

import uuid

import pytest

from batchrunner.jobs import simple_backend
from job_processes import a_client, end_registry, said_by

pytestmark = pytest.mark.ray


@pytest.fixture
def tag():
    return uuid.uuid4().hex[:12]


def test_a_simple_job_whose_connection_is_gone_has_failed_and_the_next_one_goes_to_the_same_cluster(
    local_ray, tag, tmp_path
):
    """Ray itself would start another Ray for the question, and then end the process."""
    address = local_ray.get_runtime_context().gcs_address
    store = {"uri": str(tmp_path / "store")}
    code = f"""
        import ray, traceback
        from batchrunner.errors import BatchRunnerError
        configure()
        here = ray.get_runtime_context().gcs_address
        job = submit_capability(Scoring({tag!r}), resources={{"num_cpus": 500}})
        ended = []
        waiting = threading.Thread(target=lambda: ended.append(job.wait(60).value))
        waiting.start()
        say(job.status.value)
        ray.shutdown()
        say(job.status.value, job.cancel(), type(job.exception()).__name__)
        waiting.join(60)
        say(*ended, ray.is_initialized())

        other = submit_capability(Scoring("{tag}.next"))
        say(ray.get_runtime_context().gcs_address == here, other.wait(60).value)
        late = submit_capability(Scoring("{tag}.late"), resources={{"num_cpus": 500}})
        warnings.simplefilter("ignore")
        shutdown_job_backend(timeout=0.1)
        try:
            late.result(5)
        except JobFailedError as error:
            say(str(error).partition(" failed: ")[2])
        say(other.status.value, ray.is_initialized())

        configure(kind="ray", idempotency_scope={tag!r})
        job = submit_capability(Scoring("{tag}.ray"), resources={{"num_cpus": 500}})

        def wait():
            try:
                job.wait(60)
            except BatchRunnerError as error:
                say("gave up its connection" in str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        stack = lambda: traceback.extract_stack(sys._current_frames()[waiting.ident])
        wait_for(lambda: any(frame.name == "get_objects" for frame in stack()))
        ray.shutdown()
        waiting.join(60)
    """
    options = {"kind": "ray-simple", "address": address, "analytics_store": store}

    said = said_by(a_client(code, options, cwd=tmp_path))

    assert said == [
        "pending",
        "failed False JobFailedError",
        "failed False",
        "True completed",
        simple_backend.LOST,
        "completed False",
        "True",
    ]
    end_registry(tag)


def test_a_backend_whose_cluster_is_gone_is_shut_down_in_time(tag, tmp_path):
    """And what is asked of it meanwhile says so, not that there is too much to do."""
    code = f"""
        import psutil
        configure()
        jobs = [submit_capability(Scoring(f"{tag}.{{n}}"), resources={{"num_cpus": 500}}) for n in range(3)]
        ours = [p for p in psutil.Process().children(recursive=True)]
        for process in ours:
            process.kill()
        began = time.monotonic()
        try:
            list_jobs()
        except Exception as error:
            say(type(error).__name__, "its cluster is gone" in str(error))
        say(time.monotonic() - began < 25)
        began = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shutdown_job_backend(timeout=2)
        say(time.monotonic() - began < 20, all(job.job_id in str(caught[0].message) for job in jobs))
        say(list_jobs())
        try:
            submit_capability(Scoring({tag!r}))
        except NoJobBackendError:
            say("no backend")
    """
    store = {"uri": str(tmp_path / "store")}
    options = {"address": "local", "idempotency_scope": tag, "analytics_store": store}

    said = said_by(a_client(code, options, cwd=tmp_path))

    assert said == ["RayUnavailableError True", "True", "True True", "[]", "no backend"]
