"""Train an agent on bars: the trainer that the notebook and the command line share.

Episode k is environment steps (k - 1) * episode_length + 1 ... k * episode_length, summed over parallel envs.
Wall time decides only where to stop, so an interrupted and resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.agent.sac import Interaction, SACAgent
from sac_kernel.backtest import policies, runner
from sac_kernel.backtest.policies import Form
from sac_kernel.core import files, packages, paths
from sac_kernel.core.clock import Deadline, Progress
from sac_kernel.core.config import require, to_flat
from sac_kernel.core.device import resolve_device, set_threads
from sac_kernel.core.errors import CheckpointError, DataError, TimeUpError
from sac_kernel.experiment import checkpoint, job_outputs, output_layout
from sac_kernel.experiment.job_outputs import FinishedJob
from sac_kernel.experiment.run_config import (
    AGENT_PRESETS,
    DEFAULT_NUM_ENVS,
    UTD_RATIO,
    RunConfig,
    preset_of,
)
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import training
from sac_kernel.market.envs import TradingVectorEnv
from sac_kernel.market.market import Market, prepare_market
from sac_kernel.prices.processed_file import ProcessedData, read_processed
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from sac_kernel.backtest.judgement import Judgement
    from sac_kernel.market.account import TradingEnvConfig

logger = logging.getLogger(__name__)

SELECTION_WINDOW = 3
"""`best` is the agent with the highest mean of this many evaluations in a row: one lucky pass must not win."""

STATE_INTERVAL_S = 600.0
RESUME_MODES = ("auto", "never")
STATS_KEYS = (
    "episode_rewards", "episode_lengths", "eval_rewards", "eval_sharpes", "eval_drawdowns", "actor_losses",
    "critic_losses", "alpha_values", "entropies", "q_values", "mean_abs_actions", "updates",
)  # fmt: skip

_PARTIAL_TYPES = {"steps": int, "reward": float, "abs_action": float, "updates": int}


class KaggleTrainer:
    """Train one agent on the traded instrument of a processed file; write all outputs.

    Parameters
    ----------
    h5_path : the processed file; None finds it under the mounted inputs or data/processed/
    output_dir : the output folder; None is `paths.paths().working_dir`
    num_episodes : episodes of `env_config.episode_length` environment steps
    eval_frequency, checkpoint_frequency : in episodes
    agent_id : 1 short-term, 2 medium, 3 swing (presets of decision interval and discount)
    device : 'auto', 'cpu', 'cuda' or 'cuda:N'
    seed : of all random numbers
    sac_config : hyper-parameters; widths and an unset reward_scale are taken from env and train bars
    env_config : account and episode; None is the preset's (`Preset.env_config`)
    num_envs : parallel accounts; must divide the episode length. None is the largest divisor up to 60
    time_budget_s : seconds after which training saves its state and stops
    resume : 'auto' (continue an interrupted or longer run; move a finished one's outputs to previous/ and
        start a new run), 'never', or the path of a state folder
    deadline : a clock that started earlier; overrides time_budget_s
    expect_data_hash, expect_env_steps : required content hash of the data and least step of a resumed run;
        '' and 0 require nothing
    warm_start : SHA-256 of the saved agent, found as `paths.WARM_START`, whose weights a new run starts from;
        '' starts from random weights

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
    ) -> None:
        preset = preset_of(agent_id)
        env = env_config or preset.env_config
        if num_envs is None:
            num_envs = max(n for n in range(1, DEFAULT_NUM_ENVS + 1) if env.episode_length % n == 0)
        require(time_budget_s > 0, "KaggleTrainer", "time_budget_s must be > 0", time_budget_s)
        config = RunConfig(
            h5_path=str(h5_path or ""),
            output_dir=str(output_dir or ""),
            agent_ids=(agent_id,),
            seeds=(seed,),
            num_episodes=num_episodes,
            eval_frequency=eval_frequency,
            checkpoint_frequency=checkpoint_frequency,
            num_envs=num_envs,
            device=device,
            resume=resume,
            warm_start=warm_start,
            expect_data_hash=expect_data_hash,
            expect_env_steps=(expect_env_steps,),
            sac=sac_config or SACConfig.for_market(gamma=preset.gamma, utd_ratio=UTD_RATIO),
            env=env,
            left_to_preset=(),
        )
        self._set_up(config, agent_id, seed, deadline or Deadline(time_budget_s))

    @classmethod
    def of_run(
        cls, config: RunConfig, agent_id: int, seed: int, deadline: Deadline | None = None
    ) -> KaggleTrainer:
        """Return the trainer of one job of a run, in that job's folder.

        `deadline` is the run's clock, by default one of `config.time_budget_h` that starts here.
        """
        trainer = cls.__new__(cls)
        trainer._set_up(config, agent_id, seed, deadline or Deadline(config.time_budget_h * 3600.0))
        return trainer

    def _set_up(self, config: RunConfig, agent_id: int, seed: int, deadline: Deadline) -> None:
        """Prepare one job of a run, before its first step."""
        jobs = config.jobs
        self.config, self.agent_id, self.seed = config, agent_id, seed
        self.folder = output_layout.job_folder(config.top_folder, agent_id, seed, len(jobs))
        self.env_config = config.env_config(agent_id)
        self.device = str(resolve_device(config.device))
        self._deadline = deadline
        steps = dict(zip(jobs, config.expect_env_steps, strict=False))
        self._expected_env_steps = steps.get((agent_id, seed), 0)
        self.stats: dict[str, list[Any]] = {key: [] for key in STATS_KEYS}
        self._loaded = self._prepared = False
        self._newest_state: dict[str, Any] | None = None
        self.job: FinishedJob | None = None
        self.judgement: Judgement | None = None
        self.summary: dict[str, Any] = {}

    def run_training(self) -> tuple[SACAgent, dict[str, list[Any]]]:
        """Train, judge on the test split, write all outputs; return the final agent and the statistics."""
        self.job = self.train()
        job_outputs.bring_ledger(self.folder)
        self.judgement = self.judge(self.job)
        self.summary = job_outputs.finish_outputs(self.folder, [self.job], self.data, [self.judgement])
        return self.agent, self.stats

    def train(self) -> FinishedJob:
        """Train until all episodes are done or time is up; write agents, checkpoints, logs, state."""
        self.prepare()
        restore_signals = self._deadline.stop_on_signals()
        try:
            self._start_or_resume()
            files.sweep_temporaries(self.folder)
            self._log_header()
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
            if output_layout.move_to_previous(top):
                logger.info(
                    "Earlier outputs (%s) moved to %s. Starting a new run.",
                    reason,
                    top / output_layout.PREVIOUS,
                )

    # -- preparation -------------------------------------------------------------------------------

    def _load_data(self) -> None:
        path = Path(self.config.h5_path) if self.config.h5_path else paths.find_input(paths.DATA_FILE)
        self.data: ProcessedData = read_processed(path, self.env_config.price_side)
        expected = self.config.expect_data_hash
        if expected not in ("", self.data.content_hash):
            msg = (
                f"{path}: this notebook needs the bars with hash {expected[:12]}, but "
                f"{self.data.content_hash[:12]} is mounted. Push again once the new version is ready."
            )
            raise DataError(msg)
        self.instrument = self.data.traded
        preset = AGENT_PRESETS[self.agent_id]
        self.pipeline = FeaturePipeline(self.instrument, regimes=preset.regimes, forecast=preset.forecast)
        frames = self.pipeline.run_full_pipeline(self.data.train, self.data.val, self.data.test)
        self.features: dict[str, pd.DataFrame] = dict(zip(("train", "val", "test"), frames, strict=True))
        bars, features = self.data.train[self.instrument], self.features["train"]
        self.train_market, self.forecast_facts = training.build_training_market(
            bars, features, self.env_config
        )
        self.val_market = self._val_market()
        logger.info("data %s: %s", path, _data_line(self.data, self.instrument))

    def _val_market(self) -> Market:
        # Always at base cost, so that runs can be compared.
        config = dataclasses.replace(self.env_config, cost_tier="base")
        return prepare_market(self.data.val[self.instrument], self.features["val"], config, close_at_end=True)

    def _prepare_learning(self) -> None:
        width = len(self.train_market.observation_names)
        settings = self.config.sac_config(self.agent_id)
        scale = settings.reward_scale or training.reward_scale(self.train_market)
        self.sac_config = dataclasses.replace(settings, state_dim=width, action_dim=1, reward_scale=scale)
        self.agent = SACAgent(self.sac_config, self.agent_id, self.device, self.seed)
        self.agent.context = {
            "features": self.pipeline.state(),
            "observation_names": list(self.train_market.observation_names),
            "env": to_flat(self.env_config),
            "data_hash": self.data.content_hash,
            "code_hash": packages.code_hash(),
        }
        self.env = TradingVectorEnv(self.train_market, self.env_config, self.config.num_envs)
        self.loop = Interaction(self.agent, self.env, self.seed)
        self._schedule_episodes = self.config.num_episodes
        self._partial: dict[str, Any] = {"steps": 0, "reward": 0.0, "abs_action": 0.0, "updates": 0}
        self._scores: list[float] = []
        self._best_score: float | None = None
        self._best: dict[str, Any] | None = None
        self._train_s = 0.0

    @property
    def learning_identity(self) -> dict[str, Any]:
        """Return what must not change on resume: data, features, env, agent, seed."""
        return {
            **({"warm_start": self.config.warm_start} if self.config.warm_start else {}),
            "data_hash": self.data.content_hash,
            "features": self.pipeline.state()["names"],
            "env": to_flat(self.env_config),
            "sac": to_flat(self.sac_config),
            "agent_id": self.agent_id,
            "seed": self.seed,
            "num_envs": self.config.num_envs,
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
        if self.config.warm_start and self.loop.env_steps == 0:
            self.agent.load_weights(output_layout.warm_start_file(self.config.warm_start))
            logger.info("starting from the weights of agent %s", self.config.warm_start[:12])
        if self.loop.env_steps < self._expected_env_steps:
            msg = (
                f"This run must continue from step {self._expected_env_steps:,}, but its state is at step "
                f"{self.loop.env_steps:,}. Attach the newest version of the state dataset. Nothing was trained."
            )
            raise CheckpointError(msg)

    def _resume_mounted(self) -> None:
        """Continue from the state dataset of an earlier session, unless every job in it is done.

        A finished job of an unfinished queue is restored too, to be judged with the others.
        """
        root, job = paths.paths().input_root, output_layout.job_name(self.agent_id, self.seed)
        indexes = (
            paths.input_files(root, checkpoint.EXPORT_INDEX) if root and self.config.resume == "auto" else []
        )
        for index in indexes[:1]:
            jobs = checkpoint.exported_facts(index)
            with checkpoint.restoring(index):
                over = all(f["finished"] and f["episodes"] >= self.config.num_episodes for f in jobs.values())
            if job in jobs and not over:
                self._restore(index.parent, *checkpoint.load_exported(index, job))

    def _restore(self, folder: Path, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        with checkpoint.restoring(folder):
            checkpoint.check_identity(facts["learning"], self.learning_identity, f"{folder}: resume")
            if facts["environment"] != _environment():
                logger.warning("Other package versions, processor or threads: results are not bit-equal.")
            if facts["code_hash"] != self.agent.context["code_hash"]:
                logger.warning("The state was written by other code.")
            self.agent.restore(state["agent"])
            self.loop.obs = self.env.restore(checkpoint.env_from_plain(state["env"]))
            self.loop.env_steps, self.loop.owed = int(state["env_steps"]), float(state["owed"])
            self.loop.rng = checkpoint.rng_from_text(state["loop_rng"])
            self.stats = {key: list(values) for key, values in state["stats"].items()}
            self._partial = dict(state["partial"])
            self._scores, self._best_score = list(state["scores"]), state["best_score"]
            self._best, self._train_s = state["best"], float(state["train_s"])
            self._schedule_episodes = int(state["schedule_episodes"])
            if self.stats.keys() != set(STATS_KEYS) or len({len(v) for v in self.stats.values()}) != 1:
                raise KeyError(*self.stats)
            if {name: type(value) for name, value in self._partial.items()} != _PARTIAL_TYPES:
                raise KeyError(*self._partial)
        logger.info("resumed from %s at episode %d, step %d", folder, self._done, self.loop.env_steps)

    def _save_state(self, *, finished: bool) -> None:
        state = {
            "agent": self.agent.training_state(),
            "env": checkpoint.env_to_plain(self.env.state()),
            "env_steps": self.loop.env_steps,
            "owed": self.loop.owed,
            "loop_rng": checkpoint.rng_to_text(self.loop.rng.bit_generator.state),
            "stats": self.stats,
            "partial": self._partial,
            "scores": self._scores,
            "best_score": self._best_score,
            "best": self._best,
            "train_s": self._train_s,
            "schedule_episodes": self._schedule_episodes,
        }
        facts = {
            "learning": self.learning_identity,
            "run": self.run_identity,
            "code_hash": self.agent.context["code_hash"],
            "environment": _environment(),
            "episodes": self._done,
            "env_steps": self.loop.env_steps,
            "updates": self.agent.updates,
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
        length = self.env_config.episode_length
        total = self.config.num_episodes * length
        progress = Progress(logger, "training steps", total, self.loop.env_steps)
        saved_s = time.monotonic()
        while self._done < self.config.num_episodes and not self._deadline.passed():
            if self._partial["steps"] < length:
                self._advance()
            if self._partial["steps"] >= length:
                try:
                    self._end_episode()
                except TimeUpError:
                    logger.info("Stopped in a validation pass. The next run repeats it.")
                    break
            elif time.monotonic() - saved_s > STATE_INTERVAL_S:
                self._save_state(finished=False)
                saved_s = time.monotonic()
            note = f"| {self.agent.updates:,} updates, {self.agent.updates / max(self._train_s, 1e-9):.0f}/s"
            progress.update(self.loop.env_steps, note)
        progress.close()

    def _advance(self) -> None:
        """Do one vector step and count it."""
        started_s = time.monotonic()
        rewards = self.loop.advance()
        self._train_s += time.monotonic() - started_s
        self._partial["steps"] += self.config.num_envs
        self._partial["reward"] += float(rewards.sum())
        self._partial["abs_action"] += self.loop.abs_action

    def _end_episode(self) -> None:
        """Validate if due and record the episode; if time runs out, nothing has changed."""
        p, length = self._partial, self.env_config.episode_length
        evaluated: runner.EpisodeResult | None = None
        episode = self._done + 1
        self.agent.check_finite()
        if episode % self.config.eval_frequency == 0 or episode == self.config.num_episodes:
            evaluated = self._evaluate()
        updates = self.agent.updates - p["updates"]
        means = self.agent.pop_metrics(updates)
        row = evaluated.row() if evaluated else {}
        values = {
            "episode_rewards": p["reward"],
            "episode_lengths": p["steps"],
            "eval_rewards": evaluated.log_growth / len(evaluated.equity) * length if evaluated else None,
            "eval_sharpes": row.get("sharpe_ann"),
            "eval_drawdowns": row.get("max_drawdown_frac"),
            "actor_losses": means["actor_loss"],
            "critic_losses": means["critic_loss"],
            "alpha_values": means["alpha"],
            "entropies": means["entropy"],
            "q_values": means["q_mean"],
            "mean_abs_actions": p["abs_action"] / p["steps"] * self.config.num_envs,
            "updates": updates,
        }
        for key, value in values.items():
            self.stats[key].append(value)
        self._partial = {"steps": 0, "reward": 0.0, "abs_action": 0.0, "updates": self.agent.updates}
        if evaluated:
            self._select(evaluated)
            self._enter_trial(evaluated, episode)
        logger.info("%s", _episode_line(episode, self.config.num_episodes, values))
        if episode % self.config.checkpoint_frequency == 0:
            self._write_checkpoint(episode, values)

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

    def _select(self, result: runner.EpisodeResult) -> None:
        """Keep the agent if the mean of the last evaluations is the highest so far.

        An untrained agent is flat and would win on many markets by doing nothing.
        """
        if self.agent.updates == 0:
            return
        self._scores = [*self._scores, result.log_growth / len(result.equity)][-SELECTION_WINDOW:]
        score = float(np.mean(self._scores))
        if self._best_score is None or score > self._best_score:
            self._best_score, self._best = score, self.agent.content()
            files.write_bytes(self._agent_path(Form.BEST), files.pt_bytes(self._best))

    def _write_checkpoint(self, episode: int, values: Mapping[str, Any]) -> None:
        folder = self.folder / "checkpoints"
        self.agent.save(folder / f"agent_{self.agent_id}_ep{episode}.pt")
        facts = {"episode": episode, "env_steps": self.loop.env_steps, "total_updates": self.agent.updates}
        files.write_json(folder / f"metrics_ep{episode}.json", {**facts, **values})
        self._write_logs()
        if episode < self.config.num_episodes:  # the last state is saved when training is finished
            self._save_state(finished=False)

    def _write_logs(self) -> None:
        files.write_json(self.folder / "logs" / "training_stats.json", self.stats)
        arrays = {key: np.asarray(values, np.float64) for key, values in self.stats.items()}
        files.write_npz(self.folder / "logs" / "training_stats.npz", arrays)

    def _finish_training(self) -> FinishedJob:
        if self._best is None:  # stopped before the first evaluation
            self._best = self.agent.content()
        # After a resume from another folder, the file is missing.
        files.write_bytes(self._agent_path(Form.BEST), files.pt_bytes(self._best))
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
            "env_steps": self.loop.env_steps,
            "updates": self.agent.updates,
            "utd_ratio": self.sac_config.utd_ratio,
            "updates_per_s": self.agent.updates / seconds,
            "env_steps_per_s": self.loop.env_steps / seconds,
            "train_s": self._train_s,
            "data_hash": self.data.content_hash,
            "code_hash": self.agent.context["code_hash"],
            "config_hash": files.content_hash(self.learning_identity),
            "forecast": self.forecast_facts,
            "sac_config": to_flat(self.sac_config),
            "env_config": to_flat(self.env_config),
        }

    def _log_header(self) -> None:
        c = self.sac_config
        logger.info(
            "agent %d (%s), seed %d, %s | state %d, nets %s, batch %d, gamma %g, %g updates per env step, %d envs",
            self.agent_id, AGENT_PRESETS[self.agent_id].label, self.seed, self.device, c.state_dim,
            "x".join(map(str, c.hidden_dims)), c.batch_size, c.gamma, c.utd_ratio, self.config.num_envs,
        )  # fmt: skip


def _environment() -> dict[str, Any]:
    import torch

    return {**packages.versions(), "threads": torch.get_num_threads()}


def _data_line(data: ProcessedData, instrument: str) -> str:
    counts = ", ".join(f"{name} {len(split[instrument]):,}" for name, split in data.splits.items())
    minutes = data.bar_seconds / 60
    return f"{instrument} {minutes:g}-minute {data.price_side} bars: {counts}; hash {data.content_hash[:12]}"


def _episode_line(episode: int, total: int, values: Mapping[str, Any]) -> str:
    line = f"episode {episode}/{total}: reward {values['episode_rewards']:+.4f}"
    if values["critic_losses"] is not None:
        line += (
            f", critic loss {values['critic_losses']:.3f}, actor loss {values['actor_losses']:+.3f}"
            f", alpha {values['alpha_values']:.4f}, entropy {values['entropies']:+.2f}"
        )
    if values["eval_rewards"] is not None:
        line += f" | validation reward {values['eval_rewards']:+.4f}"
    return line
