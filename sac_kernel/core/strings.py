"""All text that a reader of the report and the notebook sees, grouped by page; English.

Constants and `str.format` templates only: code fills in numbers that it has formatted. Log lines and errors stay
beside their code. The catalogue's second part, `core.home_strings`, has the pages that the notebook does not make.
"""

LANGUAGE = "en"

# -- policies

AGENT_LABELS = {
    "final": "agent {agent_id} (final)",
    "best": "agent {agent_id} (best)",
    "ensemble": "agent {agent_id} (mean target of {seeds} seeds)",
    "file": "agent {agent_id} ({name})",
    "current": "agent {agent_id}",
    "fold_seed": "agent {agent_id}, seed {seed}",
    "fold_mean": "agent {agent_id}, {seeds} seeds' mean account",
    "fold_ensemble": "agent {agent_id}, {seeds} seeds' mean target",
}
"""By `backtest.policies.Form`."""
IN_JOB = "{job}: {label}"
FLAT, HOLD, SHORT = "flat", "buy and hold", "sell and hold"
MOMENTUM, REVERSAL = "momentum, 5 days", "reversal, 1 day"
MOVING_AVERAGES, SESSIONS = "moving averages, 1 and 5 days", "session means"
RIDGE, LOGISTIC = "ridge + band", "logistic + band"
FORESIGHT, RANDOM = "perfect foresight (bound)", "random, same turnover"

# -- verdict

VERDICTS = {
    "edge": (
        "On bars that the agent never saw, after costs, its result passed every mark fixed before the test.",
        "That the agent will earn money: this is one market, one period and a model of costs, and an edge can end.",
    ),
    "edge (null not run)": (
        "On bars that the agent never saw, after costs, its result passed every mark but the pipeline's own null.",
        "That it would pass that test too, or earn money: this is one market, one period and a model of costs.",
    ),
    "not shown": (
        "On these bars the result cannot be told from chance: not all marks fixed before the test were passed.",
        "That no edge exists, or that one does: more bars could decide.",
    ),
    "none": (
        "After costs this agent has no edge on these bars.",
        "That no agent or market has one. Still, nothing here is a reason to trade this one.",
    ),
}
"""Word of the verdict -> what it means, what it does not mean."""
MARKS = {
    "days": "at least {threshold} days",
    "interval": "95 % interval of the compound annual return above 0",
    "dsr": "deflated Sharpe ratio above {threshold}",
    "random": "beats {threshold:.0%} of random policies of its turnover",
    "trials": "number of trials known",
    "null": "p of the pipeline's null at most {threshold}",
    "holm": "holds among {agents} agents",
}
"""By `stats.verdict.Mark.key`."""
MARKS_FOUND = {
    "days": "{value} days",
    "interval": "{value:+.1%} to {high:+.1%}",
    "dsr": "{value:.3f} ({trials})",
    "random": "above {value:.1%} of them",
    "trials": "{trials}",
    "null": "p = {value:.3f} on {copies} copies without a signal",
    "holm": "p = {value:.3f} after Holm's correction for {agents} agents",
}
TRIALS = "{listed} trials, about {effective:.1f} effectively independent"
TRIALS_ELSEWHERE = ", {elsewhere} of them in other runs on these data"
TRIALS_UNKNOWN = "trial count unknown: at least {listed}"
INTERVAL = "95 % interval {low:+.1%} to {high:+.1%} a year (compound) over {days} days"
STAYS_FLAT = "The agent stays flat: it found nothing worth its costs."
TOO_FEW_DAYS = "Too few days ({days}) to say anything after costs."
EDGE = "An edge after base costs is shown on these bars: {interval}."
LOSES = "No edge: a loss after base costs; {interval}."
NOT_SHOWN = "An edge after base costs is not shown: {interval}."
NOT_PASSED = "Not passed: {marks}."
NOT_AMONG_AGENTS = "An edge is not shown: with {agents} agents tried, {found}."
POWER = (
    "Power: this sample of {days} days could have shown a true Sharpe ratio of {sharpe:.1f} a year or more "
    "({power:.0%} of the time); a smaller edge would most likely be missed."
)
QUESTIONS = {
    "earns": "Does it earn after costs?",
    "luck": "Is it luck?",
    "seen": "Would we have seen an edge?",
    "skill": "Is it skill or exposure?",
}
EARNS = "Its net return is {annual_frac:+.1%} a year (compound), 95 % interval {low_frac:+.1%} to {high_frac:+.1%}."
DSR = "The deflated Sharpe ratio is {value:.3f} ({trials}); an edge needs more than 0.95."
NO_DSR = "There is no deflated Sharpe ratio: the daily returns never vary, or there are too few."
NULL_NOT_RUN = "The pipeline's own null was not run."
NULL_P = (
    "Refitted on {copies} copies of the bars without a signal, the pipeline did as well with p = {p:.3f}."
)
NULL_NO_TRADE = "No p value of the pipeline's null: the agent did not trade."
NULL_TOO_FEW = " So few copies allow no p below {least:.3f}."
NO_POWER = "Fewer than {days} days cannot show any edge."
TIMING = (
    "Static exposure: a constant position of {beta:+.2f} in the instrument explains {static_frac:+.1%} a year. "
    "Timing adds {timing_frac:+.1%} a year (95 % interval {low_frac:+.1%} to {high_frac:+.1%}): {shown}."
)
TIMING_WORDS = {
    "edge": "an edge of its own",
    "not shown": "not told from chance",
    "none": "a loss",
}
NO_TIMING = "Not known: there was no trade, or the returns of the instrument were not given."
PIPELINE_POWER = (
    "On these bars this pipeline finds edges from a net Sharpe ratio of about {sharpe:.1f} on; smaller ones would be "
    "missed."
)
PIPELINE_POWER_LACKING = (
    "On these bars this pipeline would miss edges: even at a net Sharpe ratio of {sharpe:.1f} it found {found} of "
    "{copies} planted ones."
)
CPCV = (
    "Over {paths} backtest paths the annual Sharpe ratio has median {middle:.2f} (middle half {low:.2f} to {high:.2f}, "
    "all {least:.2f} to {most:.2f}); {negative:.0%} of the paths are below 0."
)
FALSE_ALARMS = (
    "False alarms of this rule: {false_edges} of {sets:,} sets of {days} days without any edge were called an edge "
    "on the worst kind of market ({market}), at most {upper:.1%} with 95 % confidence."
)
FALSE_ALARMS_TRAINED = (
    "That rate is of the rule alone. With an agent trained on each market, {false_edges} of {sets} {market} were "
    "called an edge, at most {upper:.1%}. This rate was measured for short trainings (6,000 steps) only."
)
NO_LEDGER = "The ledger of trials is missing, {trials}: without it an edge cannot be shown."
ONE_MARKET = "One market and one period: an edge here may be none elsewhere, and can end."
NEXT_RETURN, NEXT_RETURNS = "the next return", "the mean of the next {bars} returns"
FORECAST_TOO_FEW = (
    "There are too few train rows to tell whether the features predict {what}: {runs} runs of four decisions are "
    "required. The agent learnt from its costs alone."
)
COSTS_ALONE = "The agent learnt from its costs alone; to trade would be a mistake."
FORECAST_NOISE = (
    "The features do not predict {what} (t = {t:.2f} out of fold; {required:g} is required). " + COSTS_ALONE
)
FORECAST = (
    "Train rows: the features explain {share:.3%} of the variance of {what} ({head}, t = {t:.2f} out of fold). The "
    "agent learnt from that forecast less its costs; it is judged on realised prices."
)
JOB_FAILED = "{job} failed: {why}"

# -- self-test

SELF_TEST_TITLE, ON_YOUR_BARS = "Does this agent learn?", "On your bars"
SELF_TEST = {
    True: "Yes: on a market with a planted edge it caught {capture:.0%} of what the best possible policy earns after "
    "costs; a ridge with a no-trade band caught {ridge_capture:.0%}.",
    False: "No: on a market with a planted edge it caught {capture:.0%} of what the best possible policy earns after "
    "costs; at least {mark:.0%} is expected. Do not believe what follows.",
}
SELF_TEST_CAPTION = (
    "A synthetic market, learnt from {bars:,} bars in {updates:,} updates: one input predicts the next return (IC "
    "{ic:g}), {distractors} others predict nothing. Maps: blue is long, orange short; the two should look alike. "
    "Curves: mean expected profit of {accounts} accounts on bars that were not learnt from."
)
FLAT_BECAUSE = (
    "The agent stays flat: the features do not predict {what} (t = {t:.2f} out of fold; {required:g} is required), so "
    "that trading would only pay costs."
)

# -- report

TITLE = "Does this agent have an edge after costs?"
VERDICT, MEANS, MEANS_NOT = "Verdict: {word}", "What it means.", "What it does not mean."
MARK_WORDS = {True: "passed", False: "not passed", None: "not looked at"}
HEADLINE = "After base costs: <strong>{annual}</strong>, 95\u00a0% {interval}."
HEADLINE_ANNUAL, NO_ANNUAL = "{annual}\u00a0% a year (compound)", "no annual return"
HEADLINE_INTERVAL, NO_INTERVAL = "interval {interval}\u00a0%", "interval unknown: few days"
FOOTER = "Simulated on past bars with modelled costs. No advice."
NO_VALUE, NOT_RUN = "no value", "not run"
RESULTS, AGENTS, DATA, RUN, FILES, AGAIN = "Results", "Agents", "Data", "Run", "Files", "How to run it again"
EVERY_RESULT, TRADES, CONTENTS = "Every policy at every cost tier", "Trades", "Contents"
RESULTS_NOTE = "Every result is after the costs of its tier, on the rows judged."
BASE_NOTE = "At base cost, on the rows judged. Every other policy and cost tier is listed below."
JUDGED = {
    "instrument": "{value}",
    "policy": "{value}",
    "folds": "{value}",
    "seed": "seed {value}",
    "file": "file {value}",
    "home": "goes home: {value}",
    "run": "run {value}",
    "learner": "learner: {value}",
    "learner_reason": "{value}",
}
"""What the headline judges, part by part."""
NOT_ALL_PASSED, ALL_PASSED = (
    "Not passed ({failed} of {count} conditions)",
    "All {count} conditions were passed",
)
PASSED_TOO, ABOUT = "Conditions that were passed", "How to read this verdict"
COSTS_LINE = "Costs of {symbol} at base: {costs}."
NO_TRADE = "There was no trade, so there is nothing to show under: {sections}."
SEVERAL_SEEDS = "{label}: {count} more seeds"
TIERS = {
    "raw": "raw costs: the lowest realistic costs",
    "base": "base costs: the headline",
    "retail": "retail costs: an expensive retail account",
}
OTHER_TIER = "{tier} costs"
POLICY, TIER = "Policy", "Tier"
COLUMNS = {
    "net_return_frac": ("Net return [%]", "net %"),
    "annual_return_frac": ("Annual return, compound [%]", "annual %"),
    "interval": ("95 % interval of annual return [%]", "95 % interval"),
    "sharpe_ann": ("Sharpe (ann.)", "Sharpe"),
    "max_drawdown_frac": ("Max. drawdown [%]", "max DD %"),
    "turnover_per_day": ("Turnover [x equity / day]", "turn/day"),
    "cost_frac": ("Costs [% of start]", "costs %"),
    "trades": ("Trades", "trades"),
}
"""Key of a result -> column of the page and the notebook, column of the terminal."""
SPAN = "{low} to {high}"
FIGURES = {
    "self_test": "On a market with a planted edge",
    "equity": "Equity",
    "exposure": "What was held",
    "seeds": "Over the seeds",
    **{f"seeds-agent-{i}": f"Over the seeds: agent {i}" for i in (1, 2, 3)},
    "folds": "Folds",
    "random": "Against random policies",
    "costs": "Costs",
    "inputs": "What moves the agent",
    "policy": "What it does",
    "drift": "Drift since training",
    "training": "Training",
    "bars": "The bars",
    "features": "What the agent sees",
}
CHANCE = (
    "The net return is above that of <strong>{share} %</strong> of {draws} random policies with the same "
    "turnover. Luck alone gives 50 % on average."
)
MONTH_BY_MONTH, YEAR = "Month by month", "Year"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
UNDER_STRESS, CHANGED_TO = "Under stress", "Market changed to"
STRESS_NOTE = "The trades as judged, replayed: nothing reacts."
AS_JUDGED, LATENCY, LATENCY_DECISION = "as judged", "one more bar of latency", "one more decision of latency"
SPREAD_TIMES, VOLATILITY_TIMES, COSTS_TIMES = "spread x{k:g}", "volatility x{k:g}", "costs x{k:g}"
GAP, TREND = "gap of {gap:.0%} against it", "trend of {trend:+.0%} a year"
DRIFT_COLUMNS, ALARM, NO_ALARM = ("Series", "Test", "Statistic", "p (Holm)", "Alarm"), "alarm", "no"
RETRAIN = "Retrain: {series} differ(s) from the train split beyond chance (p < {level:g} after Holm)."
AND_MORE = "{series} and {more} more"
KEEP = "Keep: none of {count} series differs from the train split beyond chance."
SPLITS, JOBS = "Splits, in time order", "Jobs"
SPLIT_COLUMNS = ("Split", "Instrument", "First bar opens [UTC]", "Last bar opens [UTC]", "Bars")
FILE_COLUMNS = ("File", "Size [kB]")
FACTS = {
    "bar_seconds": "Bar [s]",
    "learner": "Learner",
    "learner_reason": "Chosen because",
    "env_steps": "Environment steps, or decisions drawn",
    "updates_per_s": "Updates [1 / s]",
    "env_steps_per_s": "Environment steps [1 / s]",
    "utd_ratio": "Updates per environment step",
    "train_s": "Training time [s]",
    "sac_config": "Agent settings",
    "env_config": "Environment settings",
    **{key: title for key, (title, _) in COLUMNS.items()},
}

# -- trades

FILL_PLACES = ("open", "inside bar", "close")
"""Where in a bar: stops, limits and margin calls fill inside, the end of the split at its close."""
BUY, SELL = "buy", "sell"
STATISTICS = {
    "closed_trades": "Trades closed",
    "win_rate_frac": "Win rate [%]",
    "profit_factor": "Profit factor",
    "mean_hold_h": "Mean hold [h]",
    "exposure_time_frac": "Time in the market [%]",
    "long_time_frac": "Time long [%]",
    "short_time_frac": "Time short [%]",
    "longest_drawdown_days": "Longest drawdown [trading days]",
    "best_day_frac": "Best day [%]",
    "worst_day_frac": "Worst day [%]",
    "turnover_per_day": "Turnover [x equity / day]",
    "largest_order_ccy": "Largest order [account currency]",
    "break_even_spread_bps": "Spread that the gain can bear [bps]",
}
STATISTICS_NOTE = (
    "A trade is a fill that closes a position or a part of it; its profit is after spread, slippage, commission and "
    "swap. An exposure below 1 % of equity counts as flat."
)

# -- figures

EQUITY_AXIS, CLOSE, EXPOSURE = "Equity [% of start]", "Close [price]", "Exposure [x equity]"
EPISODE, NO_VALUE_YET, MEAN_OF = "Episode", "no value yet", "mean of {window}"
BARS_TITLE, EMBARGO = "Bars in time order: {counts}", "left out (embargo)"
NO_OVERLAP = "; no bar is in two splits"
FEATURES_TITLE = "{count} features on {rows:,} train rows: {finding}"
CLIPPED, NOT_CLIPPED = "{name} is clipped most, {share:.2f} % of rows", "none is ever clipped"
ONE_TO_99, MIDDLE_HALF, MEDIAN, FEATURE = "1 % to 99 %", "middle half", "median", "Feature"
SCALED_VALUE, AT_A_BOUND = "Scaled value [dimensionless]", "At a bound [% of rows]"
TRAINING_TITLE = "Training: episodes {episodes:,}, evaluations {evaluations:,}"
TARGET, TARGET_AT_LAST = "target {value:g}", "target, at last {value:.2g}"
THE_AGENT, THE_OPTIMUM, PREDICTOR = (
    "the agent",
    "the best policy",
    "Predictor of {market} [SD]",
)
POSITION_HELD, TARGET_POSITION = "Position held [of the cap]", "Target position [of the cap]"
NO_TRADE_REGION = "Inside the line the best policy does not trade"
PROFIT_TITLE, BAR, PROFIT = "Expected profit after costs", "Bar", "Profit [SD of a bar]"
EQUITY_TITLE, AHEAD = "{name} at {tier} costs: {net}", ", ahead of {beaten} of {others} other curves"
DRAWDOWN_OF_FIRST, COSTS_OF_FIRST = "Drawdown of\nthe first [%]", "Costs of the\nfirst [% of start]"
FILLS = "{side} ({count:,} fills)"
EXPOSURE_TITLE = (
    "{name}: long {long:.1f} %, short {short:.1f} %, flat (below {held:.0%}) {flat:.1f} % of the time"
)
COSTS_PAID, COSTS_SO_FAR = "Costs {total:.2f} % of start", "Costs so far [% of start]"
TIME_SHARE = "Share of the time [%]"
STUCK = "Warning: hardly any trade: near {level:+.2f} x equity {share:.1f} % of the time"
RANDOM_TITLE = (
    "Net return {net}: better than {share:.0f} % of {draws:,} random policies with the same turnover"
)
THIS_RESULT, RANDOM_POLICIES, MEDIAN_OF_RANDOM = "this result", "random policies", "median of random"
NET_OVER_SPLIT, POLICIES_NUMBER = "Net return over the split [% of start]", "Random policies [number]"
SEEDS_TITLE = "{count} seeds: worst {worst}, median {median}, best {best}"
SEEDS_BAND, MEDIAN_SEED = "worst to best seed", "median seed"
COSTS_TITLE, COSTS_AS_JUDGED, BREAK_EVEN = "Sensitivity to costs: {finding}", "costs as judged", "break-even"
BREAK_EVEN_AT = "the net return is 0 at {multiple:.2f} times the costs"
NO_BREAK_EVEN, NEVER_TRADED = "no cost in the range changes the sign", "the agent never traded"
LOSES_WITHOUT_COSTS = "the trades lose even without costs"
COST_MULTIPLE, NET_RETURN = "All trading costs [x base]", "Net return [% of start]"
INPUTS_TITLE = "Inputs that move the agent most: {first} first, {shown} of {count} shown"
INPUT, TARGET_CHANGE = "Input", "Mean change of the target when shuffled [x exposure cap]"
DRIFT_TITLE = "Drift since training: {word}, {alarms} of {tests} tests raise an alarm"
KS_DISTANCE, DAILY_SERIES = "KS distance, train to now [0 to 1]", "Series, daily means"
WINDOW_DAY, CUSUM = "Day of the window", "CUSUM [standard errors]"
TIME_UTC = "Time [UTC]"
DAY_UTC, DAY_OF_YEAR_UTC = (
    "Day [UTC], hours without bars left out",
    "Day of {year} [UTC], hours without bars left out",
)

# -- interactive page

NO_PLOTLY = "equity.html is not written: it needs the package plotly."
FILL_HOVER = (
    "%{customdata[0]:,.0f} units at %{y}<br>cost %{customdata[1]:,.2f}<br>profit %{customdata[2]:+,.2f}"
)

# -- tables of the report

REGIMES = {
    "calm": "calm third (realised volatility)",
    "middle": "middle third",
    "wild": "wild third",
    "rose": "market rose",
    "fell": "market fell",
}
REGIMES_TITLE = "Regimes"
REGIMES_NOTE = "{policy}: its days sorted by what the market did on them; known only afterwards."
REGIMES_COLUMNS = ["Days", "Number", "Net return [% a year, compound]", "95 % interval", "Sharpe (ann.)"]
SEARCH_TITLE = "After the search"
SEARCH_NOTE = "What many looks do to the best of them. PBO on pure noise is one half or a little more."
SEARCH_COLUMNS = ["Question", "Value", "Read as"]
SPA = "SPA (Hansen 2005): does any of {count} agents beat {name}?"
SPA_READ = "p value; below 0.05 is a yes"
NEEDS_ARCH = "SPA and StepM need the package arch, which is not installed here."
STEP_M, STEP_M_READ = "StepM (Romano & Wolf 2005): which of them beat {name}?", "{names}, at 5 %"
NOBODY = "none"
PBO = "PBO (Bailey et al. 2017): is the best checkpoint chosen by luck?"
PBO_READ = "{count} checkpoints that trade, on {days} days"
PBO_NEEDS = "PBO needs {count} checkpoints that trade, on {days} days; there are {found}."

# -- training

PANELS = {
    "episode_rewards": ("Episode reward", "Reward [log return]", "healthy: rises slowly, with noise"),
    "eval_rewards": ("Evaluation reward", "Reward [log return]", "healthy: follows the training reward"),
    "critic_losses": ("Critic loss", "Loss [squared error]", "healthy: falls, then settles"),
    "actor_losses": ("Actor loss", "Loss [scaled reward]", "healthy: settles; its level means nothing"),
    "alpha_values": ("Entropy weight alpha", "Alpha [scaled reward]", "healthy: comes to rest above 0"),
    "entropies": ("Policy entropy", "Entropy [nats]", "healthy: comes down to its target and stays"),
    "eval_sharpes": ("Evaluation Sharpe ratio", "Ratio [per year]", "healthy: above 0, at best above 1"),
    "episode_lengths": ("Episode length", "Length [steps]", "healthy: full length; short ones are ruin"),
}
"""Curve -> title, axis with unit, what healthy looks like."""
TEXTBOOK_LOSS = (
    "sac_config is textbook SAC, not the preset for bars. On the market M11 a first temperature of 1 and a width of "
    "256 lose .02 of the optimum each, and the width trades 1.46 times as much as is best, the preset 1.24 times "
    "(docs/learning.md, ablations). Use SACConfig.for_market(...), or leave sac_config out for exact SAC."
)
HEALTHY = "No sign of trouble in the training curves."
NOT_EXAMINED = (
    "The training curves were not examined: that takes {required} episodes with updates, and this run has {found}.",
    "A run this short shows the steps, not the learning.",
    "Train more episodes.",
)
COLLAPSE = (
    "Reward collapse: the mean training reward of the last {window} episodes is {last:+.4g}, down from {top:+.4g}.",
    "The critic has begun to fit noise of the bars in its replay, or its values have run away.",
    "Judge agent_*_best.pt too; train with env_reward = 'denoised', a lower sac_learning_rate or more bars.",
)
"""Of a finding: the sign, its usual cause, what to do."""
STUCK_ABOVE = "Entropy is stuck {gap:.1f} nats above its target."
STUCK_BELOW = "Entropy is stuck {gap:.1f} nats below its target."
STILL_FALLING = ("The temperature alpha is still falling: the run is too short.", "Train more episodes.")
STILL_RISING = ("The temperature alpha is still rising: the run is too short.", "Train more episodes.")
SMALL_REWARDS = (
    "No action is worth more than another by as much as the temperature: rewards are small in its unit.",
    "Leave reward_scale unset, so that it is taken from the bars; if it is, there may be nothing to learn.",
)
LARGE_REWARDS = (
    "Differences between actions outweigh the temperature: rewards are large in its unit.",
    "Leave reward_scale unset, so that it is taken from the bars, or lower sac_learning_rate.",
)
Q_DRIFT = (
    "Q drift: the mean value went from {then:.3g} to {now:.3g} (scaled reward) in the last quarter of the run.",
    "The critics feed on their own estimates faster than on rewards.",
    "Lower sac_gamma or sac_learning_rate; do not trust the final agent.",
)
ACTIONS_SATURATED = (
    "Actions are saturated: the mean |action| is {mean:.2f}.",
    "The policy is at full exposure whatever it sees; exploration has all but ended.",
    "Look at the exposure figure: a position that never changes was not learnt. Lower reward_scale.",
)
HARDLY_TRADES = (
    "The agent hardly trades: the mean |action| is {mean:.3f}.",
    "Nothing that it sees pays its costs.",
    "That may be the right answer; a longer env_decision_interval_min or cheaper costs would change it.",
)

# -- notebook

UTC, DEVICES, THREADS, VERSION, SOURCE = "UTC", "devices", "threads", "version {name}", "code"
EXTRA, DATA_HASH, INPUTS, OUTPUT = "extra {name}", "data hash", "inputs", "output folder"
INSTRUMENT, TRADED = "instrument", "Traded:"
BUDGET_H, JOB_NAMES = "time budget", "jobs"
CODE = {True: "as built", False: "edited here"}
NO_HASH, NO_INPUTS = "none expected", "not mounted"
NO_DEVICE = "a device does not work. {err}"
NO_GPU = (
    "no GPU was given. Turn on GPU T4 x2 (Settings, Accelerator); it needs an account verified by phone and hours left "
    "in the week's quota. To train on the CPU set allow_cpu = True."
)
NO_HMMLEARN = (
    "agent 3 needs the package hmmlearn, which this image lacks, and the code dataset has no wheel of it for Python "
    "{python}. Build again online, or train agents 1 and 2."
)
NO_DATA = "its input is not mounted. A copy of this notebook needs its own data dataset. {err}"
NO_DISK = "only {free:.2f} GB of disk are free, {required} GB are needed."
TRADE_COLUMNS = [
    "bar opened [UTC]", "open", "close", "spread [bps]", "target", "exposure", "equity", "paid", "reward [bps]",
]  # fmt: skip

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
    "IQM of Sharpe (ann.)", "95 % interval", f"P(better than {RIDGE})",
]  # fmt: skip
FOLDS_TITLE, FOLD_AXIS = "{name} gains in {gained} of {folds} folds; a dot is a seed", "Fold, in time order"
FOLDS_NOTE = (
    "Scaler, regime model and agent are refitted in each; base cost, net return of the fold's test days."
)
FOLDS_COLUMNS = [
    "Fold", "Test days", "Train days", "Policy", "Net return [%]", "Worst seed [%]", "Best seed [%]",
]  # fmt: skip

FOLDS_PLAN = "walk-forward: {jobs} more trainings and baselines in {folds} folds, on {workers} processes"
FOLDS_CUT = (
    "The walk-forward is not finished: {finished} of {planned} trainings. The verdict is on the last fold alone; the "
    "next session goes on."
)
FOLDS_JUDGED = "{folds} folds of {test_days} test days"
FOLDS_HOME = "The model that goes home, on the last fold"
NULL_OWN_FEATURES = "The pipeline's null was not run: it cannot shift your own features."
NULL_NO_ROOM = "The pipeline's null was not run: the bars are too few for a single copy."
NULL_COST = (
    "The real run took {seconds:.1f} s. {jobs} more runs on {workers} processes take about {minutes:.0f} min."
)
NULL_NO_TIME = "There is time for {runs} of the {planned} runs of the null and its power."
NULL_FEWER = "The bars allow only {copies} of {asked} copies, so p is coarser."
NULL_NOT_TESTED = (
    "An edge of the clock or of volatility alone is in the copies too, so this test does not see it."
)
