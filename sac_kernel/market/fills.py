"""The fills of a pass: the engine's own bars, replayed with a note of every trade and its profit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba

from sac_kernel.market.engine import exits, finish_bar, open_bar, target_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sac_kernel.market.records import Account, Fill, Records, Terms

    FloatArray = NDArray[np.float64]

_jit = numba.njit(cache=True, fastmath=False, error_model="numpy")


@_jit
def _note(account: Account, before: Account, carried: float, t: int, place: float, out: Fill) -> float:
    """Write the fill between two states of an account; return the costs carried by the position left open.

    `before` is the account after its last fill; its entry price and units are those of the position since then.
    `carried` is that position's commission and swap before it.
    """
    held, change = before.units, account.units - before.units
    size = abs(change)
    commission = account.commission_paid - before.commission_paid
    swap = account.swap_paid - before.swap_paid
    out.t, out.place, out.units, out.position = t, place, change, account.units
    out.price = (before.cash - account.cash - commission - swap) / change
    out.cost = (
        account.spread_paid + account.slippage_paid - before.spread_paid - before.slippage_paid + commission
    )
    out.closed = min(abs(held), size) if held * change < 0.0 else 0.0
    carried += swap
    if out.closed == 0.0:
        out.profit = out.bars_held = 0.0
        return carried + commission
    sign = 1.0 if held > 0.0 else -1.0
    share, own = out.closed / abs(held), commission * out.closed / size
    out.profit = sign * out.closed * (out.price - before.entry_price) - share * carried - own
    return carried * (1.0 - share) + commission - own


@_jit
def _copy(account: Account, before: Account) -> None:
    before.units, before.cash, before.entry_price = account.units, account.cash, account.entry_price
    before.spread_paid, before.slippage_paid = account.spread_paid, account.slippage_paid
    before.commission_paid, before.swap_paid = account.commission_paid, account.swap_paid
    before.trades = account.trades


@_jit
def replay(  # noqa: C901, PLR0912, PLR0913  # the engine's own loop over decisions, bars and places
    account: Account, before: Account, bars: Records, minutes: Records, terms: Terms, targets: FloatArray,
    out: Records,
) -> int:  # fmt: skip
    """Follow targets to the end as `engine.run_targets` does, write each fill to `out`; return their number.

    `account` is at its start; `before` is a blank account for notes; `out` needs a row for each of the pass's trades.
    A ruined account loses its position without a fill.
    """
    n, carried, opened = 0, 0.0, 0.0
    _copy(account, before)
    last_bar = bars.shape[0] - 1
    for i in range(targets.size):
        if account.terminated > 0.0 or account.truncated > 0.0:
            break
        target = target_of(account, terms, targets[i])
        waiting = target != account.target
        t = int(account.t)
        for _ in range(int(terms.interval_bars)):
            if t >= last_bar:
                break
            t += 1
            account.bars_left -= 1.0
            last = t == last_bar or account.bars_left <= 0.0
            for place in range(3):
                if place == 0:
                    waiting = open_bar(account, bars, t, terms, target, waiting)
                elif place == 1:
                    exits(account, bars, minutes, t, terms)
                else:
                    finish_bar(account, bars, t, terms, last)
                if account.trades > before.trades:
                    carried = _note(account, before, carried, t, float(place), out[n])
                    # A fill at a close comes after its bar, the others before.
                    now = t + (1.0 if place == 2 else 0.0)
                    out[n].bars_held = now - opened if out[n].closed > 0.0 else 0.0
                    if account.units * before.units <= 0.0:
                        opened = now
                    _copy(account, before)
                    n += 1
            account.t = t
            if account.terminated > 0.0:
                break
            if last:
                account.truncated = 1.0
                break
    return n
