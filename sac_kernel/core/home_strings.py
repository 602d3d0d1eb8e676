"""All text of the walk-forward's page and the paper account's: the second part of the catalogue `core.strings`.

The notebook makes neither page, so it carries the first part only.
"""

from sac_kernel.core import strings

# -- walk-forward

WALK_FORWARD_TITLE = "Does any of these agents have an edge after costs? A walk-forward"
AGENT_NAME, AGENT_SAYS = "Agent {agent_id} ({preset})", "{agent}: {sentence}"
STANDS_FOR_ALL = (
    "It stands for all {agents} agents: its p value is the smallest, and Holm's correction pays for that."
)
BUDGET = (
    "The verdict belongs to this learner at this budget: {learner} SAC {widths}, batch {batch}, {updates:,} updates a "
    "training, reward '{reward}', {seeds} seeds, {folds} folds of {days} days. Longer training may say something else."
)
WALK_FORWARD_CAPTIONS = {
    "training": "Seed 0 in the last fold: a value for every twentieth of the updates.",
    "inputs": "Mean over seeds and folds.",
    "drift": "From the last fold's train days to its test days.",
    "exposure": "Mean over the seeds.",
    "costs": "The targets of the base tier at other costs, mean over seeds, folds chained.",
}
AGENTS_NOTE = "One verdict each at base cost, on the joined test days; the IQM is over seeds and folds."
AGENTS_COLUMNS = [
    "Agent", "Verdict", "Deflated Sharpe [0 to 1]", "p (Holm)", "Trials", "Independent trials", "Beats random [%]",
    "IQM of Sharpe (ann.)", "95 % interval", f"P(better than {strings.RIDGE})",
]  # fmt: skip
FOLDS_NOTE = (
    "Scaler, regime model and agent are refitted in each; base cost, net return of the fold's test days."
)
FOLDS_COLUMNS = [
    "Fold", "Test days", "Train days", "Policy", "Net return [%]", "Worst seed [%]", "Best seed [%]",
]  # fmt: skip

FOLDS_TITLE = "{name} gains in {gained} of {folds} folds; a dot is a seed"
FOLD_AXIS = "Fold, in time order"

# -- the pipeline's own null

NULL_COST = (
    "The real run took {seconds:.1f} s. {jobs} more runs on {workers} processes take about {minutes:.0f} min."
)
NULL_FEWER = "The bars allow only {copies} of {asked} copies, so p is coarser."
NULL_STATISTIC = "{name}: {value:.4g}, copies {low:.4g} to {high:.4g}, p = {p:.3f} before Holm's correction"
NULL_NO_VALUE = "{name}: no trade, no p"
NULL_STATISTICS = {
    "t": "t of raw forecast x return, out of fold",
    "growth_per_day": "net log growth a day of an agent that must trade",
}
NULL_GATE = "With its gate on, the forecast of the real run is zero in {flat} of {fits} fits; agents hold still there."
NULL_NOT_TESTED = (
    "An edge of the clock or of volatility alone is in the copies too, so this test does not see it."
)
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
