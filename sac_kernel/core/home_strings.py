"""All text of the paper account's page and of commands: the second part of the catalogue `core.strings`.

The notebook carries the first part only.
"""

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
