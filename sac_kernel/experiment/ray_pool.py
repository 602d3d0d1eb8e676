"""Jobs of `job_pool` on a Ray cluster of several machines."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sac_kernel
from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment.job_pool import ATTEMPTS, POLL_S, Place, attempt, lost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sac_kernel.core.clock import TotalProgress
    from sac_kernel.experiment.job_pool import Ended, Request


def on_ray(
    requests: Mapping[str, Request],
    device: str,
    address: str,
    deadline: Deadline,
    ended: Ended,
    progress: TotalProgress,
) -> None:
    """Run jobs as `job_pool.on_processes` does. Ray itself begins a task again whose worker or node is lost."""
    ray, one = _import_ray(), next(iter(requests.values()))
    shipped = {sac_kernel.__name__, one["function"].partition(".")[0]}
    code = [sys.modules[name].__path__[0] for name in sorted(shipped)]
    restore_signals = deadline.stop_on_signals()
    ray.init(address=address, runtime_env={"py_modules": code}, log_to_driver=False)
    try:
        inputs = [ray.put(Path(path).read_bytes()) for path in one["inputs"].values()]
        gpus = 1 if device.startswith("cuda") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_attempt_there)
        pending = {task.remote(request, device, *inputs): name for name, request in requests.items()}
        while pending and not deadline.passed():
            for done in ray.wait(list(pending), timeout=POLL_S)[0]:
                name = pending.pop(done)
                try:
                    answer, written = ray.get(done)
                except ray.exceptions.RayError as err:
                    answer, written = lost(f"{type(err).__name__}: {str(err).splitlines()[0]}"), {}
                for path, content in written.items():
                    files.write_bytes(Path(requests[name]["folder"]) / path, content)
                progress.finish(name)
                ended(name, answer)
    finally:
        ray.shutdown()  # which cancels what still runs
        restore_signals()


def _attempt_there(request: Request, device: str, *inputs: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run a job on whatever machine Ray chose; nothing but the network is shared, so its files travel back."""
    with tempfile.TemporaryDirectory(prefix="sac_job_") as scratch:
        paths = {key: Path(scratch) / "inputs" / str(i) / key for i, key in enumerate(request["inputs"])}
        for path, content in zip(paths.values(), inputs, strict=True):
            files.write_bytes(path, content)
        folder = Path(scratch) / "job"
        answer = attempt(request, Place(folder, device, paths, Deadline()))
        written = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return answer, written


def _import_ray() -> Any:  # noqa: ANN401  # an optional package
    try:
        return importlib.import_module("ray")
    except ImportError as err:
        msg = f"A Ray address needs the package ray ({err}). Run: pip install -r requirements/ray.txt"
        raise ConfigError(msg) from err
