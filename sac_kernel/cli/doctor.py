"""Check what a run needs: Python, torch, disk, the Kaggle client, credentials, login, quota and datasets.

One line each, with the remedy. It works without a network or credentials and says what could not be checked. The exit
status is 2 if something must be mended, else 0.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sac_kernel.cli import options
from sac_kernel.core.errors import KaggleError
from sac_kernel.kaggle import credentials
from sac_kernel.kaggle.client import FINGERPRINT, WHY_NOT_OLDER, KaggleClient, is_new_enough
from sac_kernel.kaggle.process import GET_A_TOKEN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

OK, MEND, UNKNOWN = "ok", "MEND", "?"
PYTHON = ((3, 11), (3, 13))
OLDEST_TORCH = (2, 10)
FREE_GB = 2.0
DATASETS = ("data", "code", "state")
_INSTALL = f"Run {sys.executable} -m pip install -r requirements/run.txt"
_TIMEOUT_S = 60.0


class Line(NamedTuple):
    """What was checked, how it stands (OK, MEND, UNKNOWN), what was found, and the remedy if any."""

    name: str
    state: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:4}  {self.name:12} {self.found}{f'. {self.remedy}.' if self.remedy else ''}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    parser.add_argument("--name", default="sac-trading", help="name of the run whose datasets are checked")
    parser.add_argument("--offline", action="store_true", help="check nothing that needs the network")


def run(args: argparse.Namespace) -> int:
    """Print the lines; return 2 if one must be mended."""
    bad = False
    client = KaggleClient(timeout_s=_TIMEOUT_S)
    for line in (*machine(), *kaggle(client, os.environ, args.name, offline=args.offline)):
        logger.info("%s", line)
        bad |= line.state == MEND
    return 2 if bad else 0


def machine() -> Iterator[Line]:
    """Check Python, torch and the disk."""
    found, (oldest, newest) = platform.python_version(), PYTHON
    good = oldest <= sys.version_info[:2] <= newest
    remedy = "" if good else "Use Python 3.11, 3.12 or 3.13, those of Kaggle's images"
    yield Line("Python", OK if good else MEND, found, remedy)
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Line(
            "torch", MEND, "not installed", f"Run {sys.executable} -m pip install -r requirements/torch.txt"
        )
    else:
        good = _numbers(version)[:2] >= OLDEST_TORCH
        remedy = "" if good else "Use torch 2.10 or newer: pip install -r requirements/torch.txt"
        yield Line("torch", OK if good else MEND, version, remedy)
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    good = free_gb >= FREE_GB
    yield Line(
        "disk",
        OK if good else MEND,
        f"{free_gb:.1f} GB free here",
        "" if good else f"Free {FREE_GB:g} GB or more",
    )


def kaggle(
    client: KaggleClient, environ: os._Environ[str] | dict[str, str], name: str, *, offline: bool = False
) -> Iterator[Line]:
    """Check the client, the credentials, and with them login, quota and datasets."""
    works, lines = _client(client, environ)
    yield from lines
    found = credentials.find(environ)
    taken = credentials.usable(found)
    for credential in found:
        if credential.problem:
            state = MEND if credential is taken or not credential.form else UNKNOWN
            yield Line("credentials", state, f"{credential.where}: {credential.problem}", credential.todo)
        else:
            weak = f", {credential.note}" if credential.note else ""
            other = "" if credential is taken else ", not used: others come first"
            yield Line("credentials", OK, f"{credential.form} in {credential.where}{weak}{other}")
    if taken is None:
        yield Line("credentials", UNKNOWN, "none", f"{GET_A_TOKEN}; builds and rehearsals work without")
    if offline or taken is None or taken.problem or not works:
        yield Line("login", UNKNOWN, "not checked: it needs the network, a working client and credentials")
        return
    client.tries = 1
    try:
        owner = client.owner()
    except KaggleError as err:
        away = err.kind not in ("login", "client")
        yield Line("login", UNKNOWN if away else MEND, f"not checked: {err}" if away else str(err))
        return
    yield Line("login", OK, f"as {owner}")
    yield from _account(client, f"{owner}/{name}")


def _client(client: KaggleClient, environ: os._Environ[str] | dict[str, str]) -> tuple[bool, list[Line]]:
    """Check the client of this Python and the command `kaggle` on the path."""
    lines, works = [], False
    try:
        lines.append(Line("client", OK, f"kaggle {client.check_version()}"))
        works = True
    except KaggleError as err:
        lines.append(Line("client", MEND, str(err)))
    command = shutil.which("kaggle", path=environ.get("PATH"))
    if command is None:
        lines.append(
            Line(
                "command",
                UNKNOWN,
                "no `kaggle` on the path",
                "Activate the environment: . .venv/bin/activate",
            )
        )
        return works, lines
    try:
        done = subprocess.run(  # noqa: S603  # the user's own command
            [command, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT_S, check=False, env=dict(environ),
        )  # fmt: skip
        version = next(iter(re.findall(r"Kaggle (?:CLI|API) (\d[\d.]*)", done.stdout)), "")
    except (OSError, subprocess.TimeoutExpired):
        version = ""
    if not version:
        lines.append(Line("command", MEND, f"{command} does not start", _INSTALL))
    elif is_new_enough(version):
        lines.append(Line("command", OK, f"{command} is {version}"))
    else:
        lines.append(Line("command", MEND, f"{command} is {version}: {WHY_NOT_OLDER}", _INSTALL))
    return works, lines


def _account(client: KaggleClient, stem: str) -> Iterator[Line]:
    """Check the quota of the week and the datasets OWNER/NAME-data, -code and -state."""
    try:
        quota = client.quota()
        if quota is None:
            yield Line("quota", UNKNOWN, "not checked: Kaggle does not report it")
        else:
            left = quota.total_h - quota.used_h
            text = f"{left:.1f} of {quota.total_h:.0f} GPU hours left, renewed {quota.refresh}"
            yield Line("quota", OK, text, "" if left >= 1 else "Wait, or build with --accelerator none")
    except KaggleError as err:
        yield Line("quota", UNKNOWN, f"not checked: {err}")
    for kind in DATASETS:
        ref = f"{stem}-{kind}"
        try:
            yield _dataset(client, ref)
        except KaggleError as err:
            yield Line("dataset", UNKNOWN, f"{ref} not checked: {err}")


def _dataset(client: KaggleClient, ref: str) -> Line:
    version = client.dataset_version(ref)
    if version is None:
        return Line("dataset", OK, f"{ref} does not exist yet; the first build makes it")
    private, own = client.is_private(ref), FINGERPRINT in client.dataset_files(ref)
    found = (
        f"{ref}, version {version}, {'private' if private else 'PUBLIC' if private is False else 'unknown'}"
    )
    if private is False:
        return Line("dataset", MEND, found, f"Make it private at kaggle.com/datasets/{ref}/settings")
    if version and not own:
        return Line("dataset", MEND, f"{found}, not made by this project", "Build with another --name")
    return Line("dataset", OK, f"{found}, {'ready' if version else 'processed at the moment'}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
