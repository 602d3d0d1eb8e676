"""The bundler: template + module files + parameters -> one self-contained notebook, byte for byte repeatable.

Parameters are baked in with papermill's parametrisation, strictly checked, and its result is merged into the
one visible `parameters` cell, so that whoever edits that cell on Kaggle changes the run.
"""

from __future__ import annotations

import ast
import json
import re
import typing
from typing import Any

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sac_kernel import MODULES, inlined_files
from sac_kernel.core import files
from sac_kernel.core.config import check_names, from_flat, typed
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.core.renamed import current, renamed_names
from sac_kernel.experiment.run_config import RunConfig

if typing.TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_TEXT_BYTES = 900_000
"""Kaggle refuses a source of 1 MB; counted as the client sends it, non-ASCII characters escaped."""

MODULE_MARKER = "<!-- modules -->"
MODULE_ANCHOR = '<a id="'
MODULE_TABLE = "| module | what it does |"
WRITES_A_MODULE = "%%writefile"
"""How the small heading above each module cell starts."""

_HASH_LINE = 'BUILT_CODE_HASH = ""'
_FOLDERS_LINE = "FOLDERS = []"
_ASSIGNMENT = re.compile(r"^(?P<head>(?P<name>\w+): [\w\[\], .]+ = )(?P<value>.*?)(?P<help>  # .*)?$")
_HIDDEN = {
    "_kg_hide-input": True,
    "_kg_hide-output": True,
    "jupyter": {"source_hidden": True, "outputs_hidden": True},
}


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Return checked parameters from `--set name=value` texts.

    Raises
    ------
    ConfigError
        For a missing `=`, an unknown name (with the nearest), a wrong type or a value out of range.
    """
    hints = typing.get_type_hints(RunConfig)
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip()
        (name,) = current("--set", {name: None}, renamed_names(RunConfig))
        if not equals:
            msg = f"--set: name=value is required, got {text!r}"
            raise ConfigError(msg)
        check_names("--set", [name], hints)
        values[name] = typed("--set", name, _literal(value.strip(), hints[name]), hints[name])
    from_flat(RunConfig, values, "--set")
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def build_notebook(template: Path, package: Path, parameters: Mapping[str, Any], code_hash: str) -> str:
    """Return the kernel notebook's JSON text.

    Parameters
    ----------
    template : notebook with a `parameters` cell, a `bootstrap` cell and the module marker
    package : folder of the modules
    parameters : checked overrides, scalars or flat lists
    code_hash : hash of the modules, shown by the run header

    Raises
    ------
    SacKernelError
        If the template lacks a marked cell, or the text exceeds MAX_TEXT_BYTES.
    """
    notebook = nbformat.read(str(template), as_version=4)
    _bake_parameters(notebook, template, parameters)
    bootstrap = _tagged(notebook, "bootstrap")
    bootstrap.source = bootstrap.source.replace(_HASH_LINE, f'BUILT_CODE_HASH = "{code_hash}"')
    bootstrap.source = bootstrap.source.replace(_FOLDERS_LINE, f"FOLDERS = {_folders()!r}".replace("'", '"'))
    cells: list[Any] = []
    for cell in notebook.cells:
        cells += _module_cells(package) if cell.source.strip() == MODULE_MARKER else [cell]
    if len(cells) == len(notebook.cells):
        msg = f"{template}: a markdown cell {MODULE_MARKER} is required, found none"
        raise SacKernelError(msg)
    for index, cell in enumerate(cells):
        cell["id"] = files.sha256(f"{index}{cell.source}".encode())[:8]
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    size = client_text_bytes(text)
    if size > MAX_TEXT_BYTES:
        msg = (
            f"{template}: a notebook of at most {MAX_TEXT_BYTES:,} bytes as sent is required, found {size:,}"
        )
        raise SacKernelError(msg)
    return text


def client_text_bytes(notebook_text: str) -> int:
    """Return the size of the text that the Kaggle client sends: outputs emptied, sources joined, ASCII."""
    body = json.loads(notebook_text)
    for cell in body["cells"]:
        cell["source"] = "".join(cell["source"])
    return len(json.dumps(body).encode())


def module_source(package: Path, file: str) -> str:
    """Return the text of one of `inlined_files` with LF line ends, whatever the checkout made of them."""
    return (package / file).read_text(encoding="utf-8").replace("\r\n", "\n")


def first_sentence(source: str) -> str:
    """Return the first sentence of a module's docstring, fit for a table cell."""
    docstring = source.split('"""', 2)[1]  # every module begins with one
    return docstring.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def module_name(file: str) -> str:
    """Return the dotted name of an inlined file: 'prices.bars', or 'prices' for its package."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _folders() -> list[str]:
    """Return the sub-folders that the module cells write into."""
    return [file.removesuffix("/__init__.py") for file in inlined_files() if file.endswith("/__init__.py")]


def _module_cells(package: Path) -> list[Any]:
    sources = {file: module_source(package, file) for file in inlined_files()}
    about = {module_name(file): first_sentence(source) for file, source in sources.items()}
    rows = [f"| [`{name}`](#{name}) | {about[name]} |" for name in MODULES]
    table = "\n".join([MODULE_TABLE, "|---|---|", *rows])
    cells = [nbformat.v4.new_markdown_cell(table)]
    for file, source in sources.items():
        code = nbformat.v4.new_code_cell(
            f'{WRITES_A_MODULE} "{{PKG_DIR}}/{file}"\n{source}', metadata=_HIDDEN
        )
        anchor = f'{MODULE_ANCHOR}{module_name(file)}"></a>`sac_kernel/{file}`'
        cells += [nbformat.v4.new_markdown_cell(anchor), code]
    return cells


def _bake_parameters(notebook: Any, template: Path, parameters: Mapping[str, Any]) -> None:  # noqa: ANN401
    if not parameters:
        return
    papermills = parameterize_notebook(load_notebook_node(str(template)), dict(parameters))
    injected = _tagged(papermills, "injected-parameters")
    literals = {
        target.id: ast.get_source_segment(injected.source, node.value)
        for node in ast.parse(injected.source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    cell = _tagged(notebook, "parameters")
    lines = []
    for line in cell.source.split("\n"):
        match = _ASSIGNMENT.match(line)
        if match and match["name"] in parameters:
            name = match["name"]
            literal = literals.pop(name) or ""
            if ast.literal_eval(literal) != parameters[name]:
                msg = f"kernel_notebook: {name} = {parameters[name]!r} came back from papermill as {literal}"
                raise ConfigError(msg)
            line = f"{match['head']}{literal}{match['help'] or ''}"  # noqa: PLW2901
        lines.append(line)
    if literals:
        msg = f"kernel_notebook: the parameters cell must assign {', '.join(literals)}; it does not"
        raise ConfigError(msg)
    cell.source = "\n".join(lines)


def _tagged(notebook: Any, tag: str) -> Any:  # noqa: ANN401
    found = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    if len(found) != 1:
        msg = f"kernel_notebook: one cell tagged {tag!r} is required, found {len(found)}"
        raise SacKernelError(msg)
    return found[0]


def _literal(text: str, annotation: Any) -> Any:  # noqa: ANN401
    if annotation is str:
        return text.strip("\"'")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the type check names it
