"""Start the local platform by hand: `python -m tests.kaggle_standin --port 7777 --root DIR`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.kaggle_standin.client import kaggle_env
from tests.kaggle_standin.rules import Rules
from tests.kaggle_standin.server import KaggleStandin

SHOWN = (
    "KAGGLE_API_ENVIRONMENT", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
    "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "HOME", "TMPDIR",
)  # fmt: skip


def main() -> None:
    """Serve until Ctrl-C; print what a shell has to export."""
    default = Rules()
    parser = argparse.ArgumentParser(prog="python -m tests.kaggle_standin", description=__doc__)
    parser.add_argument("--port", type=int, default=7777)
    parser.add_argument("--root", type=Path, required=True, help="empty or new folder for its state")
    parser.add_argument("--username", default=default.username)
    parser.add_argument("--mount-scheme", choices=["datasets", "flat"], default="datasets")
    parser.add_argument("--without-quota", choices=["refuse", "cpu"], default="refuse")
    parser.add_argument("--dataset-delay-s", type=float, default=default.dataset_delay_s)
    parser.add_argument("--queue-delay-s", type=float, default=default.queue_delay_s)
    parser.add_argument("--session-limit-s", type=float, default=default.session_limit_s)
    parser.add_argument("--gpu-quota-s", type=float, default=default.gpu_quota_s)
    settings = vars(parser.parse_args())
    root, port = settings.pop("root").resolve(), settings.pop("port")
    with KaggleStandin(root / "platform", port=port, **settings) as standin:
        env = kaggle_env(standin, root / "home")
        lines = [f"export {name}={env[name]}" for name in SHOWN]
        text = "\n".join(["# in another shell:", *lines, "unset NO_PROXY no_proxy", ""])
        sys.stdout.write(text + "# Ctrl-C stops the platform and every run\n")
        sys.stdout.flush()
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.wait(0.5):  # a wait without end would not be interrupted everywhere
            pass
    sys.stdout.write("stopped\n")


if __name__ == "__main__":
    main()
