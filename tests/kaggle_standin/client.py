"""The unmodified `kaggle` client in a process of its own, aimed at a local platform."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

from tests.kaggle_standin.quick_client import QuickClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.kaggle_standin.server import KaggleStandin

    Cli = Callable[..., subprocess.CompletedProcess[str]]

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "PYTHONPATH")
PLAIN = os.environ.get("KAGGLE_CLIENT_PYTHON") or sys.executable
"""The interpreter whose client is tested."""
quick = QuickClient(PLAIN)


def kaggle_env(
    standin: KaggleStandin, home: Path, auth: Literal["legacy", "token", "none"] = "legacy"
) -> dict[str, str]:
    """Return an environment in which the client reaches `standin` and nothing else.

    HOME, KAGGLE_CONFIG_DIR and TMPDIR lie under `home`. Tunnels (https) go to `standin` too, which
    refuses and records them, so that a test that forgets LOCALHOST cannot reach the real site.
    """
    folders = {"HOME": home, "KAGGLE_CONFIG_DIR": home / ".kaggle", "TMPDIR": home / "tmp"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env.update({name: str(folder) for name, folder in folders.items()})
    env.update({"TEMP": env["TMPDIR"], "TMP": env["TMPDIR"], "USERPROFILE": env["HOME"]})
    env["KAGGLE_API_ENVIRONMENT"] = "LOCALHOST"
    env["PIP_NO_INDEX"] = "1"
    for name in ("http_proxy", "https_proxy"):  # and no NO_PROXY: it would go around the server
        env[name] = env[name.upper()] = standin.url
    if auth == "legacy":
        env.update({"KAGGLE_USERNAME": standin.username, "KAGGLE_KEY": standin.rules.key})
    elif auth == "token":
        env["KAGGLE_API_TOKEN"] = standin.rules.token
    return env


def client_python() -> str:
    """Return what to call as the interpreter of the client: it costs a quarter of the processor time."""
    return quick.python


def run_kaggle(
    args: Sequence[str],
    env: dict[str, str],
    cwd: Path,
    timeout: float = 60.0,
    *,
    python: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run `kaggle ARGS`; TimeoutExpired after `timeout` seconds.

    The client is that of `python`, else of KAGGLE_CLIENT_PYTHON, else of this interpreter.
    """
    return subprocess.run(
        [python or client_python(), "-P", "-m", "kaggle", *args],
        env=env,
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
