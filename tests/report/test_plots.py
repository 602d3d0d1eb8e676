import struct
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import sac_kernel.report.plots
from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.core.plot_style import to_png, to_rgb
from sac_kernel.market.render import episode_figure
from sac_kernel.report.fold_plots import folds_figure
from sac_kernel.report.plots import (
    bars_figure,
    costs_figure,
    drift_figure,
    equity_figure,
    exposure_figure,
    features_figure,
    inputs_figure,
    policy_figure,
    random_figure,
    seeds_figure,
    training_figure,
)
from tests.support import says, told

START = "2019-03-04"


def hours(n, start=START):
    return pd.date_range(start, periods=n, freq="h", tz="UTC")


def result(name="agent", equity=(101.0, 99.0, 102.0), exposure=None, **more):
    n = len(equity)
    held = np.linspace(-1, 1, n) if exposure is None else np.asarray(exposure, float)
    fields = {
        "name": name,
        "tier": "base",
        "open_time_utc": hours(n),
        "close": np.full(n, 1.1),
        "equity": np.asarray(equity, float),
        "exposure": held,
        "cost_paid": 0.1 * np.arange(1, n + 1),
        "start_equity": 100.0,
    }
    return SimpleNamespace(**{**fields, **more})


def drawn(ax):
    """Return the y data of each line."""
    return [np.asarray(line.get_ydata(), float) for line in ax.get_lines()]


def texts(figure):
    own = [figure.get_suptitle()]
    return own + [ax.get_title(loc="left") for ax in figure.axes]


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


FULL_STATS = {
    "episode_rewards": [0.1, 0.2, 0.3],
    "episode_lengths": [100, 100, 40],
    "actor_losses": [None, -1.0, -2.0],
    "critic_losses": [None, 1.0, 0.01],
    "alpha_values": [None, 0.05, 0.04],
    "entropies": [None, 0.5, -0.5],
    "target_entropy": -1.0,
    "eval_episodes": [1, 3],
    "eval_rewards": [0.05, -0.02],
    "eval_sharpes": [None, 0.7],
}


# --- pixels and bytes ---------------------------------------------------------------------------


def test_to_rgb_gives_pixels_of_the_figure():
    pixels = to_rgb(random_figure(0.0, [0.1, -0.1]))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (518, 1296, 3)  # 3.6 in x 144 dpi, 9 in x 144 dpi
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert (pixels.reshape(-1, 3).min(axis=0) < 100).all()  # something dark is drawn


def test_to_png_is_a_png_of_the_same_size_as_the_pixels():
    png = to_png(random_figure(0.0, [0.1, -0.1]))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (1296, 518)


def test_png_bytes_are_equal_for_equal_input_and_tell_no_version_or_date():
    first, second = (to_png(training_figure(FULL_STATS)) for _ in range(2))
    assert first == second
    assert b"Software" not in first
    assert b"tIME" not in first
    assert b"atplotlib" not in first


def test_png_is_the_same_when_drawn_twice():
    figure = equity_figure([result(), result("flat", (100.0, 100.0, 100.0))])
    assert to_png(figure) == to_png(figure)


def test_callers_settings_are_neither_used_nor_changed():
    import matplotlib as mpl

    plain = to_png(random_figure(0.0, [0.1, -0.1]))
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "figure.dpi": 50}):
        before = dict(mpl.rcParams)
        styled = to_png(random_figure(0.0, [0.1, -0.1]))
        assert dict(mpl.rcParams) == before
    assert styled == plain


def test_pyplot_is_not_imported():
    import subprocess

    code = "import sys, sac_kernel.report.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- episode ------------------------------------------------------------------------------------


def test_episode_shows_price_equity_and_cumulative_costs():
    figure = episode_figure(hours(3), [1.1, 1.2, 1.15], [100.0, 110.0, 99.0], [0, 1, -0.5], [0.0, 0.2, 0.5])
    top, middle, bottom = figure.axes
    np.testing.assert_array_equal(drawn(top)[0], [1.1, 1.2, 1.15])
    np.testing.assert_array_equal(drawn(middle)[0], [100.0, 110.0, 99.0])
    np.testing.assert_array_equal(drawn(bottom)[0], [0.0, 0.2, 0.5])
    # 99 / 100 - 1 = -1 %; the fall from 110 to 99 is 10 %; 0.5 of 100 is 0.5 %
    assert told(top.get_title(loc="left"), "equity -1.00 %", "drawdown 10.00 %", "costs 0.50 %")


def test_episode_shades_the_exposure_of_each_bar():
    figure = episode_figure(hours(3), [1.1, 1.2, 1.15], [1, 1, 1], [0.0, 0.4, -0.8], [0, 0, 0])
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(np.ravel(mesh.get_array()), [0.0, 0.4, -0.8])
    assert mesh.get_clim() == (-0.8, 0.8)  # white is flat
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["long", "short"]
    assert all(told(label, "0.80 x equity") for label in labels)


@pytest.mark.parametrize("close", [1.1, 0.9])
def test_episode_of_one_point_can_be_drawn(close):
    pixels = to_rgb(episode_figure(hours(1), [close], [100.0], [0.0], [0.0]))
    assert pixels.shape[2] == 3


def test_episode_axes_are_labelled_with_units():
    figure = episode_figure(hours(2), [1.1, 1.2], [1, 1], [0, 0], [0, 0])
    labels = [ax.get_ylabel().replace("\n", " ") for ax in figure.axes]
    units = [label[label.index("[") :] for label in labels]
    assert units == ["[price]", "[account currency]", "[account currency]"]
    assert told(figure.axes[2].get_xlabel(), "[UTC]")


def test_episode_times_are_shown_in_utc():
    new_york = hours(2).tz_convert("America/New_York")
    line = episode_figure(new_york, [1.1, 1.2], [1, 1], [0, 0], [0, 0]).axes[0].get_lines()[0]
    assert line.get_xdata()[0] == np.datetime64("2019-03-04T00:00")


def test_episode_refuses_arrays_of_another_length():
    with pytest.raises(DataError, match=says(2, "equity", "(3,)")):
        episode_figure(hours(2), [1.1, 1.2], [1, 1, 1], [0, 0], [0, 0])


def test_episode_refuses_no_point():
    with pytest.raises(DataError, match=says("1")):
        episode_figure(hours(0), [], [], [], [])


def test_long_series_keep_their_extremes_in_few_points():
    rng = np.random.default_rng(0)
    close = 1.0 + 1e-3 * rng.random(100_003)
    close[54_321], close[76_543] = 2.0, 0.5
    flat = np.ones(close.size)
    figure = episode_figure(hours(close.size, "1990-01-01"), close, flat, flat * 0, flat * 0)
    line = drawn(figure.axes[0])[0]
    assert line.size < 4100
    assert (line.min(), line.max()) == (0.5, 2.0)
    assert (line[0], line[-1]) == (close[0], close[-1])


# --- bars and features --------------------------------------------------------------------------


def splits():
    price = pd.Series(np.linspace(1.0, 1.1, 20), index=hours(20))
    return {"train": price[:10], "val": price[12:15], "test": price[17:]}


def test_bars_title_states_the_bars_of_each_split():
    title = texts(bars_figure(splits()))[1]
    assert told(title, "train 10", "val 3", "test 3")


def test_bars_lines_hold_the_splits_in_different_colours():
    lines = bars_figure(splits()).axes[0].get_lines()
    assert [len(line.get_ydata()) for line in lines] == [10, 3, 3]
    assert len({line.get_color() for line in lines}) == 3


def test_bars_show_the_holes_between_the_splits():
    figure = bars_figure(splits())
    spans = [patch.get_extents() for patch in figure.axes[0].patches]
    assert len(spans) == 2
    assert legend_texts(figure)[:3] == ["train", "val", "test"]
    # the first hole goes from the last train bar (09:00) to the first val bar (12:00)
    corners = (
        figure.axes[0].patches[0].get_path().get_extents(figure.axes[0].patches[0].get_patch_transform())
    )
    assert (corners.x1 - corners.x0) * 24 == pytest.approx(3.0)


def test_bars_take_given_holes():
    gap = (pd.Timestamp("2019-03-04 10:00", tz="UTC"), pd.Timestamp("2019-03-04 11:00", tz="UTC"))
    assert len(bars_figure(splits(), [gap]).axes[0].patches) == 1


def test_bars_refuse_an_empty_split():
    broken = {**splits(), "val": splits()["val"][:0]}
    with pytest.raises(DataError, match=says("bars", "val")):
        bars_figure(broken)


def test_features_count_the_share_of_clipped_rows():
    # one row of four lies at a bound of 'b'; the NaN row is the warm-up
    frame = pd.DataFrame({"a": [np.nan, 0.0, 1.0, 2.0, 3.0], "b": [np.nan, 0.0, 1.0, -5.0, 2.0]})
    figure = features_figure(frame)
    shares = [bar.get_width() for bar in figure.axes[1].patches]
    assert shares == [0.0, 25.0]
    assert told(texts(figure)[0], "2 features", "4 train rows", "b", "25.00 %")
    assert [t.get_text() for t in figure.axes[1].texts] == ["0.00", "25.00"]


def test_features_box_is_the_middle_half():
    figure = features_figure(pd.DataFrame({"a": np.arange(-2.0, 3.0)}))  # quartiles -1 and 1
    box = figure.axes[0].patches[0]
    assert (box.get_x(), box.get_width()) == (-1.0, 2.0)
    assert not told(texts(figure)[0], "%")


def test_features_refuse_rows_that_all_have_nan():
    with pytest.raises(DataError, match=says("NaN", "2 rows")):
        features_figure(pd.DataFrame({"a": [1.0, np.nan], "b": [np.nan, 1.0]}))


# --- training -----------------------------------------------------------------------------------


def panel(figure, title):
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == title)


def test_training_has_a_panel_for_each_curve_with_a_healthy_line():
    figure = training_figure(FULL_STATS)
    assert len(figure.axes) == 8
    assert all(told(ax.texts[0].get_text(), "healthy") for ax in figure.axes)
    assert all(ax.get_xlabel() == "Episode" and "[" in ax.get_ylabel() for ax in figure.axes)
    assert told(texts(figure)[0], "episodes 3", "evaluations 2")


@pytest.mark.parametrize(
    ("title", "x", "y"),
    [
        ("Episode reward", [1, 2, 3], [0.1, 0.2, 0.3]),
        ("Actor loss", [2, 3], [-1.0, -2.0]),  # no update in the first episode
        ("Critic loss", [2, 3], [1.0, 0.01]),
        ("Policy entropy", [2, 3], [0.5, -0.5]),
    ],
)
def test_training_curves_are_drawn_at_their_episodes(title, x, y):
    line = panel(training_figure(FULL_STATS), title).get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), x)
    np.testing.assert_array_equal(line.get_ydata(), y)


def test_training_evaluations_are_drawn_at_their_own_episodes():
    line = panel(training_figure(FULL_STATS), "Evaluation reward").get_lines()[1]  # 0: zero line
    np.testing.assert_array_equal(line.get_xdata(), [1, 3])
    np.testing.assert_array_equal(line.get_ydata(), [0.05, -0.02])


def test_training_marks_the_target_entropy():
    lines = panel(training_figure(FULL_STATS), "Policy entropy").get_lines()
    assert set(lines[1].get_ydata()) == {-1.0}
    assert told(lines[1].get_label(), "target", -1)


def test_training_uses_a_log_axis_only_for_wide_positive_losses():
    figure = training_figure(FULL_STATS)  # critic loss 1 to 0.01, alpha 0.05 to 0.04
    assert panel(figure, "Critic loss").get_yscale() == "log"
    assert panel(figure, "Entropy weight alpha").get_yscale() == "linear"
    assert panel(figure, "Actor loss").get_yscale() == "linear"


def test_training_works_with_one_episode_no_evaluation_and_nones():
    keys = ("actor_losses", "critic_losses", "alpha_values", "entropies")
    none = {key: [None] for key in keys}
    figure = training_figure({"episode_rewards": [0.1], "episode_lengths": [50], **none})
    empty = [ax.get_title(loc="left") for ax in figure.axes if len(ax.texts) == 2]
    assert "Episode reward" not in empty
    assert len(empty) == 6
    assert panel(figure, "Actor loss").texts[1].get_text()
    assert to_rgb(figure).size


def test_training_works_with_nothing():
    assert told(texts(training_figure({}))[0], "episodes 0", "evaluations 0")


def test_training_adds_a_running_mean_to_many_episode_rewards():
    rewards = list(range(20))
    lines = panel(training_figure({"episode_rewards": rewards}), "Episode reward").get_lines()
    # window max(5, 20 // 10) = 5: the last mean is that of 15 .. 19
    assert lines[1].get_ydata()[-1] == 17.0
    assert told(lines[1].get_label(), 5)


def test_training_refuses_evaluations_that_do_not_fit_their_episodes():
    with pytest.raises(DataError, match=says("2", "eval_episodes", "1", "eval_rewards")):
        training_figure({**FULL_STATS, "eval_rewards": [0.1]})


# --- results ------------------------------------------------------------------------------------


def test_equity_is_in_percent_of_start():
    other = result("flat", (50.0, 50.0, 50.0), start_equity=50.0)
    lines = equity_figure([result(), other]).axes[0].get_lines()  # 0: the line at 100
    np.testing.assert_allclose(lines[1].get_ydata(), [101.0, 99.0, 102.0])
    np.testing.assert_allclose(lines[2].get_ydata(), [100.0, 100.0, 100.0])


def test_equity_figure_shows_the_drawdown_of_the_first():
    lines = equity_figure([result(), result("flat", (100.0,) * 3)]).axes[1].get_lines()
    # peak 101 before 99: 99 / 101 - 1; the start counts as a peak, too
    np.testing.assert_allclose(lines[0].get_ydata(), [0.0, 100 * (99 / 101 - 1), 0.0])


def test_equity_drawdown_counts_from_the_start():
    lines = equity_figure([result(equity=(90.0, 95.0))]).axes[1].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [-10.0, -5.0])


def test_equity_title_and_legend_state_the_results():
    figure = equity_figure([result(), result("flat", (100.0,) * 3), result("up", (100, 100, 105))])
    assert told(texts(figure)[1], "agent", "base", "+2.00 %", "1 of 2")
    assert legend_texts(figure) == ["agent +2.00 %", "flat +0.00 %", "up +5.00 %"]


def test_equity_names_the_tiers_if_there_are_several():
    figure = equity_figure([result(), result(tier="retail")])
    assert told(legend_texts(figure)[1], "agent", "retail", "+2.00 %")


def test_equity_policies_differ_in_colour_or_dash():
    figure = equity_figure([result(f"p{i}") for i in range(7)])
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()[1:]}
    assert len(looks) == 7


def test_equity_refuses_nothing():
    with pytest.raises(DataError, match=says("policy")):
        equity_figure([])


def test_exposure_title_states_the_shares_of_time():
    figure = exposure_figure(result(equity=(100.0,) * 4, exposure=[0.5, 0.5, -1.0, 0.0]))
    assert told(texts(figure)[1], "long 50.0 %", "short 25.0 %", "flat (below 1%) 25.0 %")
    assert figure.get_suptitle() == ""


def test_exposure_histogram_adds_up_to_the_whole_time():
    axes = exposure_figure(result(equity=(100.0,) * 4, exposure=[2.0, 2.0, -1.0, 0.0])).axes
    heights = [bar.get_height() for bar in axes[2].patches]
    assert sum(heights) == pytest.approx(100.0)
    assert heights[-1] == 50.0


def test_exposure_figure_shows_costs_in_percent_of_start():
    axes = exposure_figure(result(costs={"spread": 0.2, "swap": 0.1})).axes
    np.testing.assert_allclose(axes[1].get_lines()[0].get_ydata(), [0.1, 0.2, 0.3])
    assert told(axes[1].get_title(loc="left"), "0.30 %", "spread 0.20", "swap 0.10")


def test_exposure_costs_without_kinds_are_a_sum():
    title = exposure_figure(result()).axes[1].get_title(loc="left")
    assert told(title, "0.30 %")
    assert not told(title, "spread")


def test_exposure_warns_if_one_level_is_held_nearly_always():
    held = np.ones(1000)
    held[:5] = -1.0  # 99.5 % at +1
    figure = exposure_figure(result(equity=np.full(1000, 100.0), exposure=held))
    assert told(figure.get_suptitle(), "warning", "+1.00", "99.5 %")


def test_exposure_that_only_drifts_with_the_price_counts_as_held():
    held = 0.5 + 0.001 * np.sin(np.arange(300))
    assert "100.0 %" in exposure_figure(result(equity=np.full(300, 1.0), exposure=held)).get_suptitle()


def test_exposure_does_not_warn_at_98_percent():
    held = np.ones(100)
    held[:2] = -1.0
    assert exposure_figure(result(equity=np.full(100, 1.0), exposure=held)).get_suptitle() == ""


def test_random_figure_states_the_percentile():
    figure = random_figure(0.031, [-0.01, 0.0, 0.02, 0.05])  # three of four lie below
    assert told(texts(figure)[1], "+3.10 %", "75 %", "4 random")


def test_random_figure_draws_every_policy_and_the_agent():
    axes = random_figure(0.03, np.linspace(-0.1, 0.1, 101)).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 101
    assert list(axes.get_lines()[0].get_xdata()) == [3.0, 3.0]
    assert axes.get_lines()[1].get_xdata()[0] == pytest.approx(0.0)


def test_random_figure_works_if_all_draws_are_equal():
    assert told(texts(random_figure(0.0, [0.0, 0.0]))[1], "0 %", "2 random")


@pytest.mark.parametrize(("agent", "draws"), [(np.nan, [0.1]), (0.1, []), (0.1, [np.inf]), (0.1, [[0.1]])])
def test_random_figure_refuses_what_cannot_be_ranked(agent, draws):
    with pytest.raises(DataError, match=says("returns")):
        random_figure(agent, draws)


def test_seeds_figure_has_every_seed_their_median_and_the_extremes():
    seeds = [result(equity=np.full(3, 100.0) + k, start_equity=100.0) for k in (0, 4, 1)]
    figure = seeds_figure(seeds)
    axes = figure.axes[0]
    assert told(axes.get_title(loc="left"), "3 seeds", "worst +0.00 %", "median +1.00 %", "best +4.00 %")
    assert axes.get_lines()[-1].get_ydata().tolist() == [101.0] * 3
    assert len(axes.get_lines()) == 1 + 3 + 1  # 100 %, the seeds, the median
    with pytest.raises(DataError, match=says("seeds", 1)):
        seeds_figure(seeds[:1])


def test_folds_figure_has_a_dot_a_seed_beside_each_fold():
    figure = folds_figure({"agent 1": [[0.01, 0.03], [-0.02, 0.01]], "buy and hold": [[0.02], [-0.01]]})
    axes = figure.axes[0]
    assert told(axes.get_title(loc="left"), "agent 1", "1 of 2 folds")
    dots = {
        line.get_label(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == "o"
    }
    assert dots["agent 1"] == [[0.8, 1.0], [0.8, 3.0], [1.8, -2.0], [1.8, 1.0]]
    assert dots["buy and hold"] == [[1.2, 2.0], [2.2, -1.0]]
    with pytest.raises(DataError, match=says("fold")):
        folds_figure({})


COST_ROWS = [{"multiple": k, "net_return_frac": 0.03 - 0.02 * k} for k in (0.5, 1.0, 2.0)]


@pytest.mark.parametrize(
    ("break_even", "finding", "lines"),
    [
        (1.5, "1.50", 4),
        (9.0, "9.00", 3),  # outside the range: not drawn
        (0.0, "without", 3),
        (None, "no cost", 3),
    ],
)
def test_costs_figure_says_where_the_net_return_is_zero(break_even, finding, lines):
    axes = costs_figure(COST_ROWS, break_even).axes[0]
    assert told(axes.get_title(loc="left"), finding)
    assert len(axes.get_lines()) == lines
    assert axes.get_lines()[1].get_ydata() == pytest.approx([2.0, 1.0, -1.0])
    assert told(axes.get_xlabel(), "[x base]")


def test_inputs_figure_ranks_inputs():
    axes = inputs_figure({f"f{i}": i / 100 for i in range(20)}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"f{i}" for i in range(19, 4, -1)]
    assert told(axes.get_title(loc="left"), "f19", "15 of 20")


def test_drift_figure_marks_alarms_and_draws_the_bound():
    rows = [
        {"name": "a", "test": "CUSUM", "statistic": 3.0, "alarm": True},
        {"name": "a", "test": "KS", "statistic": 0.5, "alarm": True},
        {"name": "b", "test": "KS", "statistic": 0.1, "alarm": False},
    ]
    figure = drift_figure(rows, {"a": np.linspace(0, 3, 30)}, "retrain")
    assert told(figure.get_suptitle(), "retrain", "2 of 3")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [0.5, 0.1]
    assert left.patches[0].get_facecolor() != left.patches[1].get_facecolor()
    assert {round(line.get_ydata()[0], 3) for line in right.get_lines()[1:]} == {-2.807, 2.807}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: costs_figure([], 1.0), "cost"),
        (lambda: inputs_figure({}), "input"),
        (lambda: drift_figure([], {}, "keep"), "drift"),
    ],
)
def test_figures_of_nothing_are_refused(call, named):
    with pytest.raises(DataError, match=says(named)):
        call()


def test_figures_are_nine_inches_wide_and_draw_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [bars_figure(splits()), exposure_figure(result()), equity_figure([result()])]
    assert {figure.get_figwidth() for figure in figures} == {9.0}


def test_module_imports_only_the_ground_layer_and_what_counts_as_flat():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(sac_kernel.report.plots.__file__).read_text(encoding="utf-8"))
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    own = {name for name in found if name.startswith("sac_kernel")}
    assert {name.split(".")[1] for name in own} - {"core"} == {"backtest"}


def test_policy_figure_draws_both_maps_and_the_edge_of_the_no_trade_region():
    x, p = np.linspace(-3, 3, 13), np.linspace(-1, 1, 21)
    band = np.where(x > 1, 1.0, np.where(x < -1, -1.0, 0.0))
    optimal = np.where(np.abs(x) > 1, band, p[:, None])
    figure = policy_figure(x, p, np.tile(np.tanh(x), (21, 1)), "predictor", optimal)
    titles = [ax.get_title(loc="left").lower() for ax in figure.axes[:2]]
    assert titles == [strings.THE_AGENT, strings.THE_OPTIMUM]
    for ax in figure.axes[:2]:
        edges = np.concatenate([path.vertices for path in ax.collections[-1].get_paths()])
        middle = np.abs(edges[np.abs(edges[:, 1]) < 0.8, 0])
        np.testing.assert_allclose(middle, 1.25, atol=0.26)  # between the cells at 1 and at 1.5
    alone = policy_figure(x, p, optimal, "predictor")
    assert len(alone.axes) == 2  # one map and its scale
    profit = {"agent": [1.0, 3.0], "optimum": [2.0, 4.0]}
    for width in (9.0, 4.5):
        beside = policy_figure(x, p, optimal, "predictor", optimal, profit, width)
        drawn = [line.get_ydata().tolist() for line in beside.axes[2].get_lines()]
        assert drawn == list(profit.values())
    with pytest.raises(DataError, match=says("(21, 13)", "(13, 21)", "agent")):
        policy_figure(x, p, optimal.T, "predictor")
