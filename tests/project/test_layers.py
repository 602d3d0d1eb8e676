"""The package's one order, which package may import which, and habits that no tool checks."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sac_kernel

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sac_kernel"
INLINED = sac_kernel.MODULES
ORDER = (*INLINED, *sac_kernel.HOME_MODULES)
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

MARKET = {"core", "prices", "stats", "features", "market"}
EXPERIMENT = MARKET | {"agent", "backtest", "report", "experiment"}
MAY_IMPORT = {
    "core": {"core"},
    "prices": {"core", "prices"},
    "stats": {"core", "stats"},
    "features": {"core", "prices", "features"},
    "market": MARKET,
    "agent": {"core", "agent"},
    "backtest": MARKET | {"agent", "backtest"},
    "report": MARKET | {"agent", "backtest", "report"},
    "experiment": EXPERIMENT,
    "live": EXPERIMENT | {"live"},
    "kaggle": EXPERIMENT | {"kaggle"},
    "cli": EXPERIMENT | {"live", "kaggle", "cli"},
}
"""Package -> the packages that its modules may import (docs/architecture.md)."""

LAZY = {
    ("prices.pipeline", "prices.ingest.panel"),
    ("prices.pipeline", "prices.ingest.writer"),
    ("train_sac_kaggle", "cli.main"),
}
"""Modules that import a later one inside a function; an inlined one says so where it is missing."""


def name_of(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def tree_of(name):
    return TREES[PACKAGE / f"{name.replace('.', '/')}.py"]


def imports(tree):
    """Names of modules imported anywhere in a file, functions and type checks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def own_imports(name):
    """Modules of the package that a module imports."""
    found = {found.removeprefix("sac_kernel.") for found in imports(tree_of(name)) if found}
    return found & set(ORDER)


def test_the_order_names_every_module_once():
    assert sorted(ORDER) == sorted(name_of(path) for path in FILES if not path.stem.startswith("__"))


def test_a_module_imports_only_from_modules_before_it():
    above = {
        (name, other)
        for i, name in enumerate(ORDER)
        for other in own_imports(name) - set(ORDER[:i]) - {module for user, module in LAZY if user == name}
    }
    assert not above


def test_a_package_imports_only_from_those_that_the_table_allows():
    wrong = {
        (name, other)
        for name in ORDER
        if "." in name
        for other in own_imports(name)
        if other.split(".")[0] not in MAY_IMPORT[name.split(".")[0]]
    }
    assert not wrong


def test_the_table_is_in_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [package for package in MAY_IMPORT if f"| `{package}` |" not in page]


def test_the_imports_are_seen_at_all():
    assert own_imports("market.envs") >= {"market.engine", "market.market", "core.errors", "market.render"}
    assert own_imports("core.printable") == set()
    assert own_imports("prices.pipeline") >= {"prices.ingest.panel"}


def test_no_inlined_module_needs_one_that_stays_at_home():
    home = set(sac_kernel.HOME_MODULES)
    needed = {(name, other) for name in INLINED for other in own_imports(name) & home}
    assert needed == {pair for pair in LAZY if pair[0] in INLINED} != set()


def test_every_name_is_imported_from_the_module_that_defines_it():
    borrowed = []
    for path, tree in TREES.items():
        if "." not in name_of(path) or path.stem == "__init__":
            continue  # facades and packages exist to pass names on
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.removeprefix("sac_kernel.") in ORDER:
                own = defined(tree_of(node.module.removeprefix("sac_kernel.")))
                borrowed += [
                    f"{name_of(path)}: {a.name} of {node.module}" for a in node.names if a.name not in own
                ]
    assert not borrowed


def defined(tree):
    """Names that a module binds itself at its top, imports apart."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def loaded_by(code):
    """Modules that are loaded after `code` ran in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_build_loads_no_framework():
    assert "torch" not in loaded_by("import build_kernel")


def test_prices_features_and_market_load_neither_the_framework_nor_figures():
    packages = ("core", "prices", "stats", "features", "market")
    modules = [name for name in INLINED if name.split(".")[0] in packages]
    modules = [name for name in modules if name not in ("core.plot_style", "market.render")]
    loaded = loaded_by("import " + ", ".join(f"sac_kernel.{name}" for name in (*packages, *modules)))
    assert {"sac_kernel.market.envs", "numba"} <= loaded
    assert not {"torch", "matplotlib"} & loaded


def test_a_package_loads_its_public_names_when_they_are_used():
    before = loaded_by("import sac_kernel.agent, sac_kernel.market, sac_kernel.prices, sac_kernel.experiment")
    assert not {"torch", "pandas", "numba", "matplotlib"} & before
    after = loaded_by("from sac_kernel.market import TradingEnvironment")
    assert "numba" in after
    assert "matplotlib" not in after


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_public_names_of_a_package_exist(package):
    module = importlib.import_module(f"sac_kernel.{package}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert dir(module) == sorted(module.__all__)


def test_an_unknown_public_name_is_an_attribute_error():
    import sac_kernel.market

    with pytest.raises(AttributeError, match="nothing"):
        _ = sac_kernel.market.nothing


def test_no_import_is_relative():
    relative = [
        name_of(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not relative


def test_a_module_is_at_most_600_lines():
    assert not [name_of(p) for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 600]


def test_a_module_begins_with_what_it_is():
    assert not [name_of(path) for path, tree in TREES.items() if not ast.get_docstring(tree)]


def test_attributes_of_a_table_are_declared_not_hidden_in_attrs():
    users = {
        name_of(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "attrs"
    }
    assert users == {"prices.hdf5", "prices.ingest.writer"}  # those of HDF5


def test_the_package_prints_nothing():
    calls = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls


# -- the tracked text


HOME_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|workspace)/[\w.]|[A-Z]:\\\\?Users\\")
INDEX_HOST = re.compile(r"(?:index[-_]url|find[-_]links|trusted[-_]host)[\s=:\"',]+(?:https?://)?([\w.-]+)")
PUBLIC_INDEXES = {"pypi.org", "files.pythonhosted.org", "download.pytorch.org"}


@pytest.fixture(scope="module")
def tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("checks the files that git tracks; this copy is no git checkout, or git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    # files as users have them are kept byte by byte
    names = [name for name in listing.decode().split("\0") if name and "/user_files/" not in name]
    paths = [ROOT / name for name in names]
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
