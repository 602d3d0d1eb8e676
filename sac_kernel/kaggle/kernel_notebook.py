"""The bundler: template, module files and parameters make one self-contained notebook, reproducible byte for byte.

Parameters are checked, written by papermill and merged into the one visible `parameters` cell, so that editing this
cell on Kaggle changes the run.
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
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.core.packages import bundled
from sac_kernel.experiment.run_config import PARAMETERS
from sac_kernel.features.own import OWN_FILE

if typing.TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_TEXT_BYTES = 900_000
"""Kaggle refuses a source of 1 MB; counted as the client sends it, non-ASCII characters escaped."""

MODULE_MARKER = "<!-- modules -->"
MODULE_ANCHOR = '<a id="'
MODULE_TABLE = "| module | what it does |"
WRITES_A_MODULE = "%%writefile"
"""First word of each module cell."""

_HASH_LINE = 'BUILT_CODE_HASH = ""'
_FOLDERS_LINE = "FOLDERS = []"
_ASSIGNMENT = re.compile(r"^(?P<head>(?P<name>\w+): [\w\[\], .]+ = )(?P<value>.*?)(?P<help>  # .*)?$")
_HIDDEN = {
    "_kg_hide-input": True,
    "_kg_hide-output": True,
    "jupyter": {"source_hidden": True},
}


def parameters_cell() -> str:
    """Return the source of the parameters cell: every parameter with type, default and a line of help."""
    return "\n".join(
        f"{name}: {_written(parameter.type)} = {_literal(parameter.default)}  # {parameter.help}"
        for name, parameter in PARAMETERS.items()
    )


def build_notebook(
    template: Path, package: Path, parameters: Mapping[str, Any], code_hash: str, own: Path | None = None
) -> str:
    """Return the kernel notebook's JSON text.

    Parameters
    ----------
    template : notebook with cells tagged `parameters` (filled in here) and `bootstrap`, and the module marker
    package : folder of the modules
    parameters : checked overrides, scalars or flat lists
    code_hash : hash of the modules, which the run header shows
    own : the user's feature file, which becomes a cell

    Raises
    ------
    SacKernelError
        If the template lacks a marked cell, or the text exceeds MAX_TEXT_BYTES.
    """
    notebook = nbformat.read(str(template), as_version=4)
    _tagged(notebook, "parameters").source = parameters_cell()
    _bake_parameters(notebook, template, parameters)
    bootstrap = _tagged(notebook, "bootstrap")
    bootstrap.source = bootstrap.source.replace(_HASH_LINE, f'BUILT_CODE_HASH = "{code_hash}"')
    bootstrap.source = bootstrap.source.replace(_FOLDERS_LINE, f"FOLDERS = {_folders()!r}".replace("'", '"'))
    cells: list[Any] = []
    for cell in notebook.cells:
        cells += _module_cells(package) + _own_cell(own) if cell.source.strip() == MODULE_MARKER else [cell]
    if len(cells) == len(notebook.cells):
        msg = f"{template} has no markdown cell {MODULE_MARKER}."
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
            f"{template}: the built notebook must be at most {MAX_TEXT_BYTES:,} bytes as sent, got {size:,}."
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
    """Return the text of one of `inlined_files` as the notebook carries it (`packages.bundled`)."""
    return bundled((package / file).read_bytes().decode("utf-8"))


def first_sentence(source: str) -> str:
    """Return the first sentence of a module's docstring, fit for a table cell."""
    docstring = source.split('"""', 2)[1]  # every module has one
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
    rows = [f"| [`{name}`](#{name.partition('.')[0]}) | {about[name]} |" for name in MODULES]
    table = "\n".join([MODULE_TABLE, "|---|---|", *rows])
    cells = [nbformat.v4.new_markdown_cell(table)]
    for file, source in sources.items():
        code = nbformat.v4.new_code_cell(
            f'{WRITES_A_MODULE} "{{PKG_DIR}}/{file}"\n{source}', metadata=_HIDDEN
        )
        if "/" not in file or file.endswith("/__init__.py"):
            name = module_name(file)
            heading = f'{MODULE_ANCHOR}{name}"></a>**{name}**: {about[name]}'
            cells.append(nbformat.v4.new_markdown_cell(heading))
        cells.append(code)
    return cells


def _own_cell(path: Path | None) -> list[Any]:
    """Return the cell that writes the user's feature file beside the package."""
    if path is None:
        return []
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    return [
        nbformat.v4.new_markdown_cell(
            f"Your own features, `{path.name}`: replace them here or at the build."
        ),
        nbformat.v4.new_code_cell(f'{WRITES_A_MODULE} "{{PKG_DIR}}/../{OWN_FILE}"\n{text}'),
    ]


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
                msg = f"papermill changed the parameter {name} = {parameters[name]!r} to {literal}."
                raise ConfigError(msg)
            line = f"{match['head']}{literal}{match['help'] or ''}"  # noqa: PLW2901
        lines.append(line)
    if literals:
        msg = f"Unknown parameters: {', '.join(literals)}. Known: {', '.join(PARAMETERS)}."
        raise ConfigError(msg)
    cell.source = "\n".join(lines)


def _tagged(notebook: Any, tag: str) -> Any:  # noqa: ANN401
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        msg = f"The notebook template must have one cell tagged {tag!r}, got {len(cells)}."
        raise SacKernelError(msg)
    return cells[0]


def _written(annotation: Any) -> str:  # noqa: ANN401
    """Return a type as the parameters cell writes it: a tuple of ints becomes a list."""
    items = typing.get_args(annotation)
    return f"list[{items[0].__name__}]" if items else str(annotation.__name__)


def _literal(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return json.dumps(value)
    if type(value) is int:
        return f"{value:_}"
    return repr(list(value) if isinstance(value, tuple) else value)
