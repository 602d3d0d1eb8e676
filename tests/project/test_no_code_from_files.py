"""No module has a way to run what it reads: no pickle, eval or exec, no loader that unpickles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted((ROOT / "sac_kernel").rglob("*.py")), ROOT / "build_kernel.py"]
CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"marshal", "shelve", "joblib", "dill", "cloudpickle", "yaml", "runpy", "code"}
LOADERS = {"read_pickle", "to_pickle", "extractall", "Unpickler"}
# wheels of the code dataset are code by nature: only what the manifest's hash names is unpacked
ALLOWED = {("packages", "extractall")}
# a user's own feature file is code that she names on the command line
NAMED_BY_THE_USER = {("own", "exec"), ("own", "compile")}


def findings(path):
    """Yield what a file has that could run data."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            yield from (name for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            yield from [] if node.attr == "UnpicklingError" else [f"pickle.{node.attr}"]
        if isinstance(node, ast.Call):
            yield from calls(node, path.stem)


def calls(node, module):
    keywords = {k.arg: k.value for k in node.keywords}
    if isinstance(node.func, ast.Name) and (module, node.func.id) in NAMED_BY_THE_USER:
        return
    if isinstance(node.func, ast.Name) and node.func.id in CODE:
        yield node.func.id
    if not isinstance(node.func, ast.Attribute):
        return
    name = node.func.attr
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if name in LOADERS and (module, name) not in ALLOWED:
        yield name
    if (owner, name) == ("torch", "load") and getattr(
        keywords.get("weights_only"), "value", None
    ) is not True:
        yield "torch.load without weights_only"
    if getattr(keywords.get("allow_pickle"), "value", False) is not False:
        yield "allow_pickle"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_module_can_run_what_it_reads(path):
    assert list(findings(path)) == []


def test_the_findings_are_seen_at_all(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import marshal\nimport pickle\nimport numpy as np\nimport torch\n"
        "pickle.loads(b'')\neval('1')\ntorch.load('x')\ntorch.load('x', weights_only=False)\n"
        "np.load('x', allow_pickle=True)\nz.extractall('x')\n"
    )
    assert sorted(set(findings(bad))) == [
        "allow_pickle", "eval", "extractall", "marshal", "pickle.loads", "torch.load without weights_only",
    ]  # fmt: skip
