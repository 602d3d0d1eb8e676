"""Jobs of `job_pool` on a Ray cluster of several machines."""

from __future__ import annotations

import functools
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sac_kernel
from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment.job_pool import POLL_S, Place, attempt, lost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sac_kernel.core.clock import TotalProgress
    from sac_kernel.experiment.job_pool import Pool, Request


def at(address: str) -> Pool | None:
    """Return the pool at an address, 'auto' or 'ray://HOST:10001'; None for '': processes of this machine.

    Raises
    ------
    ConfigError
        If the package ray is absent.
    """
    return functools.partial(_Cluster, _import_ray(), address) if address else None


@dataclass
class _Cluster:
    """Jobs on a cluster; the other fields are as of `Processes`.

    Ray itself begins a task again whose worker or node is lost.
    """

    ray: Any
    address: str
    requests: Mapping[str, Request]
    places: Sequence[str]
    deadline: Deadline
    ended: Callable[[str, Mapping[str, Any]], None]
    progress: TotalProgress
    attempts: int = 1

    def run(self) -> None:
        """Run the jobs."""
        ray, device, one = self.ray, self.places[0], next(iter(self.requests.values()))
        shipped = {sac_kernel.__name__, one["function"].partition(".")[0]}
        code = [sys.modules[name].__path__[0] for name in sorted(shipped)]
        restore_signals = self.deadline.stop_on_signals()
        ray.init(address=self.address, runtime_env={"py_modules": code}, log_to_driver=False)
        try:
            inputs = [ray.put(Path(path).read_bytes()) for path in one["inputs"].values()]
            gpus = 1 if device.startswith("cuda") else 0
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=self.attempts - 1)(_attempt_there)
            pending = {task.remote(given, device, *inputs): name for name, given in self.requests.items()}
            while pending and not self.deadline.passed():
                for done in ray.wait(list(pending), timeout=POLL_S)[0]:
                    name = pending.pop(done)
                    try:
                        answer, written = ray.get(done)
                    except ray.exceptions.RayError as err:
                        answer, written = lost(f"{type(err).__name__}: {str(err).splitlines()[0]}"), {}
                    for path, content in written.items():
                        files.write_bytes(Path(self.requests[name]["folder"]) / path, content)
                    self.progress.finish(name)
                    self.ended(name, answer)
        finally:
            self.progress.close()
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
