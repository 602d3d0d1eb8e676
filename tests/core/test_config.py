"""Configuration is strict: unknown names, wrong types and wrong ranges are errors that say what to do."""

from dataclasses import dataclass

import pytest

from sac_kernel.core import config
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.pipeline import DataConfig


@dataclass(frozen=True)
class Sample:
    rate: float = 0.5
    count: int = 1
    name: str = "a"
    on: bool = False
    sizes: tuple[int, ...] = (1,)
    limit: int | None = None


def test_values_become_fields():
    made = config.from_flat(Sample, {"rate": 0.25, "count": 2, "sizes": [3, 4], "limit": 5}, "here")
    assert made == Sample(rate=0.25, count=2, sizes=(3, 4), limit=5)


def test_an_int_is_a_float_where_a_float_is_asked_for():
    made = config.from_flat(Sample, {"rate": 2}, "here")
    assert made.rate == 2.0
    assert type(made.rate) is float


def test_none_is_allowed_only_where_the_annotation_says_so():
    assert config.from_flat(Sample, {"limit": None}, "here").limit is None
    with pytest.raises(ConfigError, match=r"count must be int, got None \(NoneType\)"):
        config.from_flat(Sample, {"count": None}, "here")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 3.0, r"here: count must be int, got 3\.0 \(float\)"),
        ("count", True, r"here: count must be int, got True \(bool\)"),
        ("count", "3", r"here: count must be int, got '3' \(str\)"),
        ("rate", "fast", r"here: rate must be float, got 'fast' \(str\)"),
        ("rate", True, r"here: rate must be float, got True \(bool\)"),
        ("on", 1, r"here: on must be bool, got 1 \(int\)"),
        ("name", 1, r"here: name must be str, got 1 \(int\)"),
        ("sizes", 3, r"here: sizes must be a flat list of int, got 3 \(int\)"),
        ("sizes", [1, 2.5], r"here: sizes\[1\] must be int, got 2\.5 \(float\)"),
        ("sizes", [[1]], r"here: sizes\[0\] must be int, got \[1\] \(list\)"),
        ("limit", "5", r"here: limit must be int, got '5' \(str\)"),
    ],
)
def test_a_wrong_type_names_place_parameter_type_and_value(name, value, message):
    with pytest.raises(ConfigError, match=message):
        config.from_flat(Sample, {name: value}, "here")


def test_an_unknown_name_gets_the_nearest_one_and_the_list():
    expected = r"here: unknown parameter 'cuont' \(did you mean 'count'\?\); known: rate, count, name"
    with pytest.raises(ConfigError, match=expected):
        config.from_flat(Sample, {"cuont": 1}, "here")


def test_an_unknown_name_far_from_all_gets_no_guess():
    with pytest.raises(ConfigError, match=r"unknown parameter 'zzzzzz'; known: "):
        config.from_flat(Sample, {"zzzzzz": 1}, "here")


def test_flat_form_and_back_is_the_same_config():
    made = Sample(rate=0.1, sizes=(5, 6), limit=7)
    flat = config.to_flat(made)
    assert flat["sizes"] == [5, 6]
    assert config.from_flat(Sample, flat, "here") == made


def test_difference_names_each_value_that_differs():
    lines = config.difference({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3, "d": 4})
    assert lines == ["b: saved 2, here 3", "c: saved None, here 'nothing'", "d: saved 'nothing', here 4"]
    assert config.difference({"a": [1]}, {"a": [1]}) == []


def test_config_errors_are_value_errors_of_the_package():
    with pytest.raises(SacKernelError) as caught:
        config.require(False, "here", "x must be > 0", -1)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == "here: x must be > 0, got -1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cost_tier": "cheap"}, "cost_tier must be one of raw, base, retail, got 'cheap'"),
        ({"exposure_cap": 0.0}, r"exposure_cap must be in \(0, 30\], got 0\.0"),
        ({"exposure_cap": 30.5}, r"exposure_cap must be in \(0, 30\], got 30\.5"),
        ({"decision_interval_min": -5}, "decision_interval_min must be >= 0, got -5"),
        ({"episode_lengths": [100, 200]}, r"episode_lengths must hold one positive number, got \[100, 200\]"),
        ({"episode_lengths": [0]}, "episode_lengths must hold one positive number"),
        ({"horizon": 0}, "horizon must be > 0 bars, got 0"),
        ({"stop_loss_bps": -1.0}, r"stop_loss_bps must be in \[0, 10000\), got -1\.0"),
        ({"take_profit_bps": 1e4}, r"take_profit_bps must be in \[0, 10000\), got 10000\.0"),
        ({"initial_equity": 0.0}, "initial_equity must be > 0"),
        ({"price_side": "last"}, "price_side must be bid, ask or mid, got 'last'"),
    ],
)
def test_env_config_refuses_values_out_of_range(values, message):
    with pytest.raises(ConfigError, match=f"TradingEnvConfig: {message}"):
        TradingEnvConfig(**values)


def test_env_config_takes_one_episode_length_as_a_list():
    made = TradingEnvConfig(episode_lengths=[2000])
    assert (made.episode_length, made.horizon_bars) == (2000, 2000)
    assert TradingEnvConfig(episode_lengths=[2000], horizon=288).horizon_bars == 288


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "web"}, "source must be one of sample, files, h5, download, got 'web'"),
        ({"source": "files"}, "files needs a path, got ''"),
        ({"source": "h5"}, "h5 needs a path, got ''"),
        ({"instrument": "EUR/USD"}, "instrument must be letters and digits, got 'EUR/USD'"),
        ({"train_fraction": 0.0}, r"train_fraction must be in \(0, 1\), got 0\.0"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \(0, 1\), got 1\.0"),
        ({"train_fraction": 0.8, "val_fraction": 0.2}, r"train_fraction \+ val_fraction must be below 1"),
        ({"bar_minutes": 1441}, r"bar_minutes must be in \[0, 1440\], got 1441"),
        ({"download_end": "31.01.2017"}, "download_end must be a day such as 2017-01-31, got '31.01.2017'"),
        ({"embargo_hours": 23.0}, r"embargo_hours must be >= 24, got 23\.0"),
    ],
)
def test_data_config_refuses_values_out_of_range(values, message):
    with pytest.raises(ConfigError, match=f"DataConfig: {message}"):
        DataConfig(**values)
