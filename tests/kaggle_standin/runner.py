"""Runs a pushed kernel in a process of its own: layout, environment, clock, hard kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kaggle_standin import rules as texts
from tests.kaggle_standin.kernel_process import DIED

try:  # comes with ipykernel
    import psutil  # type: ignore[import-untyped]
except ImportError:
    psutil = None

if TYPE_CHECKING:
    from tests.kaggle_standin.kernels import Session

HERE = Path(__file__).parent
POLL_S = 0.02
KILL_TIMEOUT_S = 10.0
# What a process needs to start at all; everything else, secrets above all, stays outside.
PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS",
    "SYSTEMROOT", "COMSPEC", "PATHEXT", "WINDIR", "SAC_TESTS_COMPILED",
)  # fmt: skip


def run(session: Session, limit_s: float) -> tuple[str, str]:
    """Execute `session` until its end, the limit or its cancellation; return status and message."""
    source = build_training_market(session)
    before = fingerprint(session.folder / "input")
    with (session.folder / "process.txt").open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "kernel_process.py"), str(source),
             str(session.working), str(session.folder / "log.jsonl")],
            cwd=session.working,
            env=environment(session.folder),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip
    try:
        end = _watch(process, session, time.monotonic() + limit_s)
    finally:
        kill_tree(process)
        changed = fingerprint(session.folder / "input") != before
        unlock(session.folder / "input")
    if end:
        return "CANCEL_ACKNOWLEDGED", end
    if process.returncode:
        _log_last_words(session)
    return _verdict(process.returncode, changed)


def build_training_market(session: Session) -> Path:
    """Make the folders of a run, its inputs read-only; return the source file to execute."""
    folder = session.folder
    for name in ("working", "home", "tmp", "guard"):
        (folder / name).mkdir()
    shutil.copyfile(HERE / "kernel_guard.py", folder / "guard" / "sitecustomize.py")
    root = folder / "input"
    root.mkdir()
    for where, content in session.mounts:
        shutil.copytree(content, root / where, dirs_exist_ok=True)
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    notebook = session.saved.get("kernelType") == "notebook"
    source = folder / ("__notebook__.ipynb" if notebook else "script.py")
    source.write_text(session.saved.get("text", ""), encoding="utf-8")
    return source


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a run in `folder`."""
    home, temporary = str(folder / "home"), str(folder / "tmp")
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HOME": home,
        "USERPROFILE": home,
        "TMPDIR": temporary,
        "TEMP": temporary,
        "TMP": temporary,
        "PYTHONPATH": str(folder / "guard"),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "SAC_INPUT_ROOT": str(folder / "input"),
        "SAC_WORKING_DIR": str(folder / "working"),
    }


def fingerprint(root: Path) -> dict[str, str]:
    """Return the hash of every file under `root`."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                found[path.relative_to(root).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def unlock(root: Path) -> None:
    """Make folders writable again, so that whoever cleans up can remove them."""
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End the process, its group and every process below it, whatever group that is in.

    A notebook's kernel leads a session of its own, so its parent's group does not hold it.
    """
    below = _descendants(process.pid) if process.poll() is None else []
    if os.name == "posix":
        for leader in (process.pid, *(child.pid for child in below)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
    for child in below:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.kill()
    process.wait()
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while any(is_running(child.pid) for child in below) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that ended but was not collected does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _descendants(pid: int) -> list[Any]:
    """Return the processes below `pid`; without psutil none, and kernels end by themselves."""
    if psutil is None:
        return []
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _watch(process: subprocess.Popen[bytes], session: Session, deadline_s: float) -> str:
    """Wait for the end; return why the run has to be killed, '' if it ended by itself."""
    while process.poll() is None:
        if session.cancel.wait(POLL_S):
            return texts.STOPPED_TEXT
        if time.monotonic() >= deadline_s:
            return texts.TIME_LIMIT_TEXT
    return ""


def _log_last_words(session: Session) -> None:
    """Put what a failed process wrote outside its cells, say a crash report, into the log."""
    words = (session.folder / "process.txt").read_text(encoding="utf-8", errors="replace")
    seconds = round(session.elapsed_s(), 6)
    with (session.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"stream_name": "stderr", "time": seconds, "data": words}) + "\n")


def _verdict(returncode: int, inputs_changed: bool) -> tuple[str, str]:
    if inputs_changed:
        return "ERROR", texts.INPUT_CHANGED_TEXT
    if returncode == 0:
        return "COMPLETE", ""
    died = returncode in (DIED, -signal.SIGTERM, -9)
    return "ERROR", texts.MEMORY_TEXT if died else texts.ERROR_TEXT
