"""Sampled mutation testing of the modules that hold money, learning and state, with mutmut's mutants.

python -m tests.mutants                   # `make mutants`; --sample so many of each module, drawn with a fixed seed

mutmut writes the mutants; each runs in a fork of one process against the tests of its module, so that the
framework is imported once. A mutant is killed by a test that fails or by the time that it takes. What survives
is printed as a difference, to be read.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEED = 20261125
ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "stats.metrics": ["tests/stats/test_metrics.py"],
    "experiment.checkpoint": ["tests/experiment/test_checkpoint.py"],
    "market.envs": ["tests/market/test_envs.py"],
    "agent.sac": ["tests/agent/test_sac.py", "tests/agent/test_replay.py", "tests/agent/test_cuda.py"],
}
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore", "-m", "not slow and not learns")
HANG_S = 600.0


def source_of(folder, module):
    return folder / "sac_kernel" / (module.replace(".", "/") + ".py")


def mutate(folder):
    """Copy the package and its tests, mutants written in."""
    import mutmut.configuration
    from mutmut.mutation.file_mutation import mutate_file_contents

    mutmut.configuration._guess_source_paths = lambda: ["sac_kernel"]  # it asks for a setting, none is needed
    for name in ("sac_kernel", "tests", "requirements", "notebooks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("build_kernel.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for module in TESTS:
        path = source_of(folder, module)
        path.write_text(
            mutate_file_contents(str(path), path.read_text(encoding="utf-8")).code, encoding="utf-8"
        )


def drawn(names, sample):
    """Return so many names of each module, or all of them."""
    generator = random.Random(SEED)
    return {module: generator.sample(sorted(all_), min(sample, len(all_))) for module, all_ in names.items()}


def run_tests(name, tests):
    """Run tests in a fork with one mutant active ('' for none); return pytest's status, -1 for a hang."""
    child = os.fork()
    if child == 0:
        os.environ["MUTANT_UNDER_TEST"] = name
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        os._exit(int(pytest.main([*OPTIONS, *tests])))
    end = time.monotonic() + HANG_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def difference(folder, name):
    """Return what a mutant changes, as the lines that differ."""
    module, function = name.rsplit(".", 1)
    source = (folder / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    found = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    original = re.sub(r"__mutmut_\d+$", "__mutmut_orig", function)
    old, new = (ast.unparse(found[n]).splitlines()[1:] for n in (original, function))
    return [
        line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[:3] not in ("---", "+++")
    ][1:]


def work(folder, sample, modules):
    """Judge a sample of these modules' mutants and print the score; runs inside the mutated copy."""
    import pytest
    import torch

    import sac_kernel.experiment.trainer  # noqa: F401

    torch.set_num_threads(1)
    # What the tests import is imported before the forks; the test modules themselves in each, under its mutant.
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", *OPTIONS, *(path for module in modules for path in TESTS[module])])
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    names = {}
    for module in modules:
        tree = ast.parse(source_of(folder, module).read_text(encoding="utf-8"))
        functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        names[module] = [f"sac_kernel.{module}.{n}" for n in functions if re.search(r"__mutmut_\d+$", n)]
    killed = total = 0
    for module, chosen in drawn(names, sample).items():
        assert run_tests("", TESTS[module]) == 0, f"{module}: the tests must pass without a mutant"
        survivors = [name for name in chosen if run_tests(name, TESTS[module]) == 0]
        killed, total = killed + len(chosen) - len(survivors), total + len(chosen)
        sys.stdout.write(
            f"{module}: {len(chosen) - len(survivors)} of {len(chosen)} killed, drawn from {len(names[module])}\n"
        )
        for name in survivors:
            sys.stdout.write(f"  survived {name}\n" + "".join(f"    {x}\n" for x in difference(folder, name)))
        sys.stdout.flush()
    sys.stdout.write(f"{killed} of {total} killed: {killed / total:.0%}; seed {SEED}\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--modules", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        work(args.inside, args.sample, args.modules)
        return 0
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top).resolve()
        mutate(folder)
        command = [
            sys.executable,
            "-m",
            "tests.mutants",
            "--sample",
            str(args.sample),
            "--modules",
            *args.modules,
            "--inside",
            str(folder),
        ]
        env = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.run(command, cwd=folder, env=env, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
