"""The local platform as one object: its server, its scripted faults, its record of requests."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.kaggle_standin.faults import FaultBook
from tests.kaggle_standin.handler import Handler
from tests.kaggle_standin.platform import Platform
from tests.kaggle_standin.rules import Rules

if TYPE_CHECKING:
    from types import TracebackType

    from tests.kaggle_standin.datasets import Dataset
    from tests.kaggle_standin.faults import Fault
    from tests.kaggle_standin.kernels import Kernel, Session
    from tests.kaggle_standin.record import Request


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    standin: KaggleStandin

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed close their connection in the middle."""


class KaggleStandin:
    """A local Kaggle on an ephemeral port of 127.0.0.1, for use in a `with` statement.

    Parameters
    ----------
    run_root : folder for uploads, datasets and runs; made if missing, must be empty.
    port : 0 for a free one.
    rules : fields of `Rules`, for instance `username`, `mount_scheme`, `dataset_delay_s`,
        `session_limit_s`, `gpu_quota_s`.
    """

    def __init__(self, run_root: Path | str, *, port: int = 0, **rules: Any) -> None:
        root = Path(run_root).resolve()
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            msg = f"KaggleStandin: run_root must be an empty folder, {root} is not"
            raise ValueError(msg)
        self.rules = Rules(**rules)
        self.platform = Platform(root, self.rules)
        self.faults = FaultBook()
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), Handler)
        self._server.standin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.platform.stop()
        if kind is None and self.foreign_requests:
            asked = ", ".join(f"{r.method} {r.host}{r.path}" for r in self.foreign_requests)
            msg = f"requests to other hosts were refused: {asked}"
            raise AssertionError(msg)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, to be used as http_proxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def username(self) -> str:
        """The owner of the account."""
        return self.rules.username

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Datasets by `owner/slug`."""
        return self.platform.shelf.datasets

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels by `owner/slug`."""
        return self.platform.desk.kernels

    @property
    def foreign_requests(self) -> list[Request]:
        """Requests meant for another host; all were refused. Empty it to accept them."""
        return [r for r in self.requests if not self.is_own_host(r.host)]

    def session(self, ref: str) -> Session:
        """Return the newest session of kernel `ref`; KeyError if it never ran."""
        latest = self.kernels[ref].latest
        if latest is None:
            raise KeyError(ref)
        return latest

    def calls(self, rpc: str) -> list[Request]:
        """Return the requests of one RPC, or of blob, output, download, logs."""
        return [r for r in self.requests if r.rpc == rpc]

    def fault(self, where: str, *answers: Fault) -> None:
        """Script the next answers at `where`: an RPC name, blob, output, download or logs."""
        self.faults.add(where, answers)

    def add_dataset(self, ref: str, files: dict[str, bytes], *, private: bool = True) -> Dataset:
        """Put a dataset version there without the client, ready at once; any owner will do."""
        with self.platform.lock:
            return self.platform.shelf.add(ref, files, private=private)

    def use_gpu_quota(self, seconds: float) -> None:
        """Count `seconds` of GPU time as used."""
        with self.platform.lock:
            self.platform.desk.gpu_used_before_s += seconds

    def wait_idle(self, timeout: float = 60.0) -> None:
        """Wait until nothing waits, runs or is processed; TimeoutError names what still does."""
        self.platform.wait_idle(timeout)

    def wait_status(self, ref: str, status: str, timeout: float = 60.0) -> Session:
        """Wait until the newest session of kernel `ref` is in `status` and return it."""
        return self.platform.wait_status(ref, status, timeout)

    def record(self, request: Request) -> None:
        """Keep a request for assertions."""
        with self._lock:
            self.requests.append(request)

    def is_own_host(self, host: str) -> bool:
        """Whether a request for `host` is meant for this server."""
        return host in ("localhost", f"localhost:{self.port}", f"127.0.0.1:{self.port}")
