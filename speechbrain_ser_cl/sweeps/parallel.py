"""Runs processes in parallel through joblib."""

import contextlib
import fcntl
import glob
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from speechbrain_ser_cl.sweeps.process import Job, run_job, visible_gpus
from speechbrain_ser_cl.sweeps.runs import PlannedRun, check_finished

BACKENDS = ("local", "dask", "ray")
_PATIENCE = 20.0  # seconds until processes must have ended after Ctrl-C


def execute(
    runs: Sequence[PlannedRun],
    output: Path,
    n_done: int = 0,
    jobs: int | None = None,
    backend: str = "local",
    cluster: str | None = None,
    runs_per_gpu: int = 1,
) -> dict[str, str]:
    """Runs what is not finished, with a progress bar.

    Arguments
    ---------
    runs : sequence of PlannedRun
        Unfinished runs with unique names.
    output : pathlib.Path
        Output folder; all machines must have access to it.
    n_done : int
        Number of runs that were finished before, for the progress bar.
    jobs : int, optional
        Number of parallel processes. Default: one per GPU, or one.
    backend : str
        ``local`` (this machine), ``dask`` or ``ray``.
    cluster : str, optional
        Address of a dask scheduler or a ray cluster. Default: a new one with ``jobs``
        workers on this machine.
    runs_per_gpu : int
        Number of processes that may share a GPU.

    Returns
    -------
    dict
        Name of each failed run to the reason.
    """
    on_gpu = [run.recipe.overridden.get("device") != "cpu" for run in runs]
    gpus = visible_gpus(os.environ) if any(on_gpu) else []
    given, jobs = jobs, jobs or max(1, len(gpus) * runs_per_gpu)
    jobs = max(1, min(jobs, len(runs)))
    environment = {"PYTHONUNBUFFERED": "1"}
    if cluster is None:
        # Workers of a cluster may have another environment.
        threads = max(1, (os.cpu_count() or 1) // jobs)
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            environment["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
    lifeline = output.absolute() / f".running-{platform.node()}-{os.getpid()}"
    tasks = [
        joblib.delayed(_named)(
            Job(
                name=run.name,
                arguments=run.arguments(),
                folder=run.folder.absolute(),
                working_folder=Path.cwd(),
                lifeline=lifeline,
                master=os.getpid(),
                environment=environment,
                use_gpu=use_gpu,
                runs_per_gpu=runs_per_gpu,
            )
        )
        for run, use_gpu in zip(runs, on_gpu, strict=True)
    ]
    by_name = {run.name: run for run in runs}
    failed = {}
    with (
        _engine(backend, jobs, given, cluster) as parallel,
        tqdm(total=n_done + len(runs), initial=n_done, desc=output.name) as bar,
        _held(lifeline, runs),
    ):
        for run in runs:
            run.note(run.settings())
        for name, problem in _until_the_end(parallel(tasks), by_name):
            problem = problem or check_finished(by_name[name])
            if problem:
                failed[name] = problem
                tqdm.write(f"{name}: {problem}", file=sys.stderr)
                bar.set_postfix(failed=len(failed))
            bar.update()
    return failed


def _until_the_end(
    told: Iterable[tuple[str, str | None]], names: Iterable[str]
) -> Iterator[tuple[str, str | None]]:
    """Yields each run's result; if the engine breaks, the remaining runs failed."""
    left = set(names)
    try:
        for name, problem in told:
            left.remove(name)
            yield name, problem
    except Exception as error:  # dask or ray: a worker was killed
        for name in sorted(left):
            yield name, f"a worker ended ({type(error).__name__}: {error})"


@contextlib.contextmanager
def _held(lifeline: Path, runs: Iterable[PlannedRun]) -> Iterator[None]:
    """Locks a file while runs continue; after an interruption waits for their end."""
    lifeline.parent.mkdir(parents=True, exist_ok=True)
    host = f".running-{platform.node()}-"
    for other in lifeline.parent.glob(f"{glob.escape(host)}*"):
        if not _is_alive(other.name.removeprefix(host)):  # its command was killed
            other.unlink(missing_ok=True)
    lifeline.touch()
    try:
        yield
    except BaseException:
        lifeline.unlink(missing_ok=True)
        _wait_for_all(runs)
        raise
    lifeline.unlink(missing_ok=True)


def _is_alive(number: str) -> bool:
    """Returns whether a process with this number runs on this machine."""
    try:
        os.kill(int(number), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # another user's process
        pass
    return True


def _named(job: Job) -> tuple[str, str | None]:
    return job.name, run_job(job)


@contextlib.contextmanager
def _engine(
    backend: str, jobs: int, given: int | None, cluster: str | None
) -> Iterator[joblib.Parallel]:
    """Makes a joblib.Parallel that returns results as they are finished."""
    if backend not in BACKENDS:
        raise ValueError(
            f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}"
        )
    options: dict[str, Any] = {"batch_size": 1, "pre_dispatch": jobs}
    if backend == "local":
        if cluster is not None:
            raise ValueError("--cluster needs --backend dask or ray")
        with joblib.Parallel(
            jobs, backend="threading", return_as="generator_unordered", **options
        ) as parallel:
            yield parallel
    elif backend == "dask":
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ImportError(
                "--backend dask needs dask: pip install 'speechbrain_ser_cl[dask]'"
            ) from error
        # An idle worker per run, without a dashboard.
        with contextlib.ExitStack() as stack:
            address = cluster or stack.enter_context(
                LocalCluster(
                    n_workers=jobs, threads_per_worker=1, dashboard_address=None
                )
            )
            client = stack.enter_context(Client(address))
            if cluster and given is None:
                options["pre_dispatch"] = "all"
            stack.enter_context(joblib.parallel_config("dask", client=client))
            yield joblib.Parallel(return_as="generator_unordered", **options)
    else:
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise ImportError(
                "--backend ray needs ray: pip install 'speechbrain_ser_cl[ray]'"
            ) from error
        ray.init(cluster, **({} if cluster else {"num_cpus": jobs}))
        try:
            register_ray()
            with joblib.parallel_config("ray", n_jobs=jobs):
                # Its results are returned all together.
                yield joblib.Parallel(**options)
        finally:
            ray.shutdown()


def _wait_for_all(runs: Iterable[PlannedRun]) -> None:
    """Waits until all processes of the runs have ended."""
    end = time.monotonic() + _PATIENCE
    for run in runs:
        lock = run.folder / ".crossval.lock"
        while lock.exists() and time.monotonic() < end:
            with open(lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pass
            time.sleep(0.05)
