"""Every command of every page is one that its own program accepts, and its modules and options are run by a test.

A command is parsed by the program it calls, stopped right behind `parse_args`: a renamed option, a misspelt
module or a lost make target in any page fails here.
"""

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel.cli.settings import parse_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = "\n".join(
    p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__)
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = ("make", "python", "pip", "kaggle", "ray")
START = re.compile(rf"(?:{'|'.join(PROGRAMS)}) [\w.-]")
SETUP = ("python -m venv .venv", ". .venv/bin/activate")
RAY_OPTIONS = {"--head", "--address", "--port"}


def commands_of(text):
    """Commands of a page in its order: in bash fences, in indented blocks, and whole ones in backticks."""
    found = []  # (place, command)
    for fence in FENCE.finditer(text):
        if fence[1] == "bash":
            lines = fence[2].replace("\\\n", " ").splitlines()
            found += [(fence.start(), part) for line in lines for part in split(line)]
    rest = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    for code in re.finditer(r"^    (\S.*)$|`([^`]+)`", rest, re.MULTILINE):
        line = code[1] or code[2].replace("\n", " ")
        found += [(code.start(), part) for part in split(line) if START.match(part)]
    found.sort(key=lambda one: one[0])
    whole = [" ".join(command.split()) for _, command in found]
    return [command for command in whole if command and not command.startswith("#")]


def split(line):
    return re.split(r"\s+&&\s+", line.partition("  #")[0])


COMMANDS = sorted(
    {(p.relative_to(ROOT).as_posix(), c) for p in PAGES for c in commands_of(p.read_text("utf-8"))}
)


def cut_comment(command):
    """The command without its comment, a trailing `...` and the brackets of an optional part."""
    return re.sub(r"\[(--.*?)\]", r"\1", re.split(r"\s#\s", command)[0].removesuffix(" ..."))


def accepted(command, monkeypatch):
    """Parse the command with the program it calls; an unknown program or option raises."""
    words = shlex.split(cut_comment(command))
    if command in SETUP:
        return
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[:4] == ["python", "-m", "pip", "install"] or words[:2] == ["pip", "install"]:
        files = [word for word in words if word.endswith(".txt")]
        assert files or "-r" not in words
        assert [name for name in files if not (ROOT / name).is_file()] == []
    elif words[:2] == ["python", "-c"]:
        compile(words[2], command, "exec")
    elif words[0] == "python":
        parse_python(words[1:], monkeypatch)
    elif words[:2] in (["ray", "start"], ["ray", "stop"]):
        assert {word.partition("=")[0] for word in words[2:]} <= RAY_OPTIONS
    else:
        assert words[0] == "kaggle", f"no test knows how to check {command!r}"


class ParsedError(Exception):
    """The program has accepted its arguments."""


def parse_python(words, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def and_stop(parser, *args, **kwargs):
        raise ParsedError(parse(parser, *args, **kwargs))

    module = words[1] if words[0] == "-m" else words[0]
    if module == "pytest":
        return
    path = ROOT / (f"{module.replace('.', '/')}.py" if words[0] == "-m" else module)
    if words[0] == "-m" and not path.is_file():
        path = path.with_suffix("") / "__main__.py"
    source = path.read_text(encoding="utf-8")
    assert "__main__" in source, f"{path} is no program"
    if words[0] == "-m":
        words = words[1:]
    if not re.search(r"argparse|_parser\(\)|cli\.main", source):
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", and_stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ParsedError) as parsed:
        run_until_parsed(path)
    if path.name == "build_kernel.py":
        parse_settings(parsed.value.args[0].set)


def run_until_parsed(path):
    try:
        runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as err:
        if err.name.startswith(("sac_kernel", "benchmarks", "tests")):
            raise
        pytest.skip(f"needs {err.name}, which is not installed")


def test_commands_are_found_in_all_three_forms():
    fences = (
        "```bash\npython a.py && kaggle b  # c\nmake \\\n z\n```\n\n    make w   # v\n\n```text\nmake no\n```"
    )
    page = f"a `make x y` b\n\n{fences}"
    assert commands_of(page) == ["make x y", "python a.py", "kaggle b", "make z", "make w"]
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(("page", "command"), [c for c in COMMANDS if not c[1].startswith("kaggle ")])
def test_the_program_accepts_the_command(page, command, monkeypatch):
    if command.startswith("make") and shutil.which("make") is None:
        pytest.skip("make is not installed")
    accepted(command, monkeypatch)


def test_a_wrong_command_is_not_accepted(monkeypatch):
    for wrong in (
        "python build_kernel.py --set sac_gama=.9",
        "python -m sac_kernel.sweep --agentz 1",
        "make nothing",
    ):
        with pytest.raises((Exception, SystemExit)), monkeypatch.context() as patched:
            accepted(wrong, patched)


def test_the_kaggle_client_accepts_its_commands(tmp_path):
    program = (
        "import argparse, shlex, sys\nfrom kaggle import cli\n"
        "parse = argparse.ArgumentParser.parse_args\n"
        "class ParsedError(Exception): pass\n"
        "def stop(self, *a, **k):\n    parse(self, *a, **k)\n    raise ParsedError\n"
        "argparse.ArgumentParser.parse_args = stop\n"
        "for line in sys.stdin:\n    sys.argv = shlex.split(line)\n    try: cli.main()\n"
        "    except ParsedError: print('accepted')\n"
    )
    lines = [cut_comment(c) for _, c in COMMANDS if c.startswith("kaggle ")]
    assert lines
    env = {**os.environ, "HOME": str(tmp_path), "KAGGLE_USERNAME": "nobody", "KAGGLE_KEY": "0"}
    command = [sys.executable, "-P", "-W", "ignore", "-c", program]
    done = subprocess.run(command, input="\n".join(lines), env=env, capture_output=True, text=True)
    assert done.stdout.count("accepted") == len(lines), done.stdout + done.stderr


def test_every_program_and_every_option_of_the_pages_is_run_by_some_test():
    """Benchmarks only measure; their short forms, where there are any, are tests of what they call."""
    told = [cut_comment(c).split() for _, c in COMMANDS if c.startswith("python ")]
    modules = {
        words[2] for words in told if words[1] == "-m" and words[2].startswith(("sac_kernel", "tests"))
    }
    names = {module.rpartition(".")[2] for module in modules}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", TESTS)] == []
    options = {w for words in told if words[1] == "build_kernel.py" for w in words if w.startswith("--")}
    assert [o for o in sorted(options) if f'"{o}' not in TESTS and f" {o}" not in TESTS] == []
