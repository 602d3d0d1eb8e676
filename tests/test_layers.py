"""The package's one order, and habits that no tool checks."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sac_kernel

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sac_kernel"
INLINED = sac_kernel.MODULES
ORDER = (*INLINED, *sac_kernel.BUNDLER_MODULES)
FILES = sorted(PACKAGE.glob("*.py"))
DATA_AND_ENV = INLINED[INLINED.index("bar_formats") : INLINED.index("trading_env") + 1]
AGENT = ("sac_config", "networks", "replay_buffer", "sac_agent")
WITHOUT_TORCH = (*INLINED[: INLINED.index("networks")],)

each_module = pytest.mark.parametrize("name", ORDER)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def tree_of(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def imports(tree):
    """Names of modules imported anywhere in a file, functions and type checks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name):
    """Modules of the package that a module imports."""
    parts = (found.split(".") for found in imports(tree_of(name)) if found)
    return {part[1] for part in parts if part[0] == "sac_kernel" and len(part) > 1 and part[1] in ORDER}


def test_the_order_names_every_module_once():
    assert sorted(ORDER) == sorted(path.stem for path in FILES if path.stem != "__init__")


@each_module
def test_a_module_imports_only_from_modules_before_it(name):
    before = ORDER[: ORDER.index(name)]
    above = own_imports(name) - set(before)
    assert not above, f"{name} imports {above}, which come after it"


def test_the_imports_are_seen_at_all():
    assert own_imports("trading_env") >= {"bar_engine", "market", "errors"}
    assert own_imports("errors") == set()


@pytest.mark.parametrize("name", sac_kernel.BUNDLER_MODULES)
def test_no_inlined_module_needs_one_that_stays_at_home(name):
    assert all(name not in own_imports(module) for module in INLINED)


@pytest.mark.parametrize("name", AGENT)
def test_the_agent_knows_nothing_of_data_and_env(name):
    assert not own_imports(name) & set(DATA_AND_ENV)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_ground_data_and_env_do_not_import_the_framework_at_module_level(name):
    top = ast.Module([node for node in tree_of(name).body if not is_type_check(node)], [])
    functions = [n for n in ast.walk(top) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        function.body = [ast.Pass()]
    assert not [found for found in imports(top) if found and found.split(".")[0] == "torch"]


def is_type_check(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def test_ground_data_env_and_the_build_load_without_the_framework():
    code = f"import sys, build_kernel; from sac_kernel import {', '.join(WITHOUT_TORCH)}"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@each_file
def test_no_import_is_relative(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 0]


@each_file
def test_a_module_is_at_most_600_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@each_file
def test_a_module_begins_with_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@each_file
def test_the_package_prints_nothing(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


# -- the tracked text


HOME_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|workspace)/[\w.]|[A-Z]:\\\\?Users\\")
INDEX_HOST = re.compile(r"(?:index[-_]url|find[-_]links|trusted[-_]host)[\s=:\"',]+(?:https?://)?([\w.-]+)")
PUBLIC_INDEXES = {"pypi.org", "files.pythonhosted.org", "download.pytorch.org"}


@pytest.fixture(scope="module")
def tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listing.decode().split("\0") if name]
    texts = {}
    for path in paths:
        content = path.read_bytes() if path.is_file() else b"\0"
        if b"\0" not in content:
            texts[path.relative_to(ROOT).as_posix()] = content.decode("utf-8")
    assert "pyproject.toml" in texts
    return texts


def hits(texts, pattern):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_tracked_text_holds_a_path_of_somebodys_machine(tracked):
    canary = "/".join(("", "home", "someone"))  # written out, it would be found in this file
    assert hits({"canary": canary}, HOME_PATH) == [f"canary:1: {canary}"]
    assert not hits(tracked, HOME_PATH)


def test_no_tracked_text_names_a_private_package_index(tracked):
    canary = "-".join(("", "", "index", "url https://mirror.example/simple"))
    assert INDEX_HOST.findall(canary) == ["mirror.example"]
    found = {host for text in tracked.values() for host in INDEX_HOST.findall(text)}
    assert found <= PUBLIC_INDEXES


def test_tracked_text_has_unix_line_ends_and_one_at_the_end(tracked):
    assert not [name for name, text in tracked.items() if "\r" in text]
    assert not [name for name, text in tracked.items() if text and not text.endswith("\n")]
