"""The built notebook: repeatable to the byte, every module in it, parameters in the one visible cell."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from sac_kernel import MODULES, inlined_files
from sac_kernel.cli.settings import parse_settings
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.core.packages import bundled, code_hash
from sac_kernel.experiment.run_config import RunConfig, from_parameters
from sac_kernel.kaggle.kernel_notebook import (
    MAX_TEXT_BYTES,
    MODULE_MARKER,
    build_notebook,
    client_text_bytes,
    module_source,
    parameters_cell,
)
from tests.support import says

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE, PACKAGE = ROOT / "notebooks" / "train.ipynb", ROOT / "sac_kernel"
FILES = inlined_files()


def build(settings=(), template=TEMPLATE, package=PACKAGE):
    return build_notebook(template, package, parse_settings(list(settings)), code_hash())


def read(text):
    return nbformat.reads(text, as_version=4)


def tagged(notebook, tag):
    (cell,) = [c for c in notebook.cells if tag in c.metadata.get("tags", [])]
    return cell


def writefile_cells(notebook):
    return [c.source for c in notebook.cells if c.source.startswith("%%writefile")]


@pytest.fixture(scope="module")
def text():
    return build()


# -- repeatable ----------------------------------------------------------------------------------

BUILD = """
import sys
from pathlib import Path
from sac_kernel.cli.settings import parse_settings
from sac_kernel.kaggle.kernel_notebook import build_notebook
from sac_kernel.cli.settings import parse_settings
from sac_kernel.core.packages import code_hash
root = Path.cwd()
values = parse_settings(["num_episodes=50", "agent_ids=[1, 3]"])
text = build_notebook(root / "notebooks" / "train.ipynb", root / "sac_kernel", values, code_hash())
(root / "built.ipynb").write_bytes(text.encode())
"""


def built_in_a_copy(folder):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "sac_kernel", ignore=ignored)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True)
    return (folder / "built.ipynb").read_bytes()


def test_two_builds_from_two_folders_are_byte_identical_and_hold_no_path(tmp_path):
    first = built_in_a_copy(tmp_path / "another clone, à côté")
    assert str(tmp_path).encode() not in first
    assert str(ROOT).encode() not in first
    assert str(Path.home()).encode() + b"/" not in first
    assert first == build(["num_episodes=50", "agent_ids=[1, 3]"]).encode()


def test_lines_end_in_lf_and_the_file_ends_in_one(text):
    assert "\r" not in text
    assert text.endswith("}\n")
    assert "\\r\\n" not in text


def test_a_checkout_with_windows_line_ends_builds_the_same(text, tmp_path):
    package = tmp_path / "sac_kernel"
    package.mkdir()
    for name in FILES:
        source = (PACKAGE / name).read_bytes().replace(b"\r\n", b"\n")
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(source.replace(b"\n", b"\r\n"))
    template = tmp_path / "train.ipynb"
    template.write_bytes(TEMPLATE.read_bytes().replace(b"\n", b"\r\n"))
    assert build(template=template, package=package) == text


# -- form ----------------------------------------------------------------------------------------


def test_the_notebook_is_valid_and_names_its_kernel(text):
    notebook = read(text)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_ids_are_unique_and_come_from_content(text):
    ids = [cell["id"] for cell in read(text).cells]
    assert len(set(ids)) == len(ids)
    assert ids == [cell["id"] for cell in read(build()).cells]
    assert all(re.fullmatch(r"[0-9a-f]{8}", i) for i in ids)


def test_outputs_are_empty_and_papermill_left_nothing():
    notebook = read(build(["num_episodes=7"]))
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.outputs == [] and c.execution_count is None for c in code)
    assert all("papermill" not in c.metadata for c in notebook.cells)
    assert not [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.name)
def test_tracked_notebooks_are_valid_and_have_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert code
    assert all(c.outputs == [] and c.execution_count is None for c in code)
    assert len({c["id"] for c in notebook.cells}) == len(notebook.cells)


def test_the_text_sent_is_under_900_kb_counted_as_the_client_sends_it(text):
    # The client empties outputs, joins sources and dumps with ASCII escapes.
    body = json.loads(text)
    for cell in body["cells"]:
        cell["source"] = "".join(cell["source"])
        cell.update({"outputs": []} if cell["cell_type"] == "code" else {})
    sent = len(json.dumps(body).encode())
    assert client_text_bytes(text) == sent
    assert sent < 900_000


def test_a_notebook_that_is_too_large_is_refused_with_its_size(tmp_path):
    package = tmp_path / "sac_kernel"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "core" / "errors.py").open("a", encoding="utf-8") as stream:
        stream.write("# é" * (MAX_TEXT_BYTES // 8) + "\n")  # six bytes each once escaped
    with pytest.raises(SacKernelError, match=says("900,000 bytes")):
        build(package=package)


# -- modules -------------------------------------------------------------------------------------


def test_every_module_is_one_cell_in_order_equal_to_its_file(text):
    cells = writefile_cells(read(text))
    expected = [
        f'%%writefile "{{PKG_DIR}}/{name}"\n' + bundled((PACKAGE / name).read_text("utf-8")) for name in FILES
    ]
    assert cells == expected


@pytest.fixture(scope="module")
def shell():
    return InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))


def test_executed_module_cells_write_the_very_files(text, tmp_path, shell, capsys):
    package = tmp_path / "a folder é" / "sac_kernel"
    shell.user_ns["PKG_DIR"] = package
    for name in FILES:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
    for source in writefile_cells(read(text)):
        shell.run_cell(source).raise_error()
    written = (p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())
    assert sorted(written) == sorted(FILES)
    for name in FILES:
        assert (package / name).read_text("utf-8") == module_source(PACKAGE, name)


def test_the_written_package_imports_alone_and_has_the_built_hash(text, tmp_path):
    package = tmp_path / "sac_kernel"
    package.mkdir()
    for name in FILES:
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(module_source(PACKAGE, name).encode())
    check = "; ".join(f"import sac_kernel.{name}" for name in MODULES)
    check += "; from sac_kernel.core.packages import code_hash; print(code_hash())"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = done.stdout.strip()
    assert f'BUILT_CODE_HASH = "{found}"' in tagged(read(text), "bootstrap").source


def test_the_network_is_blocked_before_anything_else_runs_in_a_rehearsal(text):
    sources = [c.source for c in read(text).cells if c.cell_type == "code"]
    (place,) = [i for i, s in enumerate(sources) if "network.block_network()" in s and "%%writefile" not in s]
    assert "if os.environ.get(paths.REHEARSAL_VARIABLE):\n    network.block_network()" in sources[place]
    # Before it: the parameters, the bootstrap and the module cells, and nothing else.
    assert place == 2 + len(FILES)


# -- parameters ----------------------------------------------------------------------------------


def baked(settings):
    namespace = {}
    exec(tagged(read(build(settings)), "parameters").source, namespace)
    return namespace


def test_without_settings_the_parameters_cell_is_the_generated_one(text):
    assert tagged(read(text), "parameters").source == parameters_cell()


def test_settings_change_their_own_lines_of_the_one_cell_and_keep_the_help():
    template = parameters_cell().split("\n")
    cell = tagged(read(build(["num_episodes=50", "agent_ids=[1, 2]"])), "parameters").source.split("\n")
    changed = [(a, b) for a, b in zip(template, cell, strict=True) if a != b]
    assert [b.split("  # ")[0] for _, b in changed] == [
        "agent_ids: list[int] = [1, 2]",
        "num_episodes: int = 50",
    ]
    assert [a.split("  # ")[1] for a, _ in changed] == [b.split("  # ")[1] for _, b in changed]


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("num_episodes=50", "num_episodes", 50),
        ("seeds=[3, 1, 2]", "seeds", [3, 1, 2]),
        ("sac_learning_rate=1e-05", "sac_learning_rate", 1e-5),
        ("exact_alpha=1", "exact_alpha", 1.0),
        ("env_decision_interval_min=-1", "env_decision_interval_min", -1),
        ("h5_path=/kaggle/input/été 'x'/\"y\".h5", "h5_path", "/kaggle/input/été 'x'/\"y\".h5"),
        ("h5_path=C:\\new\\table.h5", "h5_path", "C:\\new\\table.h5"),
        ("h5_path=a  # no comment", "h5_path", "a  # no comment"),
        ("output_dir={x} $y %z", "output_dir", "{x} $y %z"),
    ],
)
def test_a_baked_value_comes_back_from_the_cell_as_it_was_given(setting, name, value):
    namespace = baked([setting])
    assert namespace[name] == value
    assert type(namespace[name]) is type(value)
    fields = {name: tuple(value) if isinstance(value, list) else value}
    assert from_parameters(namespace) == RunConfig.from_flat(fields)


def test_a_parameter_that_no_line_of_the_cell_assigns_is_refused():
    with pytest.raises(ConfigError, match="episodes"):
        build_notebook(TEMPLATE, PACKAGE, {"episodes": 3}, "")


@pytest.mark.parametrize("tag", ["parameters", "bootstrap"])
def test_a_template_without_a_marked_cell_is_refused_naming_the_tag(tmp_path, tag):
    notebook = nbformat.read(TEMPLATE, as_version=4)
    tagged(notebook, tag).metadata.tags = []
    nbformat.write(notebook, tmp_path / "train.ipynb")
    with pytest.raises(SacKernelError, match=says(tag, "0")):
        build(["num_episodes=3"], template=tmp_path / "train.ipynb")


def test_a_template_without_the_module_marker_is_refused(tmp_path):
    notebook = nbformat.read(TEMPLATE, as_version=4)
    notebook.cells = [c for c in notebook.cells if c.source.strip() != MODULE_MARKER]
    nbformat.write(notebook, tmp_path / "train.ipynb")
    with pytest.raises(SacKernelError, match="modules"):
        build(template=tmp_path / "train.ipynb")


def test_every_code_cell_of_the_template_compiles():
    notebook = nbformat.read(TEMPLATE, as_version=4)
    for cell in notebook.cells:
        code = "\n".join(x for x in cell.source.split("\n") if not x.startswith("%"))
        assert cell.cell_type != "code" or ast.parse(code)
