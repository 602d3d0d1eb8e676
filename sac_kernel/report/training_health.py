"""What the curves of a training say, in plain words: the sign, its usual cause, what to do.

Pure functions of `training_stats` (one value an episode, None where there is none). Signs are looked for at
the end of a run, against its own noise; a healthy run has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MIN_EPISODES = 10
"""With updates; fewer say nothing."""

ERRORS = 4.0
"""Standard errors by which the training reward must have fallen to count as a collapse."""

ENTROPY_GAP = 0.4
"""Nats between entropy and its target that count as stuck: a spread of actions a half larger or smaller."""

DRIFT_RATIO = 2.0
"""Growth of |Q| from the third to the last quarter of a run that counts as drift."""

SATURATED, IDLE = 0.97, 0.03
"""Mean |action| in training, exploration included."""


class Finding(NamedTuple):
    """One sign of trouble."""

    sign: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        """Return the three in a row."""
        return f"{self.sign} {self.cause} {self.remedy}"


def examine(stats: Mapping[str, Sequence[Any]], target_entropy: Sequence[float]) -> list[Finding]:
    """Return what is wrong with a training, most serious first; empty if nothing is.

    Parameters
    ----------
    stats : `episode_rewards`, `critic_losses`, `alpha_values`, `entropies`, `q_values`, `mean_abs_actions`
    target_entropy : nats, one an episode
    """
    learnt = np.isfinite(_numbers(stats["critic_losses"]))
    if learnt.sum() < MIN_EPISODES:
        return []
    curves = {key: _numbers(values)[learnt] for key, values in stats.items() if key in _USED}
    gap = curves["entropies"] - np.asarray(target_entropy, np.float64)[learnt]
    found = (
        _drift(curves["q_values"]),
        _collapse(curves["episode_rewards"]),
        _stuck(gap, curves["alpha_values"]),
        _action(curves["mean_abs_actions"]),
    )
    return [finding for finding in found if finding]


def in_words(findings: Sequence[Finding]) -> str:
    """Return one line a finding, or one that says there is none."""
    return "\n".join(map(str, findings)) or "No sign of trouble in the training curves."


_USED = ("episode_rewards", "alpha_values", "entropies", "q_values", "mean_abs_actions")


def _collapse(reward: FloatArray) -> Finding | None:
    window = max(5, reward.size // 5)
    if reward.size < 2 * window:
        return None
    means = np.convolve(reward, np.full(window, 1.0 / window), "valid")
    # Neighbouring episodes differ by noise alone, as the policy changes slowly.
    error = float(np.diff(reward).std()) / np.sqrt(2.0) * np.sqrt(2.0 / window)
    fall = float(means[:-window].max() - means[-1])
    if fall <= ERRORS * error or fall <= 0.0:
        return None
    return Finding(
        f"Reward collapse: the mean training reward of the last {window} episodes is {means[-1]:+.4g}, down "
        f"from {means[:-window].max():+.4g}.",
        "The critic has begun to fit noise of the bars in its replay, or its values have run away.",
        "Judge agent_*_best.pt beside the final one; train with env_reward = 'denoised', a lower "
        "sac_learning_rate or more bars.",
    )


def _stuck(gap: FloatArray, alpha: FloatArray) -> Finding | None:
    part = gap[-max(5, gap.size // 4) :]
    mean = float(part.mean())
    if abs(mean) < ENTROPY_GAP or np.abs(part).min() < ENTROPY_GAP / 2.0:
        return None
    side = "above" if mean > 0 else "below"
    moving = alpha[-1] < 0.9 * alpha[-part.size] if mean > 0 else alpha[-1] > 1.1 * alpha[-part.size]
    sign = f"Entropy is stuck {abs(mean):.1f} nats {side} its target."
    if moving:
        falls = "falling" if mean > 0 else "rising"
        return Finding(
            sign, f"The temperature alpha is still {falls}: the run is too short.", "Train more episodes."
        )
    if mean > 0:
        return Finding(
            sign,
            "No action is worth more than another by as much as the temperature: rewards are small in its unit.",
            "Leave reward_scale unset, so that it is taken from the bars; if it is, there may be nothing to learn.",
        )
    return Finding(
        sign,
        "Differences between actions outweigh the temperature: rewards are large in its unit.",
        "Leave reward_scale unset, so that it is taken from the bars, or lower sac_learning_rate.",
    )


def _drift(q: FloatArray) -> Finding | None:
    quarter = q.size // 4
    late, before = np.abs(q[-quarter:]), np.abs(q[-2 * quarter : -quarter])
    now, then = float(np.median(late)), float(np.median(before))
    grows = late.min() > before.max()
    if not grows or now < DRIFT_RATIO * then or now < 1.0:
        return None
    return Finding(
        f"Q drift: the mean value went from {then:.3g} to {now:.3g} (scaled reward) in the last quarter of the run.",
        "The critics feed on their own estimates faster than on rewards.",
        "Lower sac_gamma or sac_learning_rate; do not trust the final agent.",
    )


def _action(size: FloatArray) -> Finding | None:
    mean = float(size[-max(5, size.size // 4) :].mean())
    if mean > SATURATED:
        return Finding(
            f"Actions are saturated: the mean |action| is {mean:.2f}.",
            "The policy is at full exposure whatever it sees; exploration has all but ended.",
            "Look at the exposure figure: a position that never changes was not learnt. Lower reward_scale.",
        )
    if mean < IDLE:
        return Finding(
            f"The agent hardly trades: the mean |action| is {mean:.3f}.",
            "Nothing that it sees pays its costs.",
            "That may be the right answer; a longer env_decision_interval_min or cheaper costs would change it.",
        )
    return None


def _numbers(values: Sequence[Any]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], np.float64)
