"""`batchrunner jobs`: submit batches as jobs of a cluster; list, follow and cancel jobs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import load_spec, spec_options, store_options
from batchrunner.cli.rendering import output_option, print_record, print_records
from batchrunner.cli.terminal import put

if TYPE_CHECKING:
    from batchrunner.jobs import Job

_EXIT_CODES = {"completed": 0, "failed": 1, "cancelled": 1}
_NOT_YET = 75


def _cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the scope, its store and the cluster."""
    scope = click.option(
        "--scope",
        required=True,
        envvar="BATCHRUNNER_SCOPE",
        show_envvar=True,
        help="The idempotency_scope that the jobs are submitted in.",
    )
    address = click.option(
        "--address",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="The Ray cluster: host:port or ray://host:port; by default, the one of this machine.",
    )
    return scope(address(store_options(command)))


@click.group("jobs")
def command() -> None:
    """Run batches as jobs of a Ray cluster; list, read and cancel all jobs of a scope.

    Exit codes, on top of the usual ones: 0 completed · 1 failed or cancelled · 75 not yet.
    """


@command.command()
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@_cluster_options
@click.option("--name", help="Name of the job; by default, made from the spec's.")
@click.option(
    "--edition",
    default="",
    help="The same spec is the same job; in another edition it is another one, for a source that has "
    "grown, say.",
)
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@output_option
def submit(spec: str, name: str | None, edition: str, wait: bool, **options: Any) -> int:
    """Run SPEC as a job, which outlives this command and this machine.

    The job gets the spec's `ray.runtime_env`, and runs at its `ray.address` unless --address names
    another cluster. Prints the job.
    """
    from batchrunner.jobs import BatchCapability, submit_capability

    batch = load_spec(spec)
    address = batch.ray.address if batch.ray.address != "local" else None
    options["address"] = options["address"] or address
    with _backend(options, runtime_env=dict(batch.ray.runtime_env) or None):
        job = submit_capability(BatchCapability(batch, edition=edition), job_name=name)
        if wait:
            job.wait()
        shown = _shown(job)
    print_record(shown, options["output"])
    return _EXIT_CODES.get(shown["status"], _NOT_YET) if wait else 0


@command.command("list")
@_cluster_options
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option(
    "--status",
    type=click.Choice(["pending", "running", "completed", "failed", "cancelled"]),
    multiple=True,
    help="Only jobs in this state; may be given several times.",
)
@output_option
def list_(limit: int, status: tuple[str, ...], **options: Any) -> None:
    """List the scope's jobs, the newest first."""
    from batchrunner.jobs import JobStatus, list_jobs

    with _backend(options):
        chosen = [JobStatus(name) for name in status] or None
        shown = [_shown(job) for job in list_jobs(limit=limit, status_filter=chosen)]
    print_records(
        shown, options["output"], ids=["job_id", "status"], first_to_go=["store_uri", "run_uid"]
    )


@command.command()
@click.argument("job_id")
@_cluster_options
@output_option
def get(job_id: str, **options: Any) -> None:
    """Show one job."""
    from batchrunner.jobs import get_job

    with _backend(options):
        shown = _shown(get_job(job_id))
    print_record(shown, options["output"])


@command.command()
@click.argument("job_id")
@_cluster_options
@click.option("--timeout", type=float, help="Seconds to wait at most; then the code is 75.")
@output_option
def wait(job_id: str, timeout: float | None, **options: Any) -> int:
    """Wait for the end of a job, and show it."""
    from batchrunner.jobs import get_job

    with _backend(options):
        job = get_job(job_id)
        job.wait(timeout)
        shown = _shown(job)
    print_record(shown, options["output"])
    return _EXIT_CODES.get(shown["status"], _NOT_YET)


@command.command()
@click.argument("job_id")
@_cluster_options
def logs(job_id: str, **options: Any) -> None:
    """Print what a job has printed and logged, up to the last few seconds."""
    from batchrunner.jobs import get_job

    with _backend(options):
        text = get_job(job_id).logs()
    put(text)


@command.command()
@click.argument("job_id")
@_cluster_options
@output_option
def cancel(job_id: str, **options: Any) -> int:
    """Stop a job. Exit code 0: the job does not run any more; 1: it had ended before."""
    from batchrunner.jobs import get_job

    with _backend(options):
        job = get_job(job_id)
        cancelled = job.cancel()
        shown = _shown(job)
    print_record(shown, options["output"])
    return 0 if cancelled else 1


@contextlib.contextmanager
def _backend(options: dict[str, Any], **more: Any) -> Iterator[None]:
    """Configure the job backend; inside the block, what Ray prints goes to stderr."""
    # Before Ray is imported: it would handle SIGTERM itself, and die of it.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    from batchrunner.jobs import configure_job_backend

    store = {"uri": options["store"], "storage_options": options["storage_options"]}
    with contextlib.redirect_stdout(sys.stderr):
        configure_job_backend(
            "ray",
            analytics_store=store,
            idempotency_scope=options["scope"],
            address=options["address"] or "auto",
            **more,
        )
        yield


def _shown(job: Job[Any]) -> dict[str, Any]:
    status = job.status
    ref = job.result(0) if status == "completed" else None
    error = job.exception()
    return {
        "job_id": job.job_id,
        "name": job.job_name,
        "status": status.value,
        "created_at": job.created_at.isoformat(timespec="seconds"),
        "run_uid": ref.run_uid if ref else None,
        "store_uri": ref.store_uri if ref else None,
        "error": str(error).partition(" failed: ")[2] if error else None,
    }
