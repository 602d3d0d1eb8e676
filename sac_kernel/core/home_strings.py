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
PAPER_COLUMNS = ("Bar opens [UTC]", "Close", "Equity", "Exposure [x equity]", "Target", "Why")
EVIDENCE = (
    "evidence for an edge so far: e = {now:.2f} after {days} days ({weekly:.2f} by weeks), at least {asked:.0f} asked "
    "for; that takes about {own} years at a true Sharpe ratio of 1/2/3, at the very best {best}"
)
PAPER_KILL = "A file KILL beside this page flattens the account at the next open, for good."
HALTED, NEVER_SEEN = "halted", "never seen before: {name}"
"""A limit of a decision: the instrument's freeze and its zone."""
