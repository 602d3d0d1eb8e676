"""Several traded instruments of one build: their specs and costs, what is asked for once, what is refused."""

import pytest

from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.prices.ingest.questions import MissingFactsError, ask
from sac_kernel.prices.instruments import EURUSD, spec_of
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_bars
from tests.support import says

COSTS = "slippage_bps=0.2;GBPUSD:spread_bps=2,commission_per_lot=7;EURUSD:commission_bps=.5"


def write_csv(bars, path):
    bars.to_csv(path, date_format="%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hours of three known instruments and of one that only its kind describes; USDCHF ends early."""
    path = tmp_path_factory.mktemp("bars")
    for seed, name in enumerate(("EURUSD", "GBPUSD", "USDJPY", "WIDGET", "USDCHF")):
        bars = make_bars(1600, seed) * (100.0 if name == "USDJPY" else 1.0)
        write_csv(bars.iloc[:1000] if name == "USDCHF" else bars, path / f"{name}.csv")
    return path


def config_of(folder, names, **given):
    return DataConfig(source="files", path=str(folder), instruments=names, price_side="bid", **given)


def build(folder, names, target, **given):
    DataPipeline(config_of(folder, names, output_path=str(target), **given)).write()
    return {spec.symbol: spec for spec in read_processed(target).specs}


# -- costs of one among several


def test_costs_for_all_come_first_and_an_instruments_own_replace_them():
    euro, pound = EURUSD.with_costs(COSTS), spec_of("GBPUSD").with_costs(COSTS)
    assert (euro.slippage_bps, euro.spread_bps, euro.commission_bps) == (0.2, EURUSD.spread_bps, 0.5)
    assert (pound.slippage_bps, pound.spread_bps) == (0.2, 2.0)
    # A commission a lot takes the place of the one in bps.
    assert (pound.commission_per_lot, pound.commission_bps) == (7.0, 0.0)
    assert euro.tiers == pound.tiers == (0.5, 1.0, 2.0)
    assert spec_of("gold").with_costs("GOLD:spread_bps=3").spread_bps == 3.0
    assert EURUSD.with_costs("GBPUSD:spread_bps=3") == EURUSD


@pytest.mark.parametrize("costs", ["GBPUSD:spred_bps=1", "GBPUSD:spread_bps=x", "GBPUSD:spread_bps=-1"])
def test_costs_of_any_instrument_are_checked(costs):
    with pytest.raises(ConfigError, match=says("spr")):
        DataConfig(instruments=("EURUSD", "GBPUSD"), costs=costs)


# -- the build


def test_each_traded_instrument_has_its_own_spec_and_the_first_sets_the_splits(folder, tmp_path):
    path = tmp_path / "widget.toml"
    path.write_text('symbol = "WIDGET"\nkind = "equity"\nspread_bps = 7.0\n')
    specs = build(
        folder, ("GBPUSD", "EURUSD", "WIDGET"), tmp_path / "x.h5", costs=COSTS, instrument_spec=(str(path),)
    )
    data = read_processed(tmp_path / "x.h5")
    assert data.traded == "GBPUSD"
    assert len(data.train["GBPUSD"]) == 960  # 60 % of 1,600
    assert (specs["GBPUSD"].spread_bps, specs["GBPUSD"].commission_per_lot) == (2.0, 7.0)
    assert (specs["EURUSD"].commission_bps, specs["EURUSD"].slippage_bps) == (0.5, 0.2)
    assert (specs["WIDGET"].kind, specs["WIDGET"].spread_bps, specs["WIDGET"].slippage_bps) == (
        "equity",
        7.0,
        0.2,
    )
    assert specs["USDJPY"] == spec_of("USDJPY")  # it is not traded
    pounds, widgets = data.trading("GBPUSD"), data.trading("WIDGET")
    assert pounds.content_hash == data.content_hash != widgets.content_hash
    assert widgets.spec == specs["WIDGET"]
    assert widgets.content_hash == read_processed(tmp_path / "x.h5", instrument="WIDGET").content_hash


def test_an_h5_takes_new_costs_of_several_and_keeps_the_others(folder, tmp_path):
    build(folder, ("EURUSD", "GBPUSD"), tmp_path / "x.h5", costs="GBPUSD:spread_bps=2")
    config = DataConfig(
        source="h5",
        path=str(tmp_path / "x.h5"),
        instruments=("GBPUSD", "USDJPY"),
        costs="USDJPY:spread_bps=3",
        output_path=str(tmp_path / "y.h5"),
    )
    DataPipeline(config).write()
    data = read_processed(tmp_path / "y.h5")
    specs = {spec.symbol: spec for spec in data.specs}
    assert data.traded == "GBPUSD"
    assert (specs["GBPUSD"].spread_bps, specs["USDJPY"].spread_bps) == (2.0, 3.0)
    with pytest.raises(DataError, match=says("NZDUSD", "EURUSD, GBPUSD")):
        DataPipeline(DataConfig(source="h5", path=config.path, instruments=("EURUSD", "NZDUSD"))).build()


def test_what_is_open_of_all_of_them_is_asked_for_in_one_message(folder, tmp_path):
    config = DataConfig(source="files", path=str(folder), instruments=("EURUSD", "WIDGET"))
    with pytest.raises(
        MissingFactsError, match=says("--instruments EURUSD,WIDGET", "--kind KIND")
    ) as refused:
        ask(config)
    assert refused.value.missing["kind"] == ["WIDGET.csv"]
    assert "price_side" in refused.value.missing
    ask(config_of(folder, ("EURUSD", "WIDGET"), kind="equity"))  # the kind is of those that are not known
    assert build(folder, ("EURUSD", "WIDGET"), tmp_path / "x.h5", kind="equity")["EURUSD"].kind == "fx"


@pytest.mark.parametrize(
    ("names", "given", "named"),
    [
        (("EURUSD", "AUDUSD", "NZDUSD"), {}, ("AUDUSD, NZDUSD", "EURUSD, GBPUSD")),
        (("EURUSD", "USDCHF"), {}, ("USDCHF", "EURUSD")),
        (("EURUSD", "GBPUSD"), {"costs": "USDJPY:spread_bps=1"}, ("--costs", "USDJPY")),
    ],
    ids=["unknown", "incomplete", "costs of another"],
)
def test_a_folder_that_cannot_serve_all_of_them_is_refused(folder, tmp_path, names, given, named):
    with pytest.raises((DataError, ConfigError), match=says(*named)):
        build(folder, names, tmp_path / "x.h5", **given)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"instruments": ("EURUSD", "EUR/USD")}, ("instruments", "EUR/USD")),
        ({"instruments": ("GOLD", "XAUUSD")}, ("instruments", "XAUUSD")),
        ({"instruments": ("EURUSD", "GBPUSD"), "instrument": "GBPUSD"}, ("instrument", "GBPUSD")),
    ],
)
def test_repeated_names_and_both_options_are_refused(given, named):
    with pytest.raises(ConfigError, match=says(*named)):
        DataConfig(**given)


def test_bars_of_different_lengths_are_refused_with_the_remedy(tmp_path):
    write_csv(make_bars(1600), tmp_path / "EURUSD.csv")
    write_csv(make_bars(1600, bar_seconds=900, start="2017-01-02T00:00:00Z"), tmp_path / "GBPUSD.csv")
    with pytest.raises(DataError, match=says("GBPUSD", 900, 3600, "--bar-minutes")):
        build(tmp_path, ("EURUSD", "GBPUSD"), tmp_path / "x.h5")


def test_a_single_file_holds_no_several_instruments(folder, tmp_path):
    for source, path in (("files", str(folder / "EURUSD.csv")), ("sample", "")):
        config = DataConfig(
            source=source, path=path, instruments=("EURUSD", "GBPUSD"), price_side="ask",
            output_path=str(tmp_path / "x.h5"),
        )  # fmt: skip
        with pytest.raises(DataError, match="--instruments"):
            DataPipeline(config).write()
