"""Signs of a sick training, on curves made by hand: each is found where it is, and nowhere else."""

import numpy as np
import pytest

from sac_kernel.report.training_health import examine, in_words
from tests.support import told

EPISODES = 60
TARGET = list(np.linspace(-1.0, -2.5, EPISODES))


def curves(**changed):
    """A healthy run: reward rises in noise, entropy follows its target, values settle."""
    rng = np.random.default_rng(0)
    t = np.arange(EPISODES)
    stats = {
        "episode_rewards": 0.01 * (1 - np.exp(-t / 15)) + rng.normal(0, 0.003, EPISODES),
        "critic_losses": 0.1 + np.exp(-t / 10),
        "alpha_values": 0.02 + 0.05 * np.exp(-t / 10),
        "entropies": np.array(TARGET) + rng.normal(0, 0.05, EPISODES),
        "q_values": 3.0 * (1 - np.exp(-t / 12)),
        "mean_abs_actions": np.full(EPISODES, 0.6),
    }
    stats |= changed
    return {key: [None, *list(values)[1:]] for key, values in stats.items()}  # before the first update


def signs(**changed):
    return [finding.sign.split(":")[0] for finding in examine(curves(**changed), TARGET)]


def test_a_healthy_run_has_no_finding():
    assert examine(curves(), TARGET) == []
    assert len(in_words([]).splitlines()) == 1


def test_a_reward_that_falls_beyond_its_noise_is_a_collapse_and_within_it_is_not():
    noise = np.random.default_rng(1).normal(0, 0.003, EPISODES)
    fall = np.where(np.arange(EPISODES) < 40, 0.01, -0.02)
    assert signs(episode_rewards=fall + noise) == ["Reward collapse"]
    assert signs(episode_rewards=0.1 * fall + noise) == []
    (found,) = examine(curves(episode_rewards=fall), TARGET)
    assert told(found.sign, "11 episodes", "-0.02", "+0.01")  # 59 // 5


@pytest.mark.parametrize(
    ("gap", "alpha_end", "words"),
    [
        (1.0, 0.02, ["1.0 nats above", "small"]),
        (-1.0, 0.02, ["1.0 nats below", "large"]),
        (1.0, 0.01, ["above", "falling", "episodes"]),
        (-1.0, 0.04, ["below", "rising", "episodes"]),
    ],
)
def test_entropy_away_from_its_target_says_why(gap, alpha_end, words):
    alpha = np.concatenate((np.full(EPISODES - 20, 0.02), np.geomspace(0.02, alpha_end, 20)))
    (found,) = examine(curves(entropies=np.array(TARGET) + gap, alpha_values=alpha), TARGET)
    assert told(found, *words)


def test_values_that_run_away_are_drift_and_values_that_settle_are_not():
    t = np.arange(EPISODES)
    assert signs(q_values=np.exp(t / 10)) == ["Q drift"]
    assert signs(q_values=-np.exp(t / 10)) == ["Q drift"]
    assert signs(q_values=100.0 * (1 - np.exp(-t / 10))) == []
    assert signs(q_values=0.001 * np.exp(t / 10)) == []  # below one scaled reward


@pytest.mark.parametrize(("size", "word"), [(0.99, "saturated"), (0.01, "hardly trades"), (0.9, None)])
def test_actions_at_the_cap_or_at_zero(size, word):
    found = examine(curves(mean_abs_actions=np.full(EPISODES, size)), TARGET)
    assert [word] * len(found) == [word for f in found if word in f.sign] if word else found == []
    assert len(found) == (word is not None)


def test_exact_sac_may_be_at_its_bounds_but_not_idle():
    assert examine(curves(mean_abs_actions=np.ones(EPISODES))) == []
    assert len(examine(curves(mean_abs_actions=np.zeros(EPISODES)))) == 1


def test_too_few_episodes_are_not_called_healthy():
    short = {key: values[:9] for key, values in curves(q_values=np.exp(np.arange(EPISODES))).items()}
    (finding,) = examine(short, TARGET[:9])
    assert told(finding.sign, 10, int(np.isfinite(np.asarray(short["critic_losses"], float)).sum()))


def test_findings_are_one_line_each():
    found = examine(
        curves(q_values=np.exp(np.arange(EPISODES) / 5), mean_abs_actions=np.ones(EPISODES)), TARGET
    )
    assert len(in_words(found).splitlines()) == len(found) == 2
