"""The account's checked configuration, and the terms that the bar engine reads.

This module never imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.core.renamed import current_value, renamed_arguments
from sac_kernel.market.records import Reward, Terms, blank
from sac_kernel.prices import costs
from sac_kernel.prices.bars import PRICE_SIDES

if TYPE_CHECKING:
    from collections.abc import Callable

RENAMED_REWARDS = {"expected": "denoised"}
REWARDS = tuple(kind.name.lower() for kind in Reward)
OBSERVES = ("account", "target")

_ESMA_MAX_LEVERAGE = 30.0
_CLOSE_OUT_SHARE = 0.5  # of the minimum margin (ESMA): equity below notional / 60 is closed out

_PATH_LIMITS = ("stop_loss_bps", "take_profit_bps", "daily_loss_limit", "drawdown_stop", "kill_loss")
"""Limits that end a position along the path of prices."""

_SHARES = ("daily_loss_limit", "drawdown_stop", "kill_loss", "atr_risk", "no_trade_band")
_NOT_NEGATIVE = ("volatility_target", "impact", "risk_aversion", "drawdown_pause_days")
_POSITIVE = ("initial_equity", "daily_volume", "atr_multiple", "atr_window_min")
_BOUNDS: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (("stop_loss_bps", "take_profit_bps"), "in [0, 10000)", lambda value: 0 <= value < 1e4),
    (_SHARES, "in [0, 1)", lambda value: 0 <= value < 1),
    (_NOT_NEGATIVE, ">= 0", lambda value: 0 <= value < math.inf),
    (_POSITIVE, "> 0", lambda value: 0 < value < math.inf),
    (("sharpe_rate",), "in (0, 1)", lambda value: 0 < value < 1),
)


@renamed_arguments(min_order="no_trade_band")
@dataclass(frozen=True)
class TradingEnvConfig:
    """The account and the episode; names carry their unit.

    Attributes
    ----------
    cost_tier : raw, base or retail: the costs of every fill. See `prices.costs.COST_TIERS`
    exposure_cap : notional over equity at a full position, |action| of 1; 30 is the legal bound for majors
    no_trade_band : share of the cap; smaller changes of the target are ignored; 0 is off. A Gaussian policy never
        repeats an action exactly, and every small change pays costs
    decision_interval_min : minutes between decisions; 0 is every bar. A multiple of the bar
    episode_lengths : environment steps that count as one episode. A tuple of one value
    horizon : bars until truncation; None takes the episode length
    swap_long_bps : of notional, paid per night by a long position; negative is received
    swap_short_bps : of notional, paid per night by a short position; negative is received. Both sides pay by
        default, because the sign of the carry changes over the years: set your broker's rates
    stop_loss_bps : distance of a stop from the entry price; 0 is off
    take_profit_bps : distance of a take-profit order from the entry price; 0 is off
    random_start_position : training episodes start at a random exposure, to cover the position axis
    initial_equity : account currency (the quote currency)
    price_side : 'bid', 'ask' or 'mid', for bars that do not say it; None takes the side that `Bars` carry
    volatility_target : annualised volatility of a full position, 0.1 is 10 %; 0 is off. The size
        follows from the volatility at the close before the fill, up to the cap; a held position is not resized
    atr_risk, atr_multiple, atr_window_min : at |action| = 1 a move of `atr_multiple` ATRs (Wilder, over the
        window) loses `atr_risk` of equity; 0 is off; with a volatility target the smaller size counts
    daily_loss_limit : loss of a day, a fraction of equity, after which the account is flat until 17:00 New York;
        0 is off. This limit and the next two are checked at each close; the account is flattened at the next open
        (`market.risk_limits`)
    drawdown_stop : drawdown, a fraction of equity, after which the account is flat for a week; 0 is off. The week is
        `drawdown_pause_days`
    drawdown_pause_days : calendar days
    kill_loss : loss, a fraction of equity, after which the account is flat for the rest of the episode; 0 is off
    impact : market impact of a fill by the square-root law; 0 is off, 1 the usual order of magnitude. Slippage
        grows by impact x daily volatility x sqrt(units / daily_volume) (Toth et al. 2011, arXiv:1105.1694)
    daily_volume : units of the base currency; 1.5e12 is EURUSD's (BIS triennial survey 2022: USD 1.7 trillion a day)
    reward : denoised, log_return, mean_variance or differential_sharpe. 'log_return' is R, the change of log equity;
        'mean_variance' R - risk_aversion / 2 R^2; 'differential_sharpe' see `engine.differential_sharpe`, whose
        state is observed; 'denoised' R with the market profit replaced by its forecast (`prepare_market`)
    risk_aversion : lambda of the mean-variance reward
    sharpe_rate : eta of the differential Sharpe ratio, 1 / (decisions in its memory)
    observes : account or target. 'account' is position, open profit and holding time; 'target' is the last filled
        target, with cost and possibility of the next fill (`market.DECISION_FEATURES`), which exact SAC acts on
    """

    cost_tier: str = "base"
    exposure_cap: float = 1.0
    no_trade_band: float = 0.0
    decision_interval_min: int = 0
    episode_lengths: tuple[int, ...] = (3000,)
    horizon: int | None = None
    swap_long_bps: float = 0.6
    swap_short_bps: float = 0.3
    stop_loss_bps: float = 0.0
    take_profit_bps: float = 0.0
    random_start_position: bool = True
    initial_equity: float = 100_000.0
    price_side: str | None = None
    volatility_target: float = 0.0
    atr_risk: float = 0.0
    atr_multiple: float = 2.0
    atr_window_min: int = 840
    daily_loss_limit: float = 0.0
    drawdown_stop: float = 0.0
    drawdown_pause_days: int = 7
    kill_loss: float = 0.0
    impact: float = 0.0
    daily_volume: float = 1.5e12
    reward: str = "log_return"
    risk_aversion: float = 1.0
    sharpe_rate: float = 0.01
    observes: str = "account"

    def __post_init__(self) -> None:
        where = "TradingEnvConfig"
        object.__setattr__(self, "episode_lengths", tuple(self.episode_lengths))
        object.__setattr__(self, "cost_tier", current_value(where, self.cost_tier, costs.RENAMED_TIERS))
        object.__setattr__(self, "reward", current_value(where, self.reward, RENAMED_REWARDS))
        tiers = costs.COST_TIERS
        require(
            self.cost_tier in tiers, where, f"cost_tier must be one of {', '.join(tiers)}", self.cost_tier
        )
        in_bounds = 0 < self.exposure_cap <= _ESMA_MAX_LEVERAGE
        require(in_bounds, where, "exposure_cap must be in (0, 30]", self.exposure_cap)
        interval = self.decision_interval_min
        require(interval >= 0, where, "decision_interval_min must be >= 0", interval)
        single = len(self.episode_lengths) == 1 and self.episode_lengths[0] > 0
        require(single, where, "episode_lengths must hold one positive number", list(self.episode_lengths))
        require(self.horizon is None or self.horizon > 0, where, "horizon must be > 0 bars", self.horizon)
        require(self.reward in REWARDS, where, f"reward must be one of {', '.join(REWARDS)}", self.reward)
        require(self.observes in OBSERVES, where, f"observes must be {' or '.join(OBSERVES)}", self.observes)
        for names, bounds, inside in _BOUNDS:
            for name in names:
                value = getattr(self, name)
                require(inside(value), where, f"{name} must be {bounds}", value)
        if self.reward == "denoised":
            self._check_denoised()
        known = self.price_side is None or self.price_side in PRICE_SIDES
        require(known, where, "price_side must be bid, ask or mid", self.price_side)

    def _check_denoised(self) -> None:
        """Refuse limits that end a position inside a bar: the bar would not pay the return that is forecast."""
        for name in _PATH_LIMITS:
            required = f"reward 'denoised' needs {name} = 0, because otherwise the price path decides what a bar pays"
            require(getattr(self, name) == 0, "TradingEnvConfig", required, getattr(self, name))
        required = "reward 'denoised' needs exposure_cap <= 1, so that no margin close-out ends a position inside a bar"
        require(self.exposure_cap <= 1, "TradingEnvConfig", required, self.exposure_cap)

    def with_denoised_reward(self) -> TradingEnvConfig:
        """Return this config with reward 'denoised', or itself if the price path decides what a bar pays."""
        path_decides = self.exposure_cap > 1 or any(getattr(self, name) for name in _PATH_LIMITS)
        return self if path_decides else dataclasses.replace(self, reward="denoised")

    @property
    def episode_length(self) -> int:
        """Return the steps of experience that count as one episode."""
        return self.episode_lengths[0]

    @property
    def horizon_bars(self) -> int:
        """Return the bars until truncation in training."""
        return self.horizon or self.episode_length


def account_terms(config: TradingEnvConfig, side: str, bar_seconds: int, *, close_at_end: bool) -> Terms:
    """Return the terms that the engine trades under; `side` is the price side of the bars.

    Raises
    ------
    DataError
        If the decision interval is not a multiple of the bar.
    """
    interval_s = config.decision_interval_min * 60 or bar_seconds
    if interval_s % bar_seconds:
        msg = (
            f"TradingEnvConfig: decision_interval_min must be a multiple of the bar ({bar_seconds / 60:g} min), "
            f"got {config.decision_interval_min}"
        )
        raise DataError(msg)
    factor = costs.COST_TIERS[config.cost_tier]
    terms = blank(Terms)
    terms.price_side = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]
    terms.exposure_cap = config.exposure_cap
    terms.commission = costs.COMMISSION_BPS * factor * 1e-4
    terms.slippage = costs.SLIPPAGE_BPS * factor * 1e-4
    terms.swap_long, terms.swap_short = config.swap_long_bps * 1e-4, config.swap_short_bps * 1e-4
    terms.stop_loss, terms.take_profit = config.stop_loss_bps * 1e-4, config.take_profit_bps * 1e-4
    terms.close_out_margin = _CLOSE_OUT_SHARE / _ESMA_MAX_LEVERAGE
    terms.no_trade_band = config.no_trade_band
    terms.interval_bars = interval_s // bar_seconds
    terms.close_at_end = float(close_at_end)
    terms.bars_per_day = max(1, 86_400 // bar_seconds)
    terms.impact = config.impact / math.sqrt(config.daily_volume)
    terms.daily_loss_limit, terms.drawdown_stop = config.daily_loss_limit, config.drawdown_stop
    terms.kill_loss, terms.drawdown_pause_days = config.kill_loss, config.drawdown_pause_days
    terms.reward = Reward[config.reward.upper()]
    if close_at_end and config.reward == "denoised":
        terms.reward = Reward.LOG_RETURN
    terms.risk_aversion, terms.sharpe_rate = config.risk_aversion, config.sharpe_rate
    terms.observes_target = float(config.observes == "target")
    return terms
