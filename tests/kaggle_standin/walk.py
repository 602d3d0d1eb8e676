"""Walk the whole Kaggle story at home: `python -m tests.kaggle_standin.walk`.

Starts the local platform and runs, with the real client and in a copy of this checkout, the commands that a
user types; what they print is shown as it comes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kaggle_standin.client import kaggle_env
from tests.kaggle_standin.server import KaggleStandin

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("sac_kernel", "notebooks", "build_kernel.py", "kernel-metadata.json", "dataset-metadata.json")
SHORT = "--set num_episodes=2 --set eval_frequency=1 --set checkpoint_frequency=1 --set allow_cpu=True"
KERNEL = "tester/sac-trading-train"
BUILD, KAGGLE = [sys.executable, "build_kernel.py"], [sys.executable, "-P", "-m", "kaggle"]
STEPS = (
    ("build, publish code and data", BUILD, SHORT),
    ("push, which starts the run", KAGGLE, "kernels push"),
    ("follow it; fetch and verify", BUILD, "--follow --poll-s 2"),
    ("the same files by the plain command", KAGGLE, f"kernels output {KERNEL} -p plain/"),
    (
        "two more episodes: publish the state, push, follow",
        BUILD,
        "--resume --follow --poll-s 2 --set num_episodes=4",
    ),
    ("nothing to do: nothing goes up", BUILD, "--set num_episodes=4"),
    ("questions only Kaggle can answer", BUILD, "--probe --accelerator none --push --follow --poll-s 2"),
    ("delete kernel and run", BUILD, "--stop --yes"),
)


def main() -> int:
    """Run every step; return the first exit status that is not 0."""
    with tempfile.TemporaryDirectory(prefix="kaggle-rehearsal-") as folder:
        checkout = Path(folder) / "checkout"
        checkout.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, checkout / name)
        with KaggleStandin(Path(folder) / "platform") as platform:
            env = kaggle_env(platform, Path(folder) / "home")
            for number, (what, program, words) in enumerate(STEPS, 1):
                name = "kaggle" if program is KAGGLE else "python build_kernel.py"
                say(f"\n[{number}/{len(STEPS)}] {what}\n$ {name} {words}\n")
                status = subprocess.run(
                    [*program, *words.split()], cwd=checkout, env=env, check=False
                ).returncode
                if status != 0:
                    say(f"\nstep {number} ended with status {status}\n")
                    return status
            say(
                f"\nAll {len(STEPS)} steps done; requests to other hosts: {len(platform.foreign_requests)}.\n"
            )
    return 0


def say(text: str) -> None:
    """Print before the next step prints."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
