"""Where a run is and what it runs on: folders, device, clock, versions, threads, network guard.

`paths()` alone decides where inputs and outputs lie. Nothing here does work at import.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import ipaddress
import json
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel import MODULES, files
from sac_kernel.errors import ConfigError, DeviceError, InputNotFoundError, TimeUpError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import FrameType

    import torch

INPUT_ROOT_VARIABLE = "SAC_INPUT_ROOT"
WORKING_DIR_VARIABLE = "SAC_WORKING_DIR"
REHEARSAL_VARIABLE = "SAC_REHEARSAL"
"""Set where the notebook runs at home in Kaggle's place: no network then, and no GPU is expected."""

KAGGLE_INPUT, KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")
DATA_FILE = "processed_data.h5"
CODE_MANIFEST = "code_manifest.json"
NOT_TRAINED = "NOT TRAINED:"
"""Begins the line of a run that ended before training, as COMPLETE and after a minute."""
WARM_START = "warm_start.agent"
"""A saved agent whose weights a run starts from; Kaggle may unpack a `.pt`."""
LOCAL_DATA = Path("data") / "processed" / DATA_FILE

_SEARCH_DEPTH = 4  # input/datasets/OWNER/SLUG is the deepest known mount; large inputs are slow to walk


@dataclass(frozen=True)
class Paths:
    """Input root (None where nothing is mounted) and output folder of this process."""

    input_root: Path | None
    working_dir: Path

    @property
    def mounted(self) -> bool:
        """Whether inputs are mounted, as on Kaggle and in a rehearsal."""
        return self.input_root is not None


def paths() -> Paths:
    """Return the folders of this run.

    SAC_INPUT_ROOT and SAC_WORKING_DIR if set (a rehearsal sets them), else the Kaggle folders where they
    exist, else ./outputs without a mount.
    """
    root, working = os.environ.get(INPUT_ROOT_VARIABLE), os.environ.get(WORKING_DIR_VARIABLE)
    on_kaggle = KAGGLE_WORKING.is_dir() and bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))
    if root is None and on_kaggle:
        root = str(KAGGLE_INPUT)
    if working is None:
        working = str(KAGGLE_WORKING) if on_kaggle else "outputs"
    return Paths(Path(root) if root else None, Path(working))


def find_input(name: str, root: Path | None = None) -> Path:
    """Return the one mounted (or local) file called `name`.

    Under a mount both schemes are searched, at most four folders deep: input/datasets/OWNER/SLUG/ and
    input/SLUG/. Without a mount the file is ./data/processed/`name` or ./`name`.

    Raises
    ------
    InputNotFoundError
        If it is nowhere; the message lists what is mounted.
    """
    root = root if root is not None else paths().input_root
    if root is None:
        candidates = [LOCAL_DATA.parent / name, Path(name)]
        for path in candidates:
            if path.is_file():
                return path
        msg = (
            f"runtime.find_input: {name} is required, found none of {', '.join(map(str, candidates))} "
            f"in {Path.cwd()}; make it with `python build_kernel.py` or pass its path"
        )
        raise InputNotFoundError(msg)
    found = input_files(root, name)
    if not found:
        listing = mounted_listing(root)
        msg = (
            f"runtime.find_input: {name} is required under {root}, found: {listing}; "
            "attach the data dataset to the notebook, or pass the path shown here"
        )
        raise InputNotFoundError(msg)
    return found[0]


def input_files(root: Path, name: str) -> list[Path]:
    """Return every file called `name` at most four folders below `root`, nested schemes first."""
    found = [p for depth in range(_SEARCH_DEPTH + 1) for p in root.glob("*/" * depth + name)]
    return sorted((p for p in found if p.is_file()), key=lambda p: (-len(p.parts), str(p)))


def mounted_listing(root: Path, limit: int = 12) -> str:
    """Return a short comma-separated list of what lies under `root`."""
    if not root.is_dir():
        return f"no folder {root}"
    names = [
        str(p.relative_to(root)) + ("/" if p.is_dir() else "")
        for depth in range(1, _SEARCH_DEPTH + 1)
        for p in sorted(root.glob("/".join("*" * depth)))
    ]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


def add_wheels() -> dict[str, str]:
    """Make packages importable that the image lacks, from the wheels of the code dataset.

    Returns package -> 'installed', 'from a wheel' or why it is absent. No internet and no pip is needed: a
    wheel for this Python whose hash is the manifest's is unpacked into a temporary folder at the end of sys.path.
    """
    root, found = paths().input_root, dict[str, str]()
    for index in input_files(root, CODE_MANIFEST)[:1] if root else []:
        wheels = json.loads(index.read_text(encoding="utf-8")).get("wheels", {})
        for name, digest in sorted(wheels.items()):
            package, _, tag = name.split("-")[:3]
            if importlib.util.find_spec(package):
                found.setdefault(package, "installed")
            elif tag == f"cp{sys.version_info.major}{sys.version_info.minor}":
                found[package] = _unpack_wheel(index.parent / name, digest)
            else:
                found.setdefault(package, f"no wheel for Python {platform.python_version()}")
    return found


def _unpack_wheel(path: Path, digest: str) -> str:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        return f"{path.name} is absent or not the one that was published"
    folder = tempfile.mkdtemp(prefix="sac_wheel_")
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        wheel.extractall(folder)
    sys.path.append(folder)
    importlib.invalidate_caches()
    return "from a wheel"


def block_network() -> None:
    """Make every connection from this process to anything but loopback fail with an OSError."""
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401
        _refuse_remote(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:  # noqa: ANN401
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if host not in (None, "", b"") and not _is_loopback(str(host)):
            _refuse(str(host))
        return resolve(host, *args, **kwargs)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign, assignment]  # that is the guard
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = guarded_resolve


def resolve_device(device: str) -> torch.device:
    """Return the torch device for 'auto', 'cpu', 'cuda' or 'cuda:N' after one real operation on it.

    Raises
    ------
    ConfigError
        If the word is none of these.
    DeviceError
        If CUDA is asked for and absent, or its first kernel fails.
    """
    import torch  # the ground layer must import without the framework

    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        msg = f"runtime.resolve_device: device must be auto, cpu, cuda or cuda:N, got {device!r}"
        raise ConfigError(msg)
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        msg = (
            f"runtime.resolve_device: {device} needs a CUDA device and a CUDA build of torch, found none "
            f"(torch {torch.__version__}); use device='auto', or turn the accelerator on"
        )
        raise DeviceError(msg)
    chosen = torch.device("cuda" if device == "auto" else device)
    try:
        torch.ones(8, device=chosen).sum().item()
    except (RuntimeError, AssertionError) as err:
        msg = (
            f"runtime.resolve_device: a first operation on {chosen} is required to work, found: {err}; "
            "this torch may lack kernels for this GPU (set machine_shape NvidiaTeslaT4), or use device='cpu'"
        )
        raise DeviceError(msg) from err
    return chosen


def devices(device: str) -> tuple[str, ...]:
    """Return the names of the devices that jobs may use at the same time.

    'auto' and 'cuda' are every CUDA device there is ('auto' without one: the CPU); any other word is itself.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in ("auto", "cuda") and count > 0:
        return tuple(f"cuda:{i}" for i in range(count))
    return ("cpu",) if device == "auto" else (device,)


def describe_device(device: torch.device) -> str:
    """Return 'cpu', or the GPU's name, memory, compute capability and how many there are."""
    import torch

    if device.type == "cpu":
        return f"cpu ({os.cpu_count()} cores)"
    facts = torch.cuda.get_device_properties(device)
    memory = facts.total_memory / 2**30
    count = torch.cuda.device_count()
    return f"{device}: {facts.name}, {memory:.0f} GiB, sm_{facts.major}{facts.minor}, {count} in all"


def set_threads(count: int | None = None) -> int:
    """Set and return torch's thread count: `count`, or OMP_NUM_THREADS, or 1.

    The default recipe's products are so small that a second thread halves its speed (docs/speed.md), and a
    run's bits depend on the count.
    """
    import torch

    if count is None:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        count = int(wanted) if wanted.isdigit() else 1
    torch.set_num_threads(count)
    return count


def versions() -> dict[str, str]:
    """Return Python, platform and package versions of this process, for headers and checkpoints."""
    names = ("torch", "numpy", "pandas", "h5py", "gymnasium", "numba", "matplotlib")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "machine": platform.machine(), **found}


def code_hash() -> str:
    """Return the SHA-256 of the package's inlined modules, in order; line ends are a matter of the checkout."""
    folder = Path(__file__).parent
    contents = {name: (folder / f"{name}.py").read_bytes().replace(b"\r\n", b"\n") for name in MODULES}
    return files.content_hash({name: files.sha256(content) for name, content in contents.items()})


@dataclass
class Deadline:
    """A run's own clock: says when to stop, so that the platform never has to.

    Parameters
    ----------
    budget_s : seconds from `started_s` after which `passed` is true; infinite by default.
    started_s : `time.monotonic()` at the start.
    """

    budget_s: float = float("inf")
    started_s: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def elapsed_s(self) -> float:
        """Return seconds since the start."""
        return time.monotonic() - self.started_s

    def left_s(self) -> float:
        """Return seconds left, negative when overrun."""
        return self.budget_s - self.elapsed_s()

    def passed(self, reserve_s: float = 0.0) -> bool:
        """Whether less than `reserve_s` is left, or a stop was requested."""
        return self._stop.is_set() or self.left_s() <= reserve_s

    def check(self) -> None:
        """Raise TimeUpError if the time is over or a stop was requested: for long steps that can be repeated."""
        if self._stop.is_set() or self.left_s() <= 0.0:
            msg = f"Deadline: time left is required, found {self.elapsed_s():.0f} s of {self.budget_s:.0f} s used"
            raise TimeUpError(msg)

    def request_stop(self) -> None:
        """Make `passed` true from now on; safe in a signal handler."""
        self._stop.set()

    def stop_on_signals(self) -> Callable[[], None]:
        """Turn SIGTERM and SIGINT into `request_stop`; return a function that undoes it.

        Only the main thread may set handlers; elsewhere nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            return lambda: None

        def handler(_number: int, _frame: FrameType | None) -> None:
            self.request_stop()

        old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, previous in old.items():
                signal.signal(number, previous)

        return restore


class Progress:
    """Progress with rate and ETA: a live line on a terminal, one log line at intervals elsewhere."""

    def __init__(self, logger: logging.Logger, label: str, total: int, done: int = 0) -> None:
        self._logger, self._label, self._total = logger, label, total
        self._started_s, self._first = time.monotonic(), done
        self._live = sys.stderr.isatty()
        self._interval_s = 1.0 if self._live else 10.0
        self._next_s = self._started_s + 1.0

    def update(self, done: int, note: str = "") -> None:
        """Show `done` of the total if the interval has passed."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + self._interval_s
        rate = (done - self._first) / max(now - self._started_s, 1e-9)
        eta = duration((self._total - done) / rate) if rate > 0 else "?"
        line = f"{self._label} {done:,}/{self._total:,} ({done / self._total:.0%}) ETA {eta} {note}".rstrip()
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            self._logger.info("%s", line)

    def close(self) -> None:
        """End the live line."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return seconds as '8 s', '2 min 05 s' or '3 h 07 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _refuse_remote(family: int, address: Any) -> None:  # noqa: ANN401
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
        _refuse(str(address[0]))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(host: str) -> None:
    msg = f"network blocked in this run: connection to {host} refused; the kernel must work without internet"
    raise OSError(msg)
