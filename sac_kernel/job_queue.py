"""The queue of a run: one job for each agent and seed, trained, judged and reported together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sac_kernel import job_outputs
from sac_kernel.runtime import Deadline
from sac_kernel.train_sac_kaggle import KaggleTrainer

if TYPE_CHECKING:
    from sac_kernel.run_config import RunConfig


def job_trainer(
    config: RunConfig, agent_id: int, seed: int, deadline: Deadline | None = None
) -> KaggleTrainer:
    """Return the trainer of one job of a run."""
    return KaggleTrainer(
        h5_path=config.h5_path or None,
        output_dir=job_outputs.job_folder(config.top_folder, agent_id, seed, len(config.jobs)),
        num_episodes=config.num_episodes,
        eval_frequency=config.eval_frequency,
        checkpoint_frequency=config.checkpoint_frequency,
        agent_id=agent_id,
        device=config.device,
        seed=seed,
        sac_config=config.sac_config(agent_id),
        env_config=config.env_config(agent_id),
        num_envs=config.num_envs,
        time_budget_s=config.time_budget_h * 3600.0,
        resume=config.resume,
        deadline=deadline,
        expect_data_hash=config.expect_data_hash,
        expect_env_steps=dict(zip(config.jobs, config.expect_env_steps, strict=False)).get(
            (agent_id, seed), 0
        ),
    )


def run_jobs(config: RunConfig, trainers: list[KaggleTrainer] | None = None) -> list[KaggleTrainer]:
    """Train every (agent, seed) of `config` in turn, judge them and write one report at the top.

    Returns the trainers in order, each with `stats` and `judgement`; the first has the `summary`.
    """
    if trainers is None:
        clock = Deadline(config.time_budget_h * 3600.0)
        trainers = [job_trainer(config, agent_id, seed, clock) for agent_id, seed in config.jobs]
    jobs, judgements = [], []
    for trainer in trainers:
        trainer.job = trainer.train()
        trainer.judgement = trainer.judge(trainer.job)
        jobs.append(trainer.job)
        judgements.append(trainer.judgement)
    trainers[0].summary = job_outputs.finish_outputs(config.top_folder, jobs, trainers[0].data, judgements)
    return trainers
