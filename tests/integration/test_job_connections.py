"""Jobs whose connection to Ray is gone: given up by somebody, or the cluster with it."""

from __future__ import annotations

import uuid

import pytest

from batchrunner.jobs import simple_backend
from job_processes import a_client, a_head, end_registry, first_line_of, free_ports, said_by

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
        waiting = threading.Thread(target=lambda: ended.append(job.wait(240).value))
        waiting.start()
        say(job.status.value)
        ray.shutdown()
        say(job.status.value, job.cancel(), type(job.exception()).__name__)
        waiting.join(60)
        say(*ended, ray.is_initialized())

        other = submit_capability(Scoring("{tag}.next"))
        say(ray.get_runtime_context().gcs_address == here, other.wait(240).value)
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
                job.wait(240)
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
        say(time.monotonic() - began < 120)
        began = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shutdown_job_backend(timeout=2)
        say(time.monotonic() - began < 120, all(job.job_id in str(caught[0].message) for job in jobs))
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


def test_what_is_asked_over_a_client_connection_whose_cluster_is_gone_says_so(
    local_ray, tag, tmp_path
):
    """`ray://`: Ray itself raises a bare ValueError, out of shutdown, too; nothing could be mended."""
    address = local_ray.get_runtime_context().gcs_address
    gone = tmp_path / "gone"
    code = f"""
        configure()
        job = submit_capability(Scoring({tag!r}), resources={{"num_cpus": 500}})
        say("submitted")
        wait_for(lambda: os.path.exists({str(gone)!r}))

        def told(ask):
            try:
                return ask()
            except Exception as error:
                return type(error).__name__

        say(*(told(ask) for ask in (lambda: job.status, lambda: job.wait(1), job.cancel, list_jobs)))
        say(told(lambda: submit_capability(Scoring("{tag}.next"))))
        began = time.monotonic()
        warnings.simplefilter("ignore")
        shutdown_job_backend(timeout=5)
        say(time.monotonic() - began < 120, told(lambda: job.status))
        configure(address={address!r}, force_reinit=True)
        say(submit_capability(Scoring("{tag}.here")).wait(240).value)
    """
    ports = free_ports(2)
    options = {
        "address": f"ray://127.0.0.1:{ports[1]}",
        "idempotency_scope": tag,
        "analytics_store": {"uri": str(tmp_path / "store")},
    }
    with a_head(*ports):
        client = a_client(code, options, cwd=tmp_path)
        assert first_line_of(client) == "submitted"
    gone.touch()

    unavailable = "RayUnavailableError"
    assert said_by(client) == [
        " ".join([unavailable] * 4),
        unavailable,
        f"True {unavailable}",
        "completed",
    ]
    end_registry(tag)


def test_a_handle_starts_no_other_ray_when_the_one_of_its_job_has_ended(tag, tmp_path):
    """It would know nothing of the job, take seconds, and be there without anybody having asked."""
    code = f"""
        import ray
        configure()
        job = submit_capability(Scoring({tag!r}), resources={{"num_cpus": 500}})
        ray.shutdown()
        for ask in (lambda: job.status, list_jobs):
            try:
                ask()
            except Exception as error:
                say(type(error).__name__, ray.is_initialized())
        say(submit_capability(Scoring("{tag}.next")).wait(240).value)
    """
    store = {"uri": str(tmp_path / "store")}
    options = {"address": "local", "idempotency_scope": tag, "analytics_store": store}

    said = said_by(a_client(code, options, cwd=tmp_path))

    assert said == ["RayUnavailableError False"] * 2 + ["completed"]
