"""Configuration is strict: unknown names, wrong types and wrong ranges are errors that say what to do."""

from dataclasses import dataclass

import pytest

from sac_kernel.core import config
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.pipeline import DataConfig
from tests.support import says, told


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
    with pytest.raises(ConfigError, match=says("count", "int", "None")):
        config.from_flat(Sample, {"count": None}, "here")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("count", 3.0, ("count", "int", 3.0, "float")),
        ("count", True, ("count", "int", True, "bool")),
        ("count", "3", ("count", "int", "'3'", "str")),
        ("rate", "fast", ("rate", "float", "'fast'", "str")),
        ("rate", True, ("rate", "float", True, "bool")),
        ("on", 1, ("on", "bool", 1, "int")),
        ("name", 1, ("name", "str", 1, "int")),
        ("sizes", 3, ("sizes", "list", 3, "int")),
        ("sizes", [1, 2.5], ("sizes[1]", "int", 2.5, "float")),
        ("sizes", [[1]], ("sizes[0]", "int", "[1]", "list")),
        ("limit", "5", ("limit", "int", "'5'", "str")),
    ],
)
def test_a_wrong_type_names_place_parameter_type_and_value(name, value, found):
    with pytest.raises(ConfigError, match=says("here", *found)):
        config.from_flat(Sample, {name: value}, "here")


def test_an_unknown_name_gets_the_nearest_one_and_the_list():
    with pytest.raises(ConfigError, match=says("here", "'cuont'", "'count'", "rate, count, name")):
        config.from_flat(Sample, {"cuont": 1}, "here")


def test_an_unknown_name_far_from_all_gets_no_guess():
    with pytest.raises(ConfigError, match=says("'zzzzzz'", "rate, count, name")):
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
    assert told(caught.value, "here", "x must be > 0", -1)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"cost_tier": "cheap"}, ("cost_tier", "raw, base, retail", "'cheap'")),
        ({"exposure_cap": 0.0}, ("exposure_cap", 30, 0.0)),
        ({"exposure_cap": 30.5}, ("exposure_cap", 30, 30.5)),
        ({"decision_interval_min": -5}, ("decision_interval_min", -5)),
        ({"episode_lengths": [100, 200]}, ("episode_lengths", "[100, 200]")),
        ({"episode_lengths": [0]}, ("episode_lengths",)),
        ({"horizon": 0}, ("horizon", 0)),
        ({"stop_loss_bps": -1.0}, ("stop_loss_bps", 10000, -1.0)),
        ({"take_profit_bps": 1e4}, ("take_profit_bps", 10000, 10000.0)),
        ({"initial_equity": 0.0}, ("initial_equity", 0)),
        ({"price_side": "last"}, ("price_side", "bid", "ask", "mid", "'last'")),
    ],
)
def test_env_config_refuses_values_out_of_range(values, found):
    with pytest.raises(ConfigError, match=says("TradingEnvConfig", *found)):
        TradingEnvConfig(**values)


def test_env_config_takes_one_episode_length_as_a_list():
    made = TradingEnvConfig(episode_lengths=[2000])
    assert (made.episode_length, made.horizon_bars) == (2000, 2000)
    assert TradingEnvConfig(episode_lengths=[2000], horizon=288).horizon_bars == 288


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"source": "web"}, ("source", "sample, files, h5, download", "'web'")),
        ({"source": "files"}, ("files", "path", "''")),
        ({"source": "h5"}, ("h5", "path", "''")),
        ({"instrument": "EUR/USD"}, ("instrument", "'EUR/USD'")),
        ({"train_fraction": 0.0}, ("train_fraction", 0.0)),
        ({"val_fraction": 1.0}, ("val_fraction", 1.0)),
        ({"train_fraction": 0.8, "val_fraction": 0.2}, ("train_fraction", "val_fraction", 1)),
        ({"bar_minutes": 1441}, ("bar_minutes", 1440, 1441)),
        ({"download_end": "31.01.2017"}, ("download_end", "2017-01-31", "'31.01.2017'")),
        ({"embargo_hours": 23.0}, ("embargo_hours", 24, 23.0)),
    ],
)
def test_data_config_refuses_values_out_of_range(values, found):
    with pytest.raises(ConfigError, match=says("DataConfig", *found)):
        DataConfig(**values)
