"""Judge what was not trained here: somebody's targets in the same engine, with the same costs, baselines and verdict.

Nothing is fitted, so all rows are judged and the baselines that need train rows are left out. Each version of a file is
a trial: its hash is its configuration in the ledger.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.backtest import runner, trades
from sac_kernel.backtest.judgement import Judgement, judge
from sac_kernel.backtest.policies import Kind, PolicyId
from sac_kernel.core import files, home_strings, strings
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment import output_layout
from sac_kernel.experiment.job_outputs import report_figures
from sac_kernel.report import interactive, page, plots, sections, trade_files
from sac_kernel.stats import trials
from sac_kernel.stats.verdict import PIPELINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.market import Market
    from sac_kernel.prices.bars import Bars
    from sac_kernel.prices.ingest.whole import WholeBars

    FloatArray = NDArray[np.float64]

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Judged:
    """What is judged, as targets for the engine.

    Attributes
    ----------
    name, sha256 : of the file
    what : 'policy' or 'fills'
    targets : one per decision, shape (n_bars - 1,), in [-1, 1], of the exposure cap
    config : the account
    how : in words, how the targets came about
    facts : for the report, plain values
    tables : of the report (`report.write_report`)
    also : passes of the same trades beside the engine's, at base cost
    notes : for the reader
    """

    name: str
    sha256: str
    what: str
    targets: FloatArray
    config: TradingEnvConfig
    how: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Mapping[str, Any], ...] = ()
    also: tuple[EpisodeResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def policy(self) -> PolicyId:
        """Return its identity in results."""
        return PolicyId(Kind.AGENT, self.name)


def rows_between(bars: Bars, start: pd.Timestamp | None, end: pd.Timestamp | None) -> Bars:
    """Return the bars that open from `start` on and before `end`; None is no bound.

    Raises
    ------
    DataError
        If there are fewer than three.
    """
    kept = bars
    if start is not None:
        kept = kept[kept.index >= start]
    if end is not None:
        kept = kept[kept.index < end]
    if len(kept) < 3:
        msg = (
            f"Only {len(kept)} bars open between {start or 'the first'} and {end or 'the last'}; the bars run from "
            f"{bars.index[0]} to {bars.index[-1]}. Change --from or --until."
        )
        raise DataError(msg)
    return kept


def no_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Return a column of zeros in the place of features: no policy of the engine observes anything here."""
    return pd.DataFrame({"none": np.zeros(len(bars), np.float32)}, index=bars.index)


def market_of(bars: Bars, config: TradingEnvConfig, tier: str = "base") -> Market:
    """Return the market that bars are judged on; every bar is traded, from the first on."""
    return runner.market_of(bars, no_features(bars), config, tier)


def check_not_overwritten(source: Path, folder: Path) -> None:
    """Raise ConfigError if an output would replace the file that is judged."""
    names = (*output_layout.REPORT_FILES, trials.NAME)
    if source.resolve().parent == folder.resolve() and source.name in names:
        msg = f"The results in {folder} would replace {source}. Pass another --output."
        raise ConfigError(msg)


def run(judged: Judged, whole: WholeBars, bars: Bars, folder: Path, command: str) -> dict[str, Any]:
    """Judge on bars, add the trial to the folder's ledger, write the report; return the summary.

    Parameters
    ----------
    judged : targets for the decisions on `bars`
    whole : the source of the bars
    bars : of the traded instrument, those judged
    folder : of the results; its trials.csv counts the versions
    command : to run it again
    """
    base = runner.run_targets(
        market_of(bars, judged.config), judged.targets, judged.config.initial_equity, judged.policy, "base"
    )
    span = f"{bars.index[0]:%Y-%m-%dT%H:%M} {bars.index[-1]:%Y-%m-%dT%H:%M}"
    trial = runner.trial_of(
        base,
        agent_id=0,
        seed=0,
        split=span,
        checkpoint=0,
        config_hash=judged.sha256,
        data_hash=whole.content_hash,
    )
    trials.append(folder / trials.NAME, [trial])
    counted = trials.count(trials.read(folder / trials.NAME, whole.content_hash), own={judged.sha256})
    judgement = judge(
        {judged.policy: judged.targets}, bars, no_features(bars), judged.config, counted=counted
    )
    first, *rest = judgement.results["base"]
    results = {**judgement.results, "base": [first, *judged.also, *rest]}
    return _write(judged, dataclasses.replace(judgement, results=results), whole, bars, folder, command)


def _write(
    judged: Judged, judgement: Judgement, whole: WholeBars, bars: Bars, folder: Path, command: str
) -> dict[str, Any]:
    base, market = judgement.results["base"][0], judgement.market
    fills = trades.fills_table(market, trades.fills_of(market, base))
    trade_files.write_tables(folder, market, base, fills)
    shown = sections.sections(judgement)
    # Tests of a search compare trained agents; here the ledger's count of versions does that.
    own = [table for table in shown["tables"] if table["title"] != strings.SEARCH_TITLE]
    summary: dict[str, Any] = {
        "title": home_strings.JUDGED_TITLES[judged.what],
        "judged": {
            "instrument": whole.traded,
            "policy": judged.name,
            "file": f"{judged.name}, SHA-256 {judged.sha256[:12]}",
        },
        "verdict": _verdict(judgement, judged),
        "table": judgement.rows,
        "data": whole.facts(bars.index),
        "status": "complete",
        "run": {
            judged.what: judged.name,
            "file_hash": judged.sha256,
            "how": judged.how,
            "exposure_cap": judged.config.exposure_cap,
            "initial_equity_ccy": judged.config.initial_equity,
            **judged.facts,
        },
        "random": {"percentile": judgement.percentile, "draws": int(judgement.random_log_growth.size)},
        **shown,
        "tables": [*judged.tables, *own],
        "next_command": command,
    }
    files.write_json(folder / SUMMARY, summary)
    figures = {"equity": plots.equity_figure(judgement.drawn, fills=fills)}
    figures["equity" + page.NARROW] = plots.equity_figure(judgement.drawn, fills=fills, width=4.5)
    figures |= report_figures(judgement) | sections.figures(judgement, shown)
    figures["bars"] = plots.bars_figure({"judged": bars["close"]})
    interactive.write_page(folder / "equity.html", judgement.drawn, fills)
    page.write_report(folder, summary, figures)
    return summary


def _verdict(judgement: Judgement, judged: Judged) -> dict[str, Any]:
    """Return the verdict with the notes of what was not trained, and without those of training."""
    decided = judgement.verdict
    if judgement.results["base"][0].turnover == 0.0:
        decided = {**decided, "sentence": home_strings.JUDGED_FLAT, "finding": home_strings.JUDGED_FLAT}
    trained = strings.FALSE_ALARMS_TRAINED.format(**vars(PIPELINE), upper=PIPELINE.upper)
    notes = [note for note in decided["notes"] if note != trained]
    return {
        **decided,
        "notes": [home_strings.JUDGED_SEEN[judged.what], *judged.notes, home_strings.NOT_FITTED, *notes],
        "means": home_strings.JUDGED_MEANS[decided["word"]],
    }


def moment(text: str, option: str) -> pd.Timestamp | None:
    """Return a UTC time of an option; None for ''.

    >>> str(moment("2019-01-01", "--from")), moment("", "--from")
    ('2019-01-01 00:00:00+00:00', None)
    """
    if not text:
        return None
    try:
        time: Any = pd.Timestamp(text)
        return time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
    except (ValueError, TypeError, AttributeError) as err:  # NaT has no zone
        msg = f"{option} must be a date or time in UTC such as 2019-01-01, got {text!r}"
        raise ConfigError(msg) from err
