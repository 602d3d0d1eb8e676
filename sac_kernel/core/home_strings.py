"""All text of the pages on the paper account and on judged policies, and of commands: second part of `core.strings`.

The notebook carries the first part only.
"""

from sac_kernel.core import strings

# -- the pipeline's own null

NULL_STATISTIC = "{name}: {value:.4g}, copies {low:.4g} to {high:.4g}, p = {p:.3f} before Holm's correction"
NULL_NO_VALUE = "{name}: no trade, no p"
NULL_STATISTICS = {
    "t": "t of raw forecast x return, out of fold",
    "growth_per_day": "net log growth a day of an agent that must trade",
}
NULL_GATE = "With its gate on, the forecast of the real run is zero in {flat} of {fits} fits; agents hold still there."
NULL_POWER_LEVEL = (
    "So few copies cannot reach p = {level:.2f}; an edge counts as found here at p = {least:.3f}."
)
NULL_POWER_ROW = (
    "net Sharpe ratio {sharpe_ann:.2f}: found {found} of {copies} ({low:.0%} to {high:.0%}); log growth a day "
    "{agent_growth_per_day:.5f} of the agent on test days, {band_growth_per_day:.5f} of the band policy on all"
)

# -- paper account

PAPER_TITLE = "Paper account: {instrument} since {since:%Y-%m-%d %H:%M}"
PAPER_FIGURE = "Price with the exposure held, equity, costs"
PAPER_COLUMNS = ("Bar opens [UTC]", "Close", "Equity", "Exposure [x equity]", "Target")
EVIDENCE = (
    "evidence for an edge so far: e = {now:.2f} after {days} days ({weekly:.2f} by weeks), at least {asked:.0f} asked "
    "for; that takes about {own} years at a true Sharpe ratio of 1/2/3, at the very best {best}"
)
PAPER_EQUITY, PAPER_POSITION, PAPER_OPEN_PROFIT = "Equity", "Position", "Open profit"
PAPER_COSTS, PAPER_EVIDENCE, PAPER_DRIFT, PAPER_DATA = "Costs paid", "Evidence", "Market", "Last close"
PAPER_RETURN = "{change:+.2f} % since the start, largest drawdown {drawdown:.2f} %"
PAPER_SIDES = {1: "long {:.3f} x equity", 0: "flat", -1: "short {:.3f} x equity"}
PAPER_UNITS = "{units:+,.0f} units"
PAPER_UNKNOWN = "not in this journal"
PAPER_ASSUMED = (
    "{paid:,.2f} for {n} fills, {assumed:,.2f} by the costs of the agent's training; the rest is swap"
)
PAPER_ASKED = "at least {asked:.0f} asked for; highest {highest:.2f}, {days} complete days"
PAPER_MINUTES, PAPER_HOURS, PAPER_DAYS = "{n} min ago", "{n} hours ago", "{n} days ago"
PAPER_REPLAY = "a replay of bars from a file"
PAPER_LATE = (
    "These figures are old: the next bar was due by {due}. Are the feed and the command still running?"
)
PAPER_HALTED = "A limit or the file KILL keeps this account flat."
PAPER_FILLS, PAPER_BARS, PAPER_NO_FILL = "Last fills", "Last bars", "Nothing was traded yet."
PAPER_FILL_COLUMNS = ("Bar opens [UTC]", "At", "Traded [units]", "Price", "Cost", "Position after it")
PAPER_KILL = "A file KILL beside this page flattens the account at the next open, for good."
HALTED, NEVER_SEEN = "halted", "never seen before: {name}"
"""A limit of a decision: the instrument's freeze and its zone."""

# -- judged policies and fills

JUDGED_TITLES = {
    "policy": "Does this policy have an edge after costs?",
    "fills": "Do these trades have an edge after costs?",
}
_PASSED = (
    "On these bars, after costs, the result passed every mark fixed before the test. The pipeline's own null "
    "does not apply: nothing was trained here."
)
_NO_PROMISE = (
    "That it will earn money, or that its author had not seen these bars: this is one market, one period and a model "
    "of costs."
)
JUDGED_MEANS = {
    "edge (null not run)": (_PASSED, _NO_PROMISE),
    "not shown": strings.VERDICTS["not shown"],
    "none": (
        "After costs there is no edge on these bars.",
        "That no policy or market has one. Still, nothing here is a reason to trade this one.",
    ),
}
"""Word of the verdict -> what it means, what it does not mean."""
JUDGED_FLAT = "It never trades."
JUDGED_SEEN = {
    "policy": (
        "Nothing was trained here, so no bar is out of sample by construction. If the author saw these bars, the "
        "result is no test: judge later ones with --from."
    ),
    "fills": (
        "These fills are out of sample only if they were really made at their times. Those of a backtest are as "
        "good as its author's hindsight."
    ),
}
NOT_FITTED = (
    "Baselines that are fitted (session means, ridge, logistic) are left out: there are no train rows."
)
JUDGED_POLICY = (
    "Targets of {name} from bars and features up to each close, filled at the next open. {rows} random rows and "
    "{changes} around changes of the target are bit-identical without their future, the random ones also with a "
    "changed one."
)
JUDGED_FILLS = (
    "The exposure after each of {count} fills of {name}, taken up at the first open that is not before it, at this "
    "product's costs. The verdict stands on that."
)
AS_FILLED = "{name}, as filled"
EQUITY_CHOSEN = (
    "The file does not tell the account's size: it begins with the largest notional ever held, {equity:,.0f}. Set "
    "your own with --equity."
)
IMPOSSIBLE_TITLE = "Fills that the bars cannot have given"
IMPOSSIBLE_NOTE = (
    "{count} of {total} fills, at most {most} shown. Those without a size or price, or outside the bars, were left "
    "out; the others changed the position."
)
IMPOSSIBLE_COLUMNS = ["Line", "Time [UTC]", "Why"]
IMPOSSIBLE = {
    "size": "its size is {size:g}",
    "price": "its price is {price:g}",
    "before": "it is before the first bar",
    "after": "it is after the last bar",
    "closed": "no bar covers it: the market was closed, or the bars have a hole",
    "range": "its price of {price:.8g} is outside {low:.8g} to {high:.8g}, what its bar allows at any cost tier",
}
"""Why a fill is listed."""
COMPARED_TITLE = "As filled, and as the engine fills"
COMPARED_NOTE = (
    "Slippage is the price paid against the mid price of the open at which the engine fills, weighted by notional. As "
    "filled, it includes the market's move until that open."
)
COMPARED_COLUMNS = ["Figure", "As filled", "Engine, base costs"]
COMPARED = {
    "net_return_frac": "Net return [%]",
    "slippage_bps": "Slippage with half spread [bps of notional]",
    "commission_bps": "Commission, or cost in the file [bps of notional]",
    "swap_frac": "Swap [% of start]",
}
JUDGED_IMPOSSIBLE = (
    "{count} of {total} fills are impossible on these bars and listed below. Those that nothing can fill, {left_out} "
    "of them, were left out."
)
LEVERAGE = (
    "The account holds up to {cap:.2f} times its equity. Baselines and random policies may hold as much."
)
TOO_LATE = "Fills without an open after them, which the engine does not take up: {count}."
WITHIN_BAR = (
    "Fills that were followed by another before the next open, so that the engine skips them: {count}."
)
OTHER_TIMES = "Fills outside --from and --until, which were not judged: {count}."
