"""Train an agent on bars: the trainer that the notebook and the command line share.

Episode k is updates 30 (k - 1) + 1 ... 30 k of exact SAC, or environment steps (k - 1) * episode_length + 1 ...
k * episode_length of Gaussian SAC, summed over parallel envs.
Wall time decides only where to stop, so an interrupted and resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.config import EXACT, GAUSSIAN, SACConfig
from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.backtest import policies, runner
from sac_kernel.backtest.policies import Form
from sac_kernel.core import files, locks, packages, strings
from sac_kernel.core.clock import Deadline, Progress
from sac_kernel.core.config import require, to_flat
from sac_kernel.core.device import resolve_device, set_threads
from sac_kernel.core.errors import CheckpointError, DataError, TimeUpError
from sac_kernel.experiment import checkpoint, job_outputs, learning, output_layout
from sac_kernel.experiment.job_outputs import FinishedJob
from sac_kernel.experiment.learner import asked_for, choose
from sac_kernel.experiment.learning import Selection
from sac_kernel.experiment.progress_log import ProgressLog
from sac_kernel.experiment.run_config import (
    AGENT_PRESETS,
    DEFAULT_EXACT,
    DEFAULT_NUM_ENVS,
    DEFAULT_SAC,
    LEFT_TO_PRESET,
    SHARED,
    Job,
    RunConfig,
    preset_of,
)
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import Market, prepare_market
from sac_kernel.prices.processed_file import ProcessedData, read_processed
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from sac_kernel.agent.exact_config import ExactConfig
    from sac_kernel.agent.sac import SACAgent
    from sac_kernel.backtest.judgement import Judgement

logger = logging.getLogger(__name__)

STATE_INTERVAL_S = 600.0
RESUME_MODES = ("auto", "never")
STATS_KEYS = (
    "episode_rewards", "episode_lengths", "eval_rewards", "eval_sharpes", "eval_drawdowns", "actor_losses",
    "critic_losses", "alpha_values", "entropies", "q_values", "mean_abs_actions", "updates",
)  # fmt: skip


class KaggleTrainer:
    """Train one agent on the traded instrument of a processed file; write all outputs.

    Parameters
    ----------
    h5_path : the processed file; None finds it under the mounted inputs or data/processed/
    output_dir : the output folder; None is `paths.paths().working_dir`
    num_episodes : episodes of 30 updates (exact SAC) or `env_config.episode_length` environment steps (Gaussian SAC)
    eval_frequency, checkpoint_frequency : in episodes
    agent_id : 1 short-term, 2 medium, 3 swing (presets of decision interval and discount)
    device : 'auto', 'cpu', 'cuda' or 'cuda:N'
    seed : of all random numbers
    sac_config : hyper-parameters of Gaussian SAC, which it asks for; widths and an unset reward_scale are taken from
        env and train bars
    env_config : account and episode; None is the preset's
    num_envs : parallel accounts of Gaussian SAC; must divide the episode length. None is the largest divisor up to 60
    time_budget_s : seconds after which training saves its state and stops
    resume : 'auto' (continue an interrupted or longer run; move a finished one's outputs to previous/ and
        start a new run), 'never', or the path of a state folder
    deadline : a clock that started earlier; overrides time_budget_s
    expect_data_hash, expect_env_steps : required content hash of the data and least step of a resumed run;
        '' and 0 require nothing
    warm_start : SHA-256 of the saved agent, found as `paths.WARM_START`, whose weights a new run starts from;
        '' starts from random weights
    learner : 'auto', 'exact' or 'gaussian'; 'auto' is exact SAC unless the account has a setting that it cannot
        represent
    exact_config : hyper-parameters of exact SAC, which it asks for
    callback : called after each episode with its number and figures; returning False ends the run as a cut
    progress : whether to show progress with an ETA; a function is given the share done, 0 to 1, each second

    Raises
    ------
    SacKernelError
        From the constructor for a bad parameter, from `run_training` for bad data or a state that does not fit.
    """

    def __init__(  # noqa: PLR0913  # the guide's users call it with these names
        self,
        h5_path: str | Path | None = None,
        output_dir: str | Path | None = None,
        num_episodes: int = 100,
        eval_frequency: int = 10,
        checkpoint_frequency: int = 5,
        agent_id: int = 1,
        device: str = "auto",
        seed: int = 0,
        sac_config: SACConfig | None = None,
        env_config: TradingEnvConfig | None = None,
        num_envs: int | None = None,
        time_budget_s: float = float("inf"),
        resume: str = "auto",
        deadline: Deadline | None = None,
        expect_data_hash: str = "",
        expect_env_steps: int = 0,
        warm_start: str = "",
        learner: str = "auto",
        exact_config: ExactConfig | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        progress: bool | Callable[[float], object] = True,
    ) -> None:
        preset_of(agent_id)
        wanted, left = asked_for(learner, sac_config, exact_config), list(LEFT_TO_PRESET)
        if env_config is not None:
            left = [name for name in left if not name.startswith("env_")]
        if sac_config is not None:
            left = [name for name in left if not name.startswith("sac_")]
            if sac_config.initial_alpha == SACConfig.initial_alpha and sac_config.average_decay == 0.0:
                logger.warning("%s", strings.TEXTBOOK_LOSS)
        elif exact_config is not None:
            left = [name for name in left if name.startswith("env_")]
            sac_config = dataclasses.replace(DEFAULT_SAC, **{k: getattr(exact_config, k) for k in SHARED})
        env = env_config or TradingEnvConfig()
        if num_envs is None:
            found, _ = choose(env_config or env, wanted)
            num_envs = DEFAULT_NUM_ENVS if found == EXACT else learning.accounts_of(env)
        require(time_budget_s > 0, "KaggleTrainer", "time_budget_s must be > 0", time_budget_s)
        config = RunConfig(
            h5_path=str(h5_path or ""),
            output_dir=str(output_dir or ""),
            agent_ids=(agent_id,),
            seeds=(seed,),
            learner=wanted,
            num_episodes=num_episodes,
            eval_frequency=eval_frequency,
            checkpoint_frequency=checkpoint_frequency,
            num_envs=num_envs,
            device=device,
            resume=resume,
            warm_start=warm_start,
            expect_data_hash=expect_data_hash,
            expect_env_steps=(expect_env_steps,),
            sac=sac_config or DEFAULT_SAC,
            exact=exact_config or DEFAULT_EXACT,
            env=env,
            left_to_preset=tuple(left),
        )
        self._set_up(config, Job(agent_id, seed), deadline or Deadline(time_budget_s))
        self._callback = callback
        self.progress = progress

    _callback: Callable[[dict[str, Any]], object] | None = None
    progress: bool | Callable[[float], object] = True

    @classmethod
    def of_run(cls, config: RunConfig, job: Job, deadline: Deadline | None = None) -> KaggleTrainer:
        """Return the trainer of one job of a run, in that job's folder.

        `deadline` is the run's clock, by default one of `config.time_budget_h` that starts here.
        """
        trainer = cls.__new__(cls)
        trainer._set_up(config, Job(*job), deadline or Deadline(config.time_budget_h * 3600.0))
        return trainer

    def _set_up(self, config: RunConfig, job: Job, deadline: Deadline) -> None:
        """Prepare one job of a run, before its first step."""
        jobs = config.jobs
        self.config, self.agent_id, self.seed = config, job.agent_id, job.seed
        self.job_name = output_layout.job_name(*job)
        self.folder = output_layout.job_folder(config.top_folder, job, len(jobs))
        self.learner, self.learner_reason = config.learner_of(job)
        self.env_config = config.env_config(job.agent_id, self.learner)
        self.device = str(resolve_device(config.device))
        self._deadline = deadline
        steps = dict(zip(jobs, config.expect_env_steps, strict=False))
        self._expected_env_steps = steps.get(job, 0)
        self.stats: dict[str, list[Any]] = {key: [] for key in STATS_KEYS}
        self._loaded = self._prepared = False
        self._newest_state: dict[str, Any] | None = None
        self.job: FinishedJob | None = None
        self.judgement: Judgement | None = None
        self.summary: dict[str, Any] = {}

    def run_training(self) -> tuple[SACAgent, dict[str, list[Any]]]:
        """Train, judge on the test split, write all outputs; return the final agent and the statistics."""
        with locks.hold(self.folder):
            return self._run_training()

    def _run_training(self) -> tuple[SACAgent, dict[str, list[Any]]]:
        self.job = self.train()
        self._deadline.raise_if_interrupted()
        job_outputs.bring_ledger(self.folder, self.config)
        self.judgement = self.judge(self.job)
        self.summary = job_outputs.finish_outputs(self.folder, [self.job], self.data, [self.judgement])
        return self.agent, self.stats

    def train(self) -> FinishedJob:
        """Train until all episodes are done or time is up; write agents, checkpoints, logs, state."""
        self.prepare()
        restore_signals = self._deadline.stop_on_signals()
        try:
            self._start_or_resume()
            output_layout.sweep_temporaries(self.folder)
            self._log_header()
            self._curves = ProgressLog(self.folder, self.stats)
            self._run_episodes()
            return self._finish_training()
        finally:
            restore_signals()

    def judge(self, job: FinishedJob) -> Judgement:
        """Judge the job on the test split, with the trials in the ledger (`job_outputs.judge_job`)."""
        bars, config = self.data.splits, self.env_config
        train, test = ((bars[s][self.instrument], self.features[s]) for s in ("train", "test"))
        return job_outputs.judge_job(job, *test, config, train)

    def judge_ensemble(self, jobs: Sequence[FinishedJob]) -> list[runner.EpisodeResult]:
        """Return the passes over the test split of the mean of several seeds' final agents, at every tier."""
        members = Ensemble([job.final for job in jobs], [job.folder.name for job in jobs])
        policy = policies.agent(self.agent_id, Form.ENSEMBLE, seeds=len(jobs))
        test = self.data.splits["test"][self.instrument], self.features["test"]
        return runner.at_every_tier({policy: members}, *test, self.env_config)

    def prepare(self) -> None:
        """Load the data, build env and agent; training does it if necessary."""
        if not self._prepared:
            set_threads()
            self.load_data()
            self._prepare_learning()
            self._prepared = True

    def load_data(self) -> None:
        """Read the data, make features and markets: enough to judge; `prepare` does it if necessary."""
        if not self._loaded:
            self._load_data()
            self._loaded = True

    def make_room(self) -> None:
        """Move the outputs of a finished run, or one that `resume` must not continue, to previous/."""
        top = output_layout.top_of(self.folder)
        over = output_layout.is_reported(self.folder, self.config.num_episodes) or output_layout.is_moving(
            top
        )
        begun = checkpoint.newest_facts(self.folder / checkpoint.STATE_FOLDER) is not None
        if over or (begun and self.config.resume == "never"):
            reason = "finished" if over else "resume='never'"
            if (moved := output_layout.move_to_previous(top)) is not None:
                logger.info("Earlier outputs (%s) moved to %s. Starting a new run.", reason, moved)

    # -- preparation -------------------------------------------------------------------------------

    def _load_data(self) -> None:
        path = self.config.data_file
        self.data: ProcessedData = read_processed(path, self.env_config.price_side)
        expected = self.config.expect_data_hash
        if expected not in ("", self.data.content_hash):
            msg = (
                f"{path}: this notebook needs the bars with hash {expected[:12]}, but "
                f"{self.data.content_hash[:12]} is mounted. Push again once the new version is ready."
            )
            raise DataError(msg)
        self.instrument = self.data.traded
        self.pipeline = self.config.feature_pipeline(self.instrument, self.agent_id)
        frames = self.pipeline.run_full_pipeline(self.data.train, self.data.val, self.data.test)
        self.features: dict[str, pd.DataFrame] = dict(zip(("train", "val", "test"), frames, strict=True))
        self.val_market = self._val_market()
        logger.info("data %s: %s", path.name, _data_line(self.data, self.instrument))
        for line in self.data.cost_lines(self.env_config.costs):
            logger.info("costs %s", line)

    def _val_market(self) -> Market:
        # Always at base cost, so that runs can be compared.
        config = dataclasses.replace(self.env_config, cost_tier="base")
        return prepare_market(self.data.val[self.instrument], self.features["val"], config, close_at_end=True)

    def _prepare_learning(self) -> None:
        self.learning = learning.make(
            self.data.train[self.instrument],
            self.features["train"],
            self.env_config,
            (self.config.exact_config if self.learner == EXACT else self.config.sac_config)(self.agent_id),
            self.agent_id,
            self.seed,
            self.device,
            self.config.num_envs,
            compare=self.learner == EXACT and self.config.device == "auto",
        )
        self.device = self.learning.device
        self.agent.context = {
            "features": self.pipeline.state(),
            "observation_names": list(self.val_market.observation_names),
            "env": to_flat(self.env_config),
            "data_hash": self.data.content_hash,
            "code_hash": packages.code_hash(),
        }
        self._schedule_episodes = self.config.num_episodes
        self._selection = Selection()
        self._train_s = 0.0

    @property
    def agent(self) -> SACAgent:
        """Return the agent as it is now."""
        return self.learning.agent

    @property
    def train_market(self) -> Market:
        """Return the market that the agent learns on."""
        return self.learning.market

    @property
    def learning_identity(self) -> dict[str, Any]:
        """Return what must not change on resume: data, features, env, agent, seed."""
        own = {"sac": to_flat(self.learning.config), "num_envs": self.config.num_envs}
        if self.learner == EXACT:
            own = {"learner": EXACT, "exact": to_flat(self.learning.config)}
        return {
            **({"warm_start": self.config.warm_start} if self.config.warm_start else {}),
            "data_hash": self.data.content_hash,
            "features": self.pipeline.state()["names"],
            **(self.pipeline.own.identity if self.pipeline.own else {}),
            "env": to_flat(self.env_config),
            "agent_id": self.agent_id,
            "seed": self.seed,
            **own,
        }

    @property
    def run_identity(self) -> dict[str, Any]:
        """Return what may change between sessions of a run."""
        return {
            "num_episodes": self.config.num_episodes,
            "eval_frequency": self.config.eval_frequency,
            "checkpoint_frequency": self.config.checkpoint_frequency,
            "device": self.device,
        }

    # -- resume ------------------------------------------------------------------------------------

    def _start_or_resume(self) -> None:
        own, self._newest_state = self.folder / checkpoint.STATE_FOLDER, None
        if self.config.resume not in RESUME_MODES:
            self._restore(Path(self.config.resume), *checkpoint.load_state(Path(self.config.resume)))
        else:
            self.make_room()
            if self.config.resume == "auto" and checkpoint.newest_facts(own) is not None:
                self._restore(own, *checkpoint.load_state(own))
            else:
                self._resume_mounted()
        if self.learning.updates == 0 and self.learning.steps == 0:
            digest = self.config.warm_start
            self.learning.begin(output_layout.warm_start_file(digest) if digest else None)
            if digest:
                logger.info("starting from the weights of agent %s", digest[:12])
        if self.learning.steps < self._expected_env_steps:
            msg = (
                f"This run must continue from step {self._expected_env_steps:,}, but its state is at step "
                f"{self.learning.steps:,}. Attach the newest version of the state dataset. Nothing was trained."
            )
            raise CheckpointError(msg)

    def _resume_mounted(self) -> None:
        """Continue from the state that the build expects to be mounted, unless every job in it is done.

        A finished job of an unfinished queue is restored too, to be judged with the others.
        """
        job = self.job_name
        if self.config.resume == "auto" and self.config.expected(checkpoint.EXPORT_INDEX):
            index = self.config.find_input(checkpoint.EXPORT_INDEX)
            jobs = checkpoint.exported_facts(index)
            with checkpoint.restoring(index):
                over = all(f["finished"] and f["episodes"] >= self.config.num_episodes for f in jobs.values())
            if job in jobs and not over:
                self._restore(index.parent, *checkpoint.load_exported(index, job))

    def _restore(self, folder: Path, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        with checkpoint.restoring(folder):
            saved = facts["learning"].get("learner", GAUSSIAN)
            if saved != self.learner:
                msg = (
                    f"{folder} holds a training of {saved} SAC, but this run trains {self.learner} SAC "
                    f"({self.learner_reason}). Set learner={saved}, or start a new run with resume='never' (--fresh)."
                )
                raise CheckpointError(msg)
            checkpoint.check_identity(facts["learning"], self.learning_identity, f"{folder}: resume")
            if facts["environment"] != _environment():
                logger.warning("Other package versions, processor or threads: results are not bit-equal.")
            if facts["code_hash"] != self.agent.context["code_hash"]:
                logger.warning("The state was written by other code.")
            self.learning.restore(state)
            self.stats = {key: list(values) for key, values in state["stats"].items()}
            self._selection.restore(state)
            self._train_s = float(state["train_s"])
            self._schedule_episodes = int(state["schedule_episodes"])
            if self.stats.keys() != set(STATS_KEYS) or len({len(v) for v in self.stats.values()}) != 1:
                raise KeyError(*self.stats)
        logger.info("resumed from %s at episode %d, step %d", folder, self._done, self.learning.steps)

    def _save_state(self, *, finished: bool) -> None:
        state = {
            **self.learning.state(),
            "stats": self.stats,
            **self._selection.state(),
            "train_s": self._train_s,
            "schedule_episodes": self._schedule_episodes,
        }
        facts = {
            "learning": self.learning_identity,
            "run": self.run_identity,
            "code_hash": self.agent.context["code_hash"],
            "environment": _environment(),
            "episodes": self._done,
            "env_steps": self.learning.steps,
            "updates": self.learning.updates,
            "finished": finished,
        }
        folder = self.folder / checkpoint.STATE_FOLDER
        self._newest_state = checkpoint.save_state(folder, state, facts, self._newest_state)

    # -- training ----------------------------------------------------------------------------------

    @property
    def _done(self) -> int:
        """Finished episodes."""
        return len(self.stats["episode_rewards"])

    def _run_episodes(self) -> None:
        total = self.config.num_episodes * self.learning.episode_steps
        with contextlib.closing(
            Progress(logger, "training steps", total, self.learning.steps, self.progress)
        ) as progress:
            self._advance_until_over(progress)

    def _advance_until_over(self, progress: Progress) -> None:
        saved_s = time.monotonic()
        while self._done < self.config.num_episodes and not self._deadline.passed():
            if not self.learning.episode_over:
                started_s = time.monotonic()
                self.learning.advance()
                self._train_s += time.monotonic() - started_s
            if self.learning.episode_over:
                try:
                    self._end_episode()
                except TimeUpError:
                    logger.info("Stopped in a validation pass. The next run repeats it.")
                    return
            elif time.monotonic() - saved_s > STATE_INTERVAL_S:
                self._save_state(finished=False)
                saved_s = time.monotonic()
            updates = self.learning.updates
            note = f"| {updates:,} updates, {updates / max(self._train_s, 1e-9):.0f}/s"
            progress.update(self.learning.steps, note)

    def _end_episode(self) -> None:
        """Validate if due and record the episode; if time runs out, nothing has changed."""
        evaluated: runner.EpisodeResult | None = None
        episode, length = self._done + 1, self.env_config.episode_length
        self.agent.check_finite()
        if episode % self.config.eval_frequency == 0 or episode == self.config.num_episodes:
            evaluated = self._evaluate()
        row = evaluated.row() if evaluated else {}
        values = self.learning.take_row() | {
            "eval_rewards": evaluated.log_growth / len(evaluated.equity) * length if evaluated else None,
            "eval_sharpes": row.get("sharpe_ann"),
            "eval_drawdowns": row.get("max_drawdown_frac"),
        }
        values = {key: values[key] for key in STATS_KEYS}
        for key, value in values.items():
            self.stats[key].append(value)
        self._curves.write(episode, values)
        if evaluated:
            if best := self._selection.look(self.agent, evaluated):
                files.write_bytes(self._agent_path(Form.BEST), files.pt_bytes(best))
            self._enter_trial(evaluated, episode)
        logger.info("%s", learning.episode_line(episode, self.config.num_episodes, values))
        if episode % self.config.checkpoint_frequency == 0:
            self._write_checkpoint(episode, values)
        record = {"episode": episode, "num_episodes": self.config.num_episodes, **values}
        if self._callback and self._callback(record) is False:
            self._deadline.request_stop()

    def _evaluate(self) -> runner.EpisodeResult:
        equity = self.env_config.initial_equity
        return runner.validate(self.agent, self.val_market, equity, self._deadline.check)

    def _enter_trial(self, result: runner.EpisodeResult, episode: int) -> None:
        """Record a validated checkpoint in the ledger: each one counts as a trial."""
        trial = runner.trial_of(
            result,
            agent_id=self.agent_id,
            seed=self.seed,
            split="val",
            checkpoint=episode,
            config_hash=files.content_hash(self.learning_identity),
            data_hash=self.data.content_hash,
        )
        trials.append(self.folder / trials.NAME, [trial])

    def _write_checkpoint(self, episode: int, values: Mapping[str, Any]) -> None:
        folder = self.folder / "checkpoints"
        self.agent.save(folder / f"agent_{self.agent_id}_ep{episode}.pt")
        facts = {"episode": episode, "env_steps": self.learning.steps, "total_updates": self.agent.updates}
        files.write_json(folder / f"metrics_ep{episode}.json", {**facts, **values})
        self._write_logs()
        if episode < self.config.num_episodes:  # the last state is saved when training is finished
            self._save_state(finished=False)

    def _write_logs(self) -> None:
        files.write_json(self.folder / "logs" / "training_stats.json", self.stats)
        arrays = {key: np.asarray(values, np.float64) for key, values in self.stats.items()}
        files.write_npz(self.folder / "logs" / "training_stats.npz", arrays)

    def _finish_training(self) -> FinishedJob:
        if self._selection.best is None:  # stopped before the first evaluation
            self._selection.best = self.agent.content()
        # After a resume from another folder, the file is missing.
        files.write_bytes(self._agent_path(Form.BEST), files.pt_bytes(self._selection.best))
        finished = self._done >= self.config.num_episodes
        self._save_state(finished=finished)
        self.agent.save(self._agent_path(Form.FINAL))
        self._write_logs()
        if not finished:
            logger.info(
                "Stopped after %d of %d episodes. Run again to continue.",
                self._done,
                self.config.num_episodes,
            )
        files.write_json(self.folder / output_layout.FACTS_FILE, self._facts(finished=finished))
        return FinishedJob.load(self.folder, self.agent_id)

    def _agent_path(self, form: Form) -> Path:
        return self.folder / policies.agent_file(self.agent_id, form)

    def _facts(self, *, finished: bool) -> dict[str, Any]:
        seconds = max(self._train_s, 1e-9)
        return {
            "agent_id": self.agent_id,
            "seed": self.seed,
            "preset": AGENT_PRESETS[self.agent_id].label,
            "instrument": self.instrument,
            "status": "complete" if finished else "cut",
            "device": self.device,
            "versions": packages.versions(),
            "episodes": self._done,
            "num_episodes": self.config.num_episodes,
            "env_steps": self.learning.steps,
            "updates": self.agent.updates,
            "learner": self.learner,
            "learner_reason": self.learner_reason,
            "job": self.job_name,
            "updates_per_s": self.agent.updates / seconds,
            "env_steps_per_s": self.learning.steps / seconds,
            "train_s": self._train_s,
            "run": self.config.run_id,
            "notebook_hash": self.config.notebook_hash,
            "data_hash": self.data.content_hash,
            "code_hash": self.agent.context["code_hash"],
            "config_hash": files.content_hash(self.learning_identity),
            "forecast": self.learning.forecast_facts,
            "sac_config": to_flat(self.learning.config),
            "env_config": to_flat(self.env_config),
        }

    def _log_header(self) -> None:
        c = self.learning.config
        logger.info(
            "agent %d (%s), seed %d, %s | %s SAC (%s) | state %d, nets %s, batch %d, gamma %g, %d steps an episode",
            self.agent_id, AGENT_PRESETS[self.agent_id].label, self.seed, self.device, self.learner,
            self.learner_reason, self.agent.width, "x".join(map(str, c.hidden_dims)), c.batch_size, c.gamma,
            self.learning.episode_steps,
        )  # fmt: skip


def _environment() -> dict[str, Any]:
    import torch

    return {**packages.versions(), "threads": torch.get_num_threads()}


def _data_line(data: ProcessedData, instrument: str) -> str:
    counts = ", ".join(f"{name} {len(split[instrument]):,}" for name, split in data.splits.items())
    minutes = data.bar_seconds / 60
    return f"{instrument} {minutes:g}-minute {data.price_side} bars: {counts}; hash {data.content_hash[:12]}"
