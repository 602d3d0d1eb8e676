"""Runs Python commands one after the other in one process, so that torch and numba's code are loaded once.

Reads one JSON request a line, answers with one JSON line. `{"words": [...]}` is what follows `python`. With
`"grow": [file, line, journal]` the line is added to the file once the journal is there, and Ctrl-C pressed once the
journal has taken it in.
"""

import _thread
import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from pathlib import Path


def run(words):
    """Run a command as its own `python` would; return the exit status."""
    try:
        if words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:  # noqa: BLE001  # a command may end as it likes, the next one runs
        traceback.print_exc()
        return 1
    return 0


def grow(bars, line, journal):
    """Be the market, then the user who has seen enough."""
    try:
        wait_for(lambda: Path(journal).is_file())
        with Path(bars).open("a") as stream:
            stream.write(line)
        wait_for(lambda: Path(journal).read_bytes().count(b"\n") >= 2)
    finally:
        _thread.interrupt_main()  # a command that writes no journal must end, too


def wait_for(seen):
    limit = time.monotonic() + 120
    while not seen() and time.monotonic() < limit:
        time.sleep(0.05)


def main():
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in what a shell starts in the background
    sys.path[0] = str(Path.cwd())  # as `python -m` and a script of this folder have it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a command prints must not be taken for an answer
    for request in sys.stdin:
        words = json.loads(request)
        if "grow" in words:
            threading.Thread(target=grow, args=words["grow"], daemon=True).start()
        answers.write(json.dumps({"status": run(words["words"])}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
