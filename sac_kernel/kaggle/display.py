"""Output of the notebook beside training: run header, tables, five trades by hand."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

import sac_kernel
from sac_kernel.backtest import runner
from sac_kernel.core import clock, packages, paths, strings
from sac_kernel.core.device import describe_device, device_names, resolve_device, set_threads
from sac_kernel.core.errors import DataError, DeviceError, InputNotFoundError, SacKernelError
from sac_kernel.core.printable import markdown, printable
from sac_kernel.experiment import checkpoint, output_layout
from sac_kernel.experiment.run_config import preset_of
from sac_kernel.market import engine
from sac_kernel.market.records import Account, Trace, blank
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.processed_file import read_traded
from sac_kernel.report import plots
from sac_kernel.report.tables import results_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pandas.io.formats.style import Styler

    from sac_kernel.experiment.run_config import RunConfig
    from sac_kernel.experiment.trainer import KaggleTrainer

TARGETS = (1.0, 1.0, -1.0, -1.0, 0.0)
"""Long, hold, reverse, hold, flat."""

JOB_COLUMNS = [
    "agent_id",
    "seed",
    "learner",
    "status",
    "device",
    "episodes",
    "env_steps",
    "updates",
    "updates_per_s",
    "env_steps_per_s",
    "train_s",
]
"""Facts of a job that the notebook shows."""

FIGURE_PX = 900
"""Width of figures in the notebook, so that their text is as large as its own."""

_MIN_FREE_GB = 0.5


def run_header(config: RunConfig, built_code_hash: str, package_dir: Path) -> dict[str, Any]:
    """Return the facts shown above a run; check that the code is the notebook's.

    Raises
    ------
    SacKernelError
        If `sac_kernel` was imported from anywhere but `package_dir`.
    """
    folder = Path(str(sac_kernel.__file__)).resolve().parent
    if folder != package_dir.resolve():
        msg = f"sac_kernel was imported from {folder}, but this notebook wrote it to {package_dir}."
        raise SacKernelError(msg)
    digest = packages.code_hash()
    where = paths.paths()
    data = _data_file(config, where)
    return {
        strings.UTC: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        strings.DEVICES: "; ".join(map(_described, device_names(config.device))),
        strings.THREADS: set_threads(),
        **{strings.VERSION.format(name=name): value for name, value in packages.versions().items()},
        strings.SOURCE: f"{digest[:12]} ({strings.CODE[digest == built_code_hash]})",
        **{
            strings.EXTRA.format(name=name): note
            for name, note in packages.add_wheels(config.expect_files).items()
        },
        strings.INSTRUMENT: (read_traded(data) if data else "") or "not named",
        strings.DATA_HASH: config.expect_data_hash[:12] or strings.NO_HASH,
        strings.INPUTS: "/".join(data.parts[-2:]) if data and where.mounted else strings.NO_INPUTS,
        strings.OUTPUT: config.top_folder.name or ".",
        strings.BUDGET_H: clock.duration(config.time_budget_h * 3600.0),
        strings.JOB_NAMES: ", ".join(output_layout.job_name(*job) for job in config.jobs),
    }


def _data_file(config: RunConfig, where: paths.Paths) -> Path | None:
    """Return the run's bars; None if they are not there, or what is mounted is not this build's."""
    if config.h5_path or not where.mounted:
        return Path(config.h5_path or paths.LOCAL_DATA)
    try:
        return config.find_input(paths.DATA_FILE)
    except InputNotFoundError:
        return None


def show_figures() -> None:
    """Make the notebook show figures as `plots.to_png` draws them."""
    from IPython import get_ipython  # missing outside notebooks

    shell = get_ipython()
    formatter = shell.display_formatter.formatters["image/png"]
    formatter.for_type(Figure, lambda figure: (plots.to_png(figure), {"width": FIGURE_PX}))


def log_once() -> None:
    """Make the notebook's log leave out lines that it has shown already, such as those on the data for each job."""
    seen: set[str] = set()

    def new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        known = text in seen
        seen.add(text)
        return record.levelno > logging.INFO or not known

    for handler in logging.getLogger().handlers:
        handler.addFilter(new)


def table(frame: pd.DataFrame, precision: int = 2) -> Styler:
    """Return a styled frame: no index, text left, numbers right."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    left: Any = [
        {"selector": f"th.col{frame.columns.get_loc(name)}", "props": [("text-align", "left")]}
        for name in texts
    ]
    style = frame.style.hide(axis="index").format(
        precision=precision, thousands=",", escape="html", na_rep="\u2013"
    )
    style = style.format_index(escape="html", axis=1)
    return style.set_properties(subset=texts, **{"text-align": "left"}).set_table_styles(left)


def facts(values: Mapping[str, Any]) -> Styler:
    """Return a table of names and values."""
    return table(pd.DataFrame({"": list(values), "value": [printable(value) for value in values.values()]}))


def results(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Styler]]:
    """Yield heading and table of each cost tier, base first."""
    whole = results_table(rows)
    for tier in sorted(COST_TIERS, key=lambda name: name != "base"):
        yield strings.TIERS[tier], table(whole[whole[strings.TIER] == tier].drop(columns=strings.TIER))


def section_tables(tables: list[dict[str, Any]]) -> Iterator[tuple[str, Styler]]:
    """Yield heading with note, and table, of each table of `report.sections`."""
    for t in tables:
        yield (
            f"#### {markdown(t['title'])}\n\n{markdown(t['note'])}",
            table(pd.DataFrame(t["rows"], columns=t["columns"])),
        )


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """Return the verdict as Markdown: finding, marks, notes."""
    words = {**strings.MARK_WORDS, False: f"**{strings.MARK_WORDS[False]}**"}
    marks = [
        f"- {words[mark['passed']]}: {markdown(mark['name'])} ({markdown(mark['found'])})"
        for mark in verdict["marks"]
    ]
    return "\n".join(
        [
            f"### {strings.ON_YOUR_BARS}: {markdown(verdict['finding'])}",
            "",
            *marks,
            "",
            *(f"* {markdown(note)}" for note in verdict["notes"]),
        ]
    )


def preflight(config: RunConfig) -> str:
    """Return why this run must not start, for its user; '' if it may.

    Such a run ends within a minute, as COMPLETE, and costs almost nothing.
    """
    where = paths.paths()
    on_kaggle = bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))
    gpu_expected = on_kaggle and not os.environ.get(paths.REHEARSAL_VARIABLE) and not config.allow_cpu
    try:
        kinds = {resolve_device(name).type for name in device_names(config.device)}
    except DeviceError as err:
        return strings.NO_DEVICE.format(err=err)
    if gpu_expected and kinds == {"cpu"}:
        return strings.NO_GPU
    if any(preset_of(agent_id).regimes for agent_id in config.agent_ids) and not _importable("hmmlearn"):
        return strings.NO_HMMLEARN.format(python=platform.python_version())
    if where.mounted:
        needed = [] if config.h5_path else [paths.DATA_FILE]
        needed += [checkpoint.EXPORT_INDEX] if config.expected(checkpoint.EXPORT_INDEX) else []
        try:
            for name in needed:
                config.find_input(name)
        except InputNotFoundError as err:
            return strings.NO_DATA.format(err=err)
    free_gb = shutil.disk_usage(where.working_dir if where.working_dir.is_dir() else Path.cwd()).free / 1e9
    if free_gb < _MIN_FREE_GB:
        return strings.NO_DISK.format(required=_MIN_FREE_GB, free=free_gb)
    return ""


def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _described(device: str) -> str:
    try:
        return describe_device(resolve_device(device))
    except DeviceError as err:
        return f"{device}: {err}"


def five_bar_trade(trainer: KaggleTrainer) -> pd.DataFrame:
    """Return five decisions by hand on the train bars: prices, exposure, equity, costs, reward."""
    market = runner.market_of(
        trainer.data.train[trainer.instrument], trainer.features["train"], trainer.env_config, "base"
    )
    account, now = blank(Account), blank(Trace)
    start = _first_tradable_window(market)
    engine.reset(account, market.bars, market.terms, start, len(market.bars), 100_000.0, 0.0)
    rows, paid = [], 0.0
    for target in TARGETS:
        reward = engine.step(account, market.bars, market.minutes, market.terms, target)
        engine.record(account, market.bars, market.terms, target, now)
        t = int(now.t)
        rows.append(
            (
                market.open_time[t],
                market.bars["open"][t],
                market.bars["close"][t],
                market.bars["spread_open"][t] * 1e4,
                target,
                now.exposure,
                now.equity,
                now.costs - paid,
                reward * 1e4,
            )
        )
        paid = now.costs
    return pd.DataFrame(rows, columns=strings.TRADE_COLUMNS)


def _first_tradable_window(market: Any) -> int:  # noqa: ANN401
    need = len(TARGETS) * market.interval_bars
    tradable = market.bars["tradable"] > 0
    for t in range(market.first_bar, len(tradable) - need - 1):
        if tradable[t + 1 : t + 1 + need].all():
            return int(t)
    msg = f"The train split has no {need} tradable bars in a row."
    raise DataError(msg)
