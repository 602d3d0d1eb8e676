"""The rehearsal: the notebook that Kaggle would run, executed here in a folder laid out as on Kaggle.

Inputs are mounted under both schemes, and hashes before and after show that they stay unchanged. The kernel refuses
all connections but loopback, has no credentials in its environment, and keeps its time budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from html import escape as html_escape
from typing import TYPE_CHECKING, Any

import nbformat
import papermill
import psutil  # type: ignore[import-untyped]
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from sac_kernel.core import files, interrupts, paths
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.kaggle.kernel_notebook import MODULE_ANCHOR, MODULE_TABLE, WRITES_A_MODULE, first_sentence
from sac_kernel.kaggle.redaction import without_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

REHEARSAL_OWNER = "you"
T4_UPDATES_PER_S = 400.0
"""Assumed, not measured: about 250 launched operations an update, up to 10 us each."""
_CORES = 4  # of a session on Kaggle
_SAVING_S = 7.0
"""Given to the kernel to save its state after an interrupt, of the ten that a command may take."""
_AGAIN_S = 2.0
_STYLE = "<style>.highlight pre{white-space:pre-wrap;overflow-wrap:anywhere}</style>"
"""Long lines of code wrap instead of running out of their cell."""
_SECRET_NAMES = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN")


@dataclass(frozen=True)
class Rehearsal:
    """Files of a finished rehearsal."""

    notebook: Path
    html: Path
    working: Path

    @property
    def summary(self) -> dict[str, Any]:
        """Return summary.json of the run."""
        summary: dict[str, Any] = files.read_json(self.working / "summary.json")
        return summary


def rehearse(notebook: Path, folder: Path, datasets: Mapping[str, Path]) -> Rehearsal:
    """Execute `notebook` as Kaggle would and render it; return its files.

    Parameters
    ----------
    notebook : the built kernel notebook
    folder : build/rehearsal; its `working` is kept, so that an interrupted run continues
    datasets : slug -> staged folder, to be mounted; changing an input is an error

    Raises
    ------
    SacKernelError
        If a cell fails (the message names the executed notebook and its HTML) or an input was changed.
    """
    interrupts.advise("The state of the last episode is saved. The same command goes on from there.")
    mount, working = folder / "input", folder / "working"
    _mount(mount, datasets)
    working.mkdir(parents=True, exist_ok=True)
    executed, html = folder / notebook.name, folder / f"{notebook.stem}.html"
    before = _hashes(mount)
    with _kaggle_environment(mount.resolve(), working.resolve()):
        failure = _execute(notebook, executed, working)
    render_html(executed, html)
    if failure is not None:
        msg = (
            f"Cell {failure.exec_count} of {executed} failed with {failure.ename}: {failure.evalue}. The executed "
            f"notebook is at {html}."
        )
        raise SacKernelError(msg) from failure
    changed = sorted(set(before.items()) ^ set(_hashes(mount).items()))
    if changed:
        msg = f"The notebook changed its input {changed[0][0]}, which Kaggle mounts read-only."
        raise SacKernelError(msg)
    return Rehearsal(executed, html, working)


def _execute(notebook: Path, executed: Path, working: Path) -> PapermillExecutionError | None:
    """Run the notebook in a thread, so that a signal reaches this process alone; return how a cell failed."""
    errors: list[BaseException] = []
    done = threading.Event()  # a join that a signal cuts takes the thread for ended (Python 3.11, 3.12)

    def work() -> None:
        try:
            papermill.execute_notebook(
                _literal(notebook),
                _literal(executed),
                cwd=str(working),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=_CellOutput(),
                stderr_file=sys.stderr,
            )
        except BaseException as err:  # noqa: BLE001  # raised again in the main thread
            errors.append(err)
        finally:
            with contextlib.suppress(RuntimeError):  # none was made
                asyncio.get_event_loop().close()
            done.set()

    threading.Thread(target=work, daemon=True).start()
    try:
        while not done.wait(0.2):
            pass
    except KeyboardInterrupt:
        _end_kernels(done)
        raise
    if errors and not isinstance(errors[0], PapermillExecutionError):
        raise errors[0]
    return errors[0] if errors else None


def _end_kernels(done: threading.Event) -> None:
    """Have the kernel end: a training saves its state first, other cells have none; end what is left in time.

    Not by SIGINT: compilers and destructors write its traceback to the terminal, and between two cells it is lost.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # that the kernel died is no news
    limit_s = time.monotonic() + _SAVING_S
    while not done.is_set() and time.monotonic() < limit_s:
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                kernel.terminate()
        done.wait(_AGAIN_S)
    for kernel in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            kernel.kill()


def _literal(path: Path) -> str:
    """Return a path in which papermill sees no fields to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def full_run(parameters: Mapping[str, Any]) -> RunConfig:
    """Return the run of these parameters at its full length; how often it saves files is no matter here."""
    length = ("num_episodes", "eval_frequency", "checkpoint_frequency", "expect_data_hash")
    kept = {name: value for name, value in parameters.items() if name not in length}
    return RunConfig.from_flat({**kept, "checkpoint_frequency": RunConfig.num_episodes})


def forecast(config: RunConfig, summary: Mapping[str, Any], last_run: Mapping[str, Any] | None = None) -> str:
    """Return how long `config` takes on either accelerator, with the source of each rate.

    Parameters
    ----------
    summary : summary.json of a run on this machine
    last_run : that of a run fetched from Kaggle, whose GPU rate replaces the assumed one
    """
    here = summary["run"]
    updates = sum(map(config.updates_of, config.jobs)) * len(config.runs)
    measured = last_run["run"] if last_run and str(last_run["run"]["device"]).startswith("cuda") else None
    gpu_rate = measured["updates_per_s"] if measured else T4_UPDATES_PER_S
    source = "measured in the last fetched run" if measured else "assumed, not measured"
    used = min(2, len(config.jobs))
    lines = [f"speed     {here['updates_per_s']:.0f} updates/s here ({here['device']}), measured"]
    rates = (
        ("none", here["updates_per_s"], min(_CORES, len(config.jobs)), "this machine's rate"),
        ("NvidiaTeslaT4", gpu_rate, used, source),
    )
    for name, rate, devices, why in rates:
        hours = updates / max(rate, 1e-9) / devices / 3600.0
        lines.append(
            f"estimate  {config.num_episodes} episodes, {updates:,.0f} updates, --accelerator {name}: "
            f"{hours:.2f} h at {rate:.0f} updates/s{f' on each of {devices}' if devices > 1 else ''} ({why})"
        )
    if walk := summary.get("walk_forward"):
        count, minutes = walk["trainings"] * len(config.runs), walk["cpu_s_in_all"] * len(config.runs) / 60.0
        lines.append(
            f"folds     {count} trainings of {walk['updates']:,} updates and their baselines: "
            f"{minutes:.1f} CPU minutes here; a Kaggle session has {_CORES} processes"
        )
    return "\n".join(lines)


def render_html(notebook: Path, html: Path) -> None:
    """Render an executed notebook to one HTML page with the module cells folded, as on Kaggle."""
    page = nbformat.read(str(notebook), as_version=4)
    page.cells = _with_modules_folded(page.cells)
    title = page.cells[0].source.partition("\n")[0].lstrip("# ") if page.cells else notebook.stem
    body, _ = HTMLExporter().from_notebook_node(page, resources={"metadata": {"name": title}})
    files.write_text(html, without_places(body.replace("</head>", _STYLE + "</head>", 1)))
    files.write_text(notebook, without_places(notebook.read_text(encoding="utf-8")))


def _with_modules_folded(cells: list[Any]) -> list[Any]:
    """Return the cells with the modules, their table and anchors folded into one closed <details>."""
    about = (MODULE_ANCHOR, MODULE_TABLE, WRITES_A_MODULE)
    modules = [cell.source for cell in cells if cell.source.startswith(WRITES_A_MODULE)]
    kept = [cell for cell in cells if not cell.source.startswith(about)]
    if modules:
        place = next(i for i, cell in enumerate(cells) if cell.source.startswith(about))
        text = f"<details><summary><b>{len(modules)} modules in reading order</b></summary>"
        text += "".join(map(_folded, modules)) + "</details>"
        kept.insert(place, nbformat.v4.new_markdown_cell(text))
    return kept


def _folded(source: str) -> str:
    """Return a module as HTML without line breaks, at which Markdown could end the block."""
    first, _, module = source.partition("\n")
    name = first.rpartition("/")[2].removesuffix('.py"')
    about, lines = html_escape(first_sentence(module)), html_escape(module, quote=False).split("\n")
    return (
        f'<details id="{name}" style="margin-left: 1.5em"><summary><code>{name}.py</code> '
        f"{about} <small>{len(lines)} lines</small></summary><pre>{'&#10;'.join(lines)}</pre></details>"
    )


class _CellOutput:
    """The terminal, without the notices of the module cells."""

    def write(self, text: str) -> int:
        """Write text to the terminal."""
        lines = text.splitlines(keepends=True)
        kept = "".join(line for line in lines if not line.startswith(("Writing ", "Overwriting ")))
        sys.stdout.write(kept)
        sys.stdout.flush()
        return len(text)

    def flush(self) -> None:
        """Flush the terminal."""
        sys.stdout.flush()


def _mount(mount: Path, datasets: Mapping[str, Path]) -> None:
    """Copy the datasets to the paths of both mount schemes of Kaggle."""
    if mount.exists():
        shutil.rmtree(mount)
    for slug, source in datasets.items():
        for target in (mount / "datasets" / REHEARSAL_OWNER / slug, mount / slug):
            target.mkdir(parents=True)
            for path in sorted(source.iterdir()):
                if path.name != "dataset-metadata.json":  # the client never sends it
                    shutil.copy2(path, target / path.name)


def _hashes(mount: Path) -> dict[str, str]:
    return {
        path.relative_to(mount).as_posix(): files.file_sha256(path)
        for path in sorted(mount.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def _kaggle_environment(mount: Path, working: Path) -> Iterator[None]:
    """Set the environment as on Kaggle, without credentials or this checkout on the path."""
    changed = {
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        paths.INPUT_ROOT_VARIABLE: str(mount),
        paths.WORKING_DIR_VARIABLE: str(working),
        paths.REHEARSAL_VARIABLE: "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    dropped = (*_SECRET_NAMES, "PYTHONPATH", "MPLBACKEND")
    saved = {name: os.environ.get(name) for name in (*changed, *dropped)}
    level = logging.getLogger("papermill").level
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        os.environ.update(changed)
        for name in dropped:
            os.environ.pop(name, None)
        yield
    finally:
        logging.getLogger("papermill").setLevel(level)
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
