"""The last step of a run: judge on the test split, write report, summary, manifest and models.zip."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import policies, trades
from sac_kernel.backtest.judgement import judge
from sac_kernel.backtest.policies import Form, Kind, agent_file
from sac_kernel.core import files, paths, strings
from sac_kernel.core.errors import InputNotFoundError
from sac_kernel.experiment import output_layout
from sac_kernel.features.forecast import LEAST_RUNS, SIGNIFICANCE
from sac_kernel.report import interactive, page, plots, sections, trade_files, training_health
from sac_kernel.stats import trials, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.experiment.planted_edge import SelfTest
    from sac_kernel.experiment.run_config import RunConfig
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.prices.processed_file import ProcessedData
    from sac_kernel.report.training_health import Finding

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedJob:
    """Results of one job, to be judged and reported.

    Attributes
    ----------
    folder : the job's folder
    final, best : the agents of the last and of the best validated update
    stats : training_stats, one value an episode
    facts : run facts for the report
    """

    folder: Path
    final: SACAgent
    best: SACAgent
    stats: dict[str, list[Any]]
    facts: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, agent_id: int) -> FinishedJob:
        """Read a job's files, agents onto the CPU: the written files are judged."""
        final, best = (
            SACAgent.from_checkpoint(folder / agent_file(agent_id, form), device="cpu")
            for form in (Form.FINAL, Form.BEST)
        )
        stats = files.read_json(folder / output_layout.STATS_FILE)
        return cls(folder, final, best, stats, files.read_json(folder / output_layout.FACTS_FILE))


def bring_ledger(top: Path, config: RunConfig) -> None:
    """Merge the ledgers of trials that the build expects to be mounted into the output folder's.

    A missing one costs a warning: this comes after hours of training.
    """
    root, mounted = paths.paths().input_root, []
    for digest in config.expected(trials.NAME) if root else []:
        try:
            mounted.append(paths.find_input(trials.NAME, root, [digest]))
        except InputNotFoundError as err:
            logger.warning("Earlier trials are not counted. %s", err)
    if mounted:
        trials.merge(top / trials.NAME, mounted)


def judge_job(
    job: FinishedJob,
    bars: pd.DataFrame,
    features: pd.DataFrame,
    config: TradingEnvConfig,
    train: tuple[pd.DataFrame, pd.DataFrame] | None = None,
) -> Judgement:
    """Judge a job's final and best agent on the test split; `train` fits the baselines that need it."""
    i = job.final.agent_id
    agents = {policies.agent(i, Form.FINAL): job.final, policies.agent(i, Form.BEST): job.best}
    top = output_layout.top_of(job.folder)
    facts = [job.facts, *map(files.read_json, top.glob(f"{output_layout.RUNS}/*/{output_layout.FACTS_FILE}"))]
    ledger = trials.read(top / trials.NAME, job.facts["data_hash"])
    counted = trials.count(ledger, own={one["config_hash"] for one in facts})
    return judge(agents, bars, features, config, train=train, counted=counted)


def finish_outputs(  # noqa: PLR0913  # all that a run leaves
    top: Path,
    jobs: Sequence[FinishedJob],
    data: ProcessedData,
    judgements: Sequence[Judgement],
    failures: Mapping[str, str] | None = None,
    ensembles: Sequence[EpisodeResult] = (),
    joined: Callable[[list[trials.Trial], dict[str, Any]], tuple[dict[str, Any], dict[str, Figure]]]
    | None = None,
    tested: SelfTest | None = None,
) -> dict[str, Any]:
    """Write report.html, figures/, summary.json, models.zip and, last, manifest.json; return the summary.

    With several jobs the first seed's agents are copied to the top: by order, never by result. `failures` (job
    name -> error) make the run incomplete. `ensembles` are passes of several seeds' mean action, for the results
    table. `joined` puts a walk-forward in front: from ledger and summary to the summary and the figures it replaces.
    `tested` is the self-test.
    """
    output_layout.sweep_temporaries(top)
    headline, judgement = jobs[0], judgements[0]
    failures = dict(failures or {})
    complete = not failures and all(job.facts["status"] == "complete" for job in jobs)
    if headline.folder != top:
        _copy_first_seed(top, jobs)
    names = _output_files(top)
    rows = judgement.rows
    ledger = trials.read(top / trials.NAME, data.content_hash) or []
    shown = sections.sections(judgement, headline.final, ledger)
    for job, other in zip(jobs[1:], judgements[1:], strict=True):
        rows += [
            {**row, "policy": strings.IN_JOB.format(job=job.folder.name, label=row["policy"])}
            for row in other.rows
            if row["kind"] == Kind.AGENT
        ]
    rows += [result.row() for result in ensembles]
    base = judgement.results["base"][0]
    fills = trades.fills_table(judgement.market, trades.fills_of(judgement.market, base))
    trade_files.write_tables(top, judgement.market, base, fills)
    summary = {
        "judged": _judged(headline, base),
        "verdict": _with_notes(_verdict(jobs, judgements), headline.facts.get("forecast"), failures),
        "table": rows,
        "data": data.describe(headline.facts.get("env_config", {}).get("costs", "")),
        "status": "complete" if complete else "cut",
        "run": headline.facts,
        "jobs": [job.facts for job in jobs],
        "failures": failures,
        "random": {"percentile": judgement.percentile, "draws": int(judgement.random_log_growth.size)},
        "files": [{"name": n, "bytes": (top / n).stat().st_size} for n in names if n.endswith(".pt")],
        "training": {_name(job): [finding._asdict() for finding in health(job)] for job in jobs},
        **shown,
        "self_test": tested.facts if tested else None,
        "next_command": "kaggle kernels output OWNER/sac-trading-train -p outputs/",
    }
    summary, in_front = joined(ledger, summary) if joined else (summary, {})
    files.write_json(top / "summary.json", summary)
    drawn, seeds = drawn_passes(judgements), other_seeds(judgements)
    figures = {"equity": plots.equity_figure(drawn, seeds, fills)}
    figures["equity" + page.NARROW] = plots.equity_figure(drawn, seeds, fills, width=4.5)
    figures |= (
        report_figures(judgement)
        | {"training": plots.training_figure(stats_for_plot(headline))}
        | sections.figures(judgement, shown)
    )
    same = seed_passes(judgements)
    if len(same) > 1 and any(result.turnover for result in same):
        figures["seeds"] = plots.seeds_figure(same)
    if "equity" in in_front:
        del figures["equity" + page.NARROW]
    figures = {**in_front, **{k: v for k, v in figures.items() if k not in in_front}}
    figures |= {"bars": plots.bars_figure(_closes(data)), **(tested.figures() if tested else {})}
    interactive.write_page(top / "equity.html", drawn, fills)
    page.write_report(top, summary, figures)
    models = [n for n in names if n.endswith(".pt") or "/logs/" in f"/{n}" or "metrics_ep" in n]
    files.write_zip(top / "models.zip", {n: (top / n).read_bytes() for n in models})
    facts = {k: headline.facts[k] for k in ("data_hash", "code_hash", "config_hash")}
    facts |= {k: headline.facts.get(k, "") for k in ("run", "notebook_hash")}
    facts["run"] = output_layout.run_id(facts)
    facts |= {k: sum(job.facts[k] for job in jobs) for k in ("env_steps", "updates")}
    facts |= {"status": summary["status"], "episodes": min(job.facts["episodes"] for job in jobs)}
    files.write_manifest(top, _output_files(top), facts)
    return summary


def seed_passes(judgements: Sequence[Judgement]) -> list[EpisodeResult]:
    """Return the first agent's pass of each seed at base cost."""
    passes = [judgement.results["base"][0] for judgement in judgements]
    return [result for result in passes if result.policy == passes[0].policy]


def _name(job: FinishedJob) -> str:
    """Return the job's own name: its folder's could reveal local paths."""
    return str(job.facts.get("job") or output_layout.job_name(job.facts["agent_id"], job.facts["seed"]))


def _verdict(jobs: Sequence[FinishedJob], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return the headline's verdict, corrected for the number of agents, by the first seed of each."""
    first: dict[int, dict[str, Any]] = {}
    for job, judgement in zip(jobs, judgements, strict=True):
        first.setdefault(job.final.agent_id, judgement.verdict)
    verdicts = list(first.values())
    return verdict.over_agents(verdicts)[0] if len(verdicts) > 1 else verdicts[0]


def report_figures(judgement: Judgement) -> dict[str, Any]:
    """Return the figures of the trades, if there are any, in the page's order."""
    base = judgement.results["base"]
    figures = {"exposure": plots.exposure_figure(base[0])} if base[0].turnover > 0.0 else {}
    if judgement.percentile is not None:
        growth = np.expm1(judgement.random_log_growth)
        figures["random"] = plots.random_figure(math.expm1(base[0].log_growth), growth)
    return figures


def drawn_passes(judgements: Sequence[Judgement]) -> list[EpisodeResult]:
    """Return the labelled passes of the equity figure: the headline, each other agent's first seed, baselines."""
    first, *others = judgements
    seen, drawn = {first.results["base"][0].policy}, [first.drawn[0]]
    for result in (judgement.results["base"][0] for judgement in others):
        if result.policy not in seen:
            seen.add(result.policy)
            drawn.append(result)
    return [*drawn, *first.drawn[1:]]


def other_seeds(judgements: Sequence[Judgement]) -> list[EpisodeResult]:
    """Return the final agents' passes that `drawn_passes` leaves out: each agent's seeds after the first."""
    seen: set[object] = set()
    passes = [judgement.results["base"][0] for judgement in judgements]
    return [result for result in passes if result.policy in seen or seen.add(result.policy)]  # type: ignore[func-returns-value]


def _judged(job: FinishedJob, base: EpisodeResult) -> dict[str, Any]:
    """Return what the headline judges: instrument, agent, seed, model file, run, learner."""
    identity = {key: job.facts[key] for key in ("data_hash", "code_hash", "config_hash")}
    return {
        "instrument": job.facts["instrument"],
        "policy": base.name,
        "seed": job.facts["seed"],
        "file": agent_file(job.final.agent_id, Form.FINAL),
        "run": files.content_hash(identity)[:12],
        "learner": job.facts.get("learner"),
        "learner_reason": job.facts.get("learner_reason"),
    }


def stats_for_plot(job: FinishedJob) -> dict[str, Any]:
    """Return training stats with the evaluations as separate lists with episode numbers."""
    done = [k for k, value in enumerate(job.stats["eval_rewards"]) if value is not None]
    evaluations = {name: [job.stats[name][k] for k in done] for name in ("eval_rewards", "eval_sharpes")}
    shown = {**job.stats, **evaluations, "eval_episodes": [k + 1 for k in done]}
    targets = entropy_targets(job)
    return shown if targets is None else shown | {"target_entropy": targets}


def entropy_targets(job: FinishedJob) -> list[float] | None:
    """Return the target of the entropy at the end of each episode, nats; None for exact SAC, which has none."""
    if job.final.exact:
        return None
    return [job.final.config.entropy_target(int(n)) for n in np.cumsum(job.stats["updates"])]


def health(job: FinishedJob) -> list[Finding]:
    """Return the findings on a job's training curves (`training_health.examine`)."""
    return training_health.examine(job.stats, entropy_targets(job))


def read_manifest(top: Path) -> dict[str, Any]:
    """Return the manifest after checking the hash of every file that it lists."""
    return files.verify_manifest(top)


def _with_notes(
    verdict: Mapping[str, Any], forecast: Mapping[str, Any] | None, failures: Mapping[str, str]
) -> dict[str, Any]:
    """Return the verdict with notes on the forecast first, on failed jobs last."""
    flat = verdict["finding"] == strings.STAYS_FLAT
    learnt = (
        _forecast_note(forecast, strings.FLAT_BECAUSE if flat else strings.FORECAST_NOISE) if forecast else ""
    )
    notes = [
        *verdict["notes"],
        *(strings.JOB_FAILED.format(job=name, why=why) for name, why in failures.items()),
    ]
    if flat and forecast and forecast["head"] == "flat":
        return {**verdict, "finding": learnt, "sentence": learnt, "notes": [strings.COSTS_ALONE, *notes]}
    return {**verdict, "notes": [learnt, *notes] if learnt else notes}


def _forecast_note(fit: Mapping[str, Any], noise: str) -> str:
    """Describe how well features predict the returns of a decision on train rows (`market.training`)."""
    bars = fit["decision_bars"]
    what = strings.NEXT_RETURN if bars == 1 else strings.NEXT_RETURNS.format(bars=bars)
    if bars > 1 and fit["t_stat"] == 0.0:
        return strings.FORECAST_TOO_FEW.format(what=what, runs=LEAST_RUNS)
    if fit["head"] == "flat":
        return noise.format(what=what, t=fit["t_stat"], required=SIGNIFICANCE)
    return strings.FORECAST.format(
        what=what, t=fit["t_stat"], head=fit["head"], share=fit["out_of_fold_share"]
    )


def _closes(data: ProcessedData) -> dict[str, pd.Series[float]]:
    return {name: split[data.traded]["close"] for name, split in data.splits.items()}


def _copy_first_seed(top: Path, jobs: Sequence[FinishedJob]) -> None:
    seen: set[int] = set()
    for job in jobs:
        agent_id = job.final.agent_id
        if agent_id not in seen:
            seen.add(agent_id)
            for form in (Form.BEST, Form.FINAL):
                name = agent_file(agent_id, form)
                files.write_bytes(top / name, (job.folder / name).read_bytes())


def _output_files(top: Path) -> list[str]:
    """Return the output files below `top`, without previous runs, input logs and the manifest."""
    wanted = [
        p for name in output_layout.ENTRIES for p in [top / name] if p.is_file() and name != "manifest.json"
    ]
    wanted += [p for name in output_layout.ENTRIES for p in (top / name).rglob("*") if p.is_file()]
    wanted += [*top.glob("agent_*.pt"), *top.glob(trials.NAME)]
    return sorted(p.relative_to(top).as_posix() for p in wanted if not p.name.endswith(".tmp"))
