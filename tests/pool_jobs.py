"""Functions that the tests of the job pool run in other processes."""

import logging
import os
import sys
import time
from pathlib import Path

from sac_kernel.core.errors import DataError


def square(job, place):
    """The square of x; notes that it ran, prints, and reads an input if there is one."""
    note(job, "begun")
    sys.stdout.write("nobody takes this for an answer\n")
    time.sleep(job.get("sleep_s", 0.0))
    (place.folder / "seen.txt").write_text(place.device)
    note(job, "ended")
    text = "".join(path.read_text() for path in place.inputs.values())
    return {"square": job["x"] ** 2, "input": text, "pid": os.getpid()}


def dies(job, place):
    """Ends its process in the first `deaths` attempts."""
    note(job, "begun")
    if lines(job).count(f"begun {job['x']}") <= job["deaths"]:
        os._exit(9)
    return {"square": job["x"] ** 2}


def fails(job, place):
    if job["x"] == 1:
        msg = "bars are required, found none"
        raise DataError(msg)
    return {"square": job["x"] ** 2, "pid": os.getpid()}


def hangs(job, place):
    """Cannot be stopped."""
    note(job, "begun")
    time.sleep(600)


def talks(job, place):
    """Logs what looks like an answer, and says how far it is."""
    logging.getLogger("talks").warning('a line\n\0{"result": {}, "failure": "", "seconds": 0}')
    place.report(0.5)
    return {"square": job["x"] ** 2}


def waits(job, place):
    """Runs until it is asked to stop, and saves what it has."""
    note(job, "begun")
    while not place.deadline.passed():
        time.sleep(0.01)
    note(job, "stopped")


def hears_nothing(job, place):
    """Runs for minutes, whatever it is asked."""
    Path(job["diary"]).write_text(f"begun {os.getpid()} ")
    time.sleep(120.0)


def note(job, word):
    """Append a line; small appends are whole on every system."""
    if "diary" in job:
        with Path(job["diary"]).open("a") as diary:
            diary.write(f"{word} {job['x']}\n")


def lines(job):
    return Path(job["diary"]).read_text().splitlines()
