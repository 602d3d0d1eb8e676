"""Find signs of trouble in training curves: the sign, its usual cause, what to do.

Pure functions of `training_stats` (one value per episode or None). Signs at the end of a run are measured
against its own noise; a healthy run has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.core import strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MIN_EPISODES = 10
"""With updates; fewer are not examined, which is the only finding."""

ERRORS = 4.0
"""Fall of the training reward that counts as a collapse, in standard errors."""

ENTROPY_GAP = 0.4
"""Nats from the target entropy that count as stuck: actions spread a half wider or narrower."""

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


def examine(
    stats: Mapping[str, Sequence[Any]], target_entropy: Sequence[float] | None = None
) -> list[Finding]:
    """Return what is wrong with a training, most serious first; empty if nothing is.

    Parameters
    ----------
    stats : `episode_rewards`, `critic_losses`, `alpha_values`, `entropies`, `q_values`, `mean_abs_actions`
    target_entropy : nats, one per episode; None for exact SAC, whose temperature is fixed
    """
    learnt = np.isfinite(_numbers(stats["critic_losses"]))
    if learnt.sum() < MIN_EPISODES:
        return [_finding(strings.NOT_EXAMINED, required=MIN_EPISODES, found=int(learnt.sum()))]
    curves = {key: _numbers(values)[learnt] for key, values in stats.items() if key in _USED}
    stuck = None
    if target_entropy is not None:
        gap = curves["entropies"] - np.asarray(target_entropy, np.float64)[learnt]
        stuck = _stuck(gap, curves["alpha_values"])
    findings = (
        _drift(curves["q_values"]),
        _collapse(curves["episode_rewards"]),
        stuck,
        _action(curves["mean_abs_actions"], exact=target_entropy is None),
    )
    return [finding for finding in findings if finding]


def in_words(findings: Sequence[Finding]) -> str:
    """Return one line per finding, or one that there is none."""
    return "\n".join(map(str, findings)) or strings.HEALTHY


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
    return _finding(strings.COLLAPSE, window=window, last=means[-1], top=means[:-window].max())


def _stuck(gap: FloatArray, alpha: FloatArray) -> Finding | None:
    part = gap[-max(5, gap.size // 4) :]
    mean = float(part.mean())
    if abs(mean) < ENTROPY_GAP or np.abs(part).min() < ENTROPY_GAP / 2.0:
        return None
    moving = alpha[-1] < 0.9 * alpha[-part.size] if mean > 0 else alpha[-1] > 1.1 * alpha[-part.size]
    if mean > 0:
        why = strings.STILL_FALLING if moving else strings.SMALL_REWARDS
        return _finding((strings.STUCK_ABOVE, *why), gap=mean)
    why = strings.STILL_RISING if moving else strings.LARGE_REWARDS
    return _finding((strings.STUCK_BELOW, *why), gap=-mean)


def _drift(q: FloatArray) -> Finding | None:
    quarter = q.size // 4
    late, before = np.abs(q[-quarter:]), np.abs(q[-2 * quarter : -quarter])
    now, then = float(np.median(late)), float(np.median(before))
    grows = late.min() > before.max()
    if not grows or now < DRIFT_RATIO * then or now < 1.0:
        return None
    return _finding(strings.Q_DRIFT, then=then, now=now)


def _action(size: FloatArray, *, exact: bool) -> Finding | None:
    mean = float(size[-max(5, size.size // 4) :].mean())
    if mean > SATURATED and not exact:  # exact SAC does not explore; a policy at its bounds may be the best
        return _finding(strings.ACTIONS_SATURATED, mean=mean)
    return _finding(strings.HARDLY_TRADES, mean=mean) if mean < IDLE else None


def _finding(texts: tuple[str, str, str], **numbers: float) -> Finding:
    return Finding(*(text.format(**numbers) for text in texts))


def _numbers(values: Sequence[Any]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], np.float64)
