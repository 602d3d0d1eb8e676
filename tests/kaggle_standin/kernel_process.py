"""Executes one pushed kernel as the platform does; started by the runner as a script of its own.

Arguments: the source file, the working folder and the log file. Exit status: 0 complete, 1 error,
137 the kernel's process died. It imports nothing of this package.
"""

import json
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO

DIED = 137
_START_S = time.monotonic()


class LogStream:
    """A text stream that appends records to the log, each with its time."""

    def __init__(self, path: Path, name: str, lock: threading.Lock) -> None:
        self._path, self._name, self._lock = path, name, lock

    def write(self, text: str) -> None:
        """Append one record."""
        seconds = round(time.monotonic() - _START_S, 6)
        line = json.dumps({"stream_name": self._name, "time": seconds, "data": text})
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def flush(self) -> None:
        """Do nothing: each record is written at once."""


def run_notebook(source: Path, working: Path, out: LogStream, err: LogStream) -> int:
    """Execute a notebook in place, without parameters, its kernel from its own metadata."""
    import papermill  # scripts do without it
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            source, source, cwd=working, progress_bar=False, stdout_file=out, stderr_file=err
        )
    except DeadKernelError:
        err.write(traceback.format_exc())
        return DIED
    except Exception:  # noqa: BLE001  # whatever stops a notebook is an ERROR with its traceback in the log
        err.write(traceback.format_exc())
        return 1
    return 0


def run_script(source: Path, working: Path, out: LogStream, err: LogStream) -> int:
    """Execute a plain Python file, its output copied line by line to the log."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(source)],
        cwd=working,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )

    def copy(pipe: IO[str], stream: LogStream) -> None:
        for line in pipe:
            stream.write(line)

    assert process.stdout
    assert process.stderr
    streams = ((process.stdout, out), (process.stderr, err))
    threads = [threading.Thread(target=copy, args=pair) for pair in streams]
    for thread in threads:
        thread.start()
    status = process.wait()
    for thread in threads:
        thread.join()
    return {0: 0, -9: DIED}.get(status, 1)


def main() -> int:
    """Run the source named by the arguments."""
    source, working, log = (Path(argument) for argument in sys.argv[1:])
    lock = threading.Lock()
    out, err = LogStream(log, "stdout", lock), LogStream(log, "stderr", lock)
    run = run_notebook if source.suffix == ".ipynb" else run_script
    return run(source, working, out, err)


if __name__ == "__main__":
    raise SystemExit(main())
