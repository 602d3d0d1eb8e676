"""Horizons that can earn their costs back: what a forecast must be worth at each preset's horizon."""

from __future__ import annotations

import math

from sac_kernel.experiment.run_config import AGENT_PRESETS
from sac_kernel.prices.costs import COST_TIERS, normal_one_way_bps


def horizons(bar_minutes: int = 5) -> list[str]:
    """Return a Markdown table of the information coefficient at which each preset breaks even.

    A position is held for the discount's horizon, 1 / (1 - gamma) decisions (`break_even_ic`).
    """
    tiers = list(COST_TIERS)
    head = [
        "agent",
        "decides every [min]",
        "gamma",
        "looks ahead [h]",
        *(f"IC at {tier} costs" for tier in tiers),
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for agent_id, preset in AGENT_PRESETS.items():
        interval = preset.decision_interval_min or bar_minutes
        ahead = interval / (1.0 - preset.gamma)
        needed = (f"{break_even_ic(ahead, tier):.3f}" for tier in tiers)
        cells = [
            f"{agent_id} {preset.label}",
            str(interval),
            f"{preset.gamma:g}",
            f"{ahead / 60:.1f}",
            *needed,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def break_even_ic(minutes: float, tier: str, annual_volatility: float = 0.08) -> float:
    """Return the information coefficient at which a bet held for `minutes` just pays its costs.

    A bet on the sign of a normal forecast earns IC x E|z| x sigma x sqrt(time), E|z| = .798, and pays one round
    trip in normal hours. Above 1 no forecast is good enough.

    Parameters
    ----------
    minutes : holding time, in trading time (252 days of 24 hours a year)
    tier : of `COST_TIERS`
    annual_volatility : fraction; 0.08 is typical of EURUSD
    """
    round_trip = 2e-4 * normal_one_way_bps(tier)
    move = annual_volatility * math.sqrt(minutes / (252 * 1440))
    return round_trip / (math.sqrt(2.0 / math.pi) * move)
