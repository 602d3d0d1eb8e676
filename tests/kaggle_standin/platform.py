"""State and rules of the local platform, without HTTP: accounts, RPC table, sessions in threads."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.kaggle_standin import rules as texts
from tests.kaggle_standin import runner
from tests.kaggle_standin.datasets import DatasetShelf
from tests.kaggle_standin.kernels import KernelShelf, Session
from tests.kaggle_standin.rules import RpcError, Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]
ANONYMOUS_RPCS = ("IntrospectToken", "ListDatasetFiles", "DownloadDataset", "GetDatasetMetadata")
STOP_TIMEOUT_S = 20.0


class Platform:
    """Datasets, kernels and their runs; `call` answers one RPC."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self.rules = rules
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self.shelf = DatasetShelf(root, rules)
        self.desk = KernelShelf(root, rules, self.shelf, self._start)
        self._slots = {
            True: threading.Semaphore(texts.MAX_GPU_RUNS),
            False: threading.Semaphore(texts.MAX_CPU_RUNS),
        }
        self._threads: list[threading.Thread] = []
        self._rpcs: dict[str, Callable[[str, Json], Json]] = {
            "IntrospectToken": self._introspect,
            "StartBlobUpload": self.shelf.start_upload,
            "GetDatasetStatus": self.shelf.status,
            "GetDataset": self.shelf.get,
            "GetDatasetMetadata": self.shelf.metadata,
            "CreateDataset": self.shelf.create,
            "CreateDatasetVersion": self.shelf.create_version,
            "ListDatasetFiles": self.shelf.list_files,
            "DeleteDataset": self.shelf.delete,
            "SaveKernel": self.desk.save,
            "GetKernel": self.desk.get,
            "GetKernelSessionStatus": self.desk.session_status,
            "ListKernelSessionOutput": self.desk.session_output,
            "ListKernelFiles": self.desk.list_files,
            "GetAcceleratorQuotaStatistics": self.desk.quota,
            "DeleteKernel": self.desk.delete,
        }

    def call(self, rpc: str, user: str | None, body: Json) -> Json:
        """Answer one RPC of `user` (None: not logged in)."""
        answer = self._rpcs.get(rpc)
        if answer is None:
            raise RpcError(404, "Not found")
        self.require(rpc, user)
        with self.lock:
            return answer(user or "", body)

    def require(self, rpc: str, user: str | None) -> None:
        """Refuse an RPC that needs a login."""
        if user is None and rpc not in ANONYMOUS_RPCS:
            raise RpcError(401, "Unauthorized")

    def user_of(self, kind: str, secret: str) -> str | None:
        """Return who an Authorization header names: a token, or user:key; None if it is wrong."""
        rules = self.rules
        good = {"Bearer": rules.token, "Basic": f"{rules.username}:{rules.key}"}
        return rules.username if secret and good.get(kind) == secret else None

    def wait_idle(self, timeout: float) -> None:
        """Wait until no kernel waits or runs and every dataset version is ready."""
        deadline = time.monotonic() + timeout
        while busy := self._busy():
            left = deadline - time.monotonic()
            if left <= 0:
                msg = f"wait_idle: still busy after {timeout:g} s: {', '.join(busy)}"
                raise TimeoutError(msg)
            with self._changed:
                self._changed.wait(min(left, 0.05))

    def wait_status(self, ref: str, status: str, timeout: float) -> Session:
        """Wait until the newest session of kernel `ref` is in `status` and return it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                session = self.desk.kernels[ref].latest
                if session is not None and session.status == status:
                    return session
                if time.monotonic() >= deadline:
                    found = session.status if session else "no session"
                    msg = f"wait_status: {ref} should be {status} within {timeout:g} s, is {found}"
                    raise TimeoutError(msg)
                self._changed.wait(0.05)

    def stop(self) -> None:
        """Stop every run and wait for its thread."""
        with self.lock:
            for session in self.desk.sessions():
                session.cancel.set()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _introspect(self, _user: str, body: Json) -> Json:
        if body.get("token") != self.rules.token:
            return {"active": False}
        return {"active": True, "username": self.rules.username}

    def _busy(self) -> list[str]:
        with self.lock:
            runs = [s.ref for s in self.desk.sessions() if s.active]
            waiting = [d.ref for d in self.shelf.datasets.values() if not d.latest.ready]
        return runs + waiting

    # -- sessions

    def _start(self, session: Session) -> None:
        thread = threading.Thread(target=self._execute, args=(session,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _execute(self, session: Session) -> None:
        """Take a session from QUEUED to its end."""
        slot = self._slots[session.uses_gpu]
        if not self._await_turn(session, slot):
            self._finish(session, "CANCEL_ACKNOWLEDGED", texts.STOPPED_TEXT)
            return
        try:
            with self._changed:
                session.started_s = time.monotonic()
                session.move_to("RUNNING")
                self._changed.notify_all()
            limit_s = min(
                self.rules.session_limit_s,
                session.saved.get("sessionTimeoutSeconds") or float("inf"),
            )
            status, message = runner.run(session, limit_s)
        except (OSError, ValueError) as err:
            status, message = "ERROR", f"The run could not be started: {err}"
        finally:
            slot.release()
        self._finish(session, status, message)

    def _await_turn(self, session: Session, slot: threading.Semaphore) -> bool:
        """Wait in the queue; return False if the session was cancelled there."""
        if session.cancel.wait(self.rules.queue_delay_s):
            return False
        while not slot.acquire(timeout=0.05):
            if session.cancel.is_set():
                return False
        return True

    def _finish(self, session: Session, status: str, message: str) -> None:
        """Keep the output of a COMPLETE run only, and nothing of a deleted kernel."""
        with self._changed:
            session.ended_s = time.monotonic()
            if status == "COMPLETE" and not session.deleted:
                files = (p for p in session.working.rglob("*") if p.is_file())
                names = sorted(p.relative_to(session.working).as_posix() for p in files)
                session.output_files = names
            else:
                shutil.rmtree(session.working, ignore_errors=True)
            for spent in ("input", "home", "tmp", "guard"):
                shutil.rmtree(session.folder / spent, ignore_errors=True)
            if session.deleted:
                shutil.rmtree(session.folder, ignore_errors=True)
            session.move_to(status, message)
            self._changed.notify_all()
