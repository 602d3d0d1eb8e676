"""The traded instrument: chosen at the build, stored in the file, honoured or refused with every kind of data."""

import dataclasses

import h5py
import numpy as np
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.questions import MissingFactsError, ask
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.instruments import spec_of
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import hash_splits, read_processed, read_traded
from tests.conftest import make_bars, make_data

NAMES = ("EURUSD", "GBPUSD", "USDJPY")


def write_csv(bars, path):
    bars.to_csv(path, date_format="%Y-%m-%dT%H:%M:%SZ")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hourly bars of three instruments, GBPUSD's beginning a day later: it sets other boundaries."""
    path = tmp_path_factory.mktemp("bars")
    for seed, name in enumerate(NAMES):
        bars = make_bars(1600, seed)
        write_csv(bars.iloc[24:] if name == "GBPUSD" else bars, path / f"{name}.csv")
    return path


def build(source, path, target, **given):
    config = {"source": source, "path": str(path), "output_path": str(target), **given}
    return DataPipeline(DataConfig(**config)).write()


@pytest.fixture(scope="module")
def panel(folder, tmp_path_factory):
    """The folder with GBPUSD traded, as a file."""
    target = tmp_path_factory.mktemp("panel") / "panel.h5"
    build("files", folder, target, instrument="GBPUSD", price_side="bid")
    return target


def older(path, target, *, version=2, drop=()):
    """Make a file of schema 2, which does not say what is traded, of one of schema 3 that trades EURUSD."""
    data = read_processed(path, instrument="EURUSD")
    write_processed(data, target)
    with h5py.File(target, "r+") as file:
        for split in ("train", "val", "test"):
            for name in drop:
                del file[f"{split}/{name}"]
        attrs = file["metadata"].attrs
        del attrs["traded"], file["metadata/instruments"]
        attrs["schema_version"] = version
        if drop:
            del attrs["content_hash"]
    return target


# -- a folder and single files


def test_a_folder_trades_what_was_asked_for_and_its_bars_set_the_splits(panel, folder):
    data = read_processed(panel)
    assert data.traded == read_traded(panel) == "GBPUSD"
    assert sorted(data.train) == list(NAMES)
    # 60 % of GBPUSD's 1,576 bars; by EURUSD's own they were 936 and 960.
    assert (len(data.train["GBPUSD"]), len(data.train["EURUSD"])) == (946, 946)
    assert data.describe()["traded"] == "GBPUSD"
    assert data.train["USDJPY"].instrument == "USDJPY"


def test_without_a_name_a_folder_trades_eurusd_or_its_only_one_or_none(folder, tmp_path):
    assert build("files", folder, tmp_path / "a.h5", price_side="bid").traded == "EURUSD"
    (tmp_path / "one").mkdir()
    write_csv(make_bars(1600), tmp_path / "one" / "USDCHF.csv")
    assert build("files", tmp_path / "one", tmp_path / "b.h5", price_side="bid").traded == "USDCHF"
    write_csv(make_bars(1600), tmp_path / "one" / "USDCAD.csv")
    with pytest.raises(DataError, match=r"USDCAD, USDCHF.*--instrument"):
        build("files", tmp_path / "one", tmp_path / "c.h5", price_side="bid")
    assert not (tmp_path / "c.h5").exists()


def test_a_single_file_is_of_the_instrument_that_its_name_tells(tmp_path):
    path = write_csv(make_bars(1600), tmp_path / "GBPUSD_H1.csv")
    assert build("files", path, tmp_path / "x.h5", price_side="bid").traded == "GBPUSD"
    with pytest.raises(DataError, match="GBPUSD"):
        build("files", path, tmp_path / "y.h5", price_side="bid", instrument="EURUSD")


@pytest.mark.parametrize(
    ("name", "instrument", "asked"),
    [
        ("bars.csv", "", {"instrument", "kind"}),
        ("AAPL.csv", "", {"kind"}),
        ("NEARUSDT.csv", "", set()),
        ("US30_M60.csv", "", set()),
        ("bars.csv", "AAPL", {"kind"}),
        ("bars.csv", "USDCHF", set()),
    ],
)
def test_what_a_name_does_not_tell_is_asked_for(tmp_path, name, instrument, asked):
    path = write_csv(make_bars(1600), tmp_path / name)
    config = DataConfig(source="files", path=str(path), price_side="bid", instrument=instrument)
    if not asked:
        ask(config)
        return
    with pytest.raises(MissingFactsError) as refused:
        ask(config)
    assert set(refused.value.missing) == asked


def test_an_instrument_that_is_not_built_in_is_built_with_its_kind(tmp_path):
    path = write_csv(make_bars(1600), tmp_path / "bars.csv")
    data = build("files", path, tmp_path / "x.h5", price_side="bid", instrument="AAPL", kind="equity")
    assert (data.traded, data.spec.kind, data.cost_note) == ("AAPL", "equity", "")
    assert read_processed(tmp_path / "x.h5").spec == data.spec


# -- an existing file


def test_an_h5_keeps_its_traded_instrument_or_takes_another_that_it_holds(panel, tmp_path):
    assert build("h5", panel, tmp_path / "same.h5").describe() == read_processed(panel).describe()
    assert read_processed(tmp_path / "same.h5").describe() == read_processed(panel).describe()
    other = build("h5", panel, tmp_path / "other.h5", instrument="USDJPY")
    assert other.traded == read_processed(tmp_path / "other.h5").traded == "USDJPY"
    assert other.test["USDJPY"].equals(read_processed(panel).test["USDJPY"])


def test_an_h5_that_lacks_the_instrument_is_refused_with_the_list(panel, tmp_path):
    with pytest.raises(DataError, match=r"AUDUSD.*EURUSD, GBPUSD, USDJPY.*--instrument"):
        build("h5", panel, tmp_path / "x.h5", instrument="AUDUSD")
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    "given",
    [{"price_side": "ask"}, {"clock": "Europe/Berlin"}, {"bar_minutes": 240}],
    ids=lambda g: next(iter(g)),
)
def test_what_an_h5_cannot_honour_is_refused(panel, tmp_path, given):
    with pytest.raises(DataError, match=f"--{next(iter(given)).replace('_', '-')}"):
        build("h5", panel, tmp_path / "x.h5", **given)
    assert (
        build("h5", panel, tmp_path / "x.h5", price_side="bid", clock="UTC", bar_minutes=60).traded
        == "GBPUSD"
    )


def test_a_file_at_its_own_place_is_rewritten_only_with_another_name(panel, tmp_path):
    path = tmp_path / "processed_data.h5"
    path.write_bytes(panel.read_bytes())
    build("h5", path, path)
    assert path.read_bytes() == panel.read_bytes()
    build("h5", path, path, instrument="EURUSD")
    assert read_traded(path) == "EURUSD"


@pytest.mark.parametrize("given", [{"instrument": "GBPUSD"}, {"price_side": "bid"}, {"clock": "mt-eet"}])
def test_the_sample_is_refused_as_anything_but_what_it_is(tmp_path, given):
    with pytest.raises(DataError, match="sample"):
        DataPipeline(DataConfig(output_path=str(tmp_path / "x.h5"), **given)).write()


def test_the_sample_is_eurusd_at_ask_on_utc(tmp_path):
    config = DataConfig(
        instrument="EURUSD",
        price_side="ask",
        clock="UTC",
        bar_minutes=240,
        output_path=str(tmp_path / "x.h5"),
    )
    data = DataPipeline(config).write()
    assert (data.traded, data.bar_seconds, data.cost_note) == ("EURUSD", 14_400, "")


def test_a_download_is_on_utc(tmp_path):
    config = DataConfig(source="download", clock="histdata", output_path=str(tmp_path / "x.h5"))
    with pytest.raises(DataError, match="clock"):
        DataPipeline(config).write()


# -- older files


def test_a_file_of_schema_2_trades_eurusd(panel, tmp_path):
    path = older(panel, tmp_path / "old.h5")
    assert read_traded(path) == ""
    found = read_processed(path)
    assert found.traded == "EURUSD"
    assert found.content_hash == read_processed(panel, instrument="EURUSD").content_hash
    assert read_processed(path, instrument="USDJPY").traded == "USDJPY"


def test_a_file_of_schema_2_without_eurusd_asks_for_a_name(panel, tmp_path):
    path = older(panel, tmp_path / "old.h5", drop=("EURUSD",))
    with pytest.raises(DataError, match=r"GBPUSD, USDJPY.*--instrument NAME"):
        read_processed(path)
    assert read_processed(path, instrument="USDJPY").traded == "USDJPY"


def test_an_unknown_schema_is_refused(panel, tmp_path):
    with pytest.raises(DataError, match="schema version 4"):
        read_processed(older(panel, tmp_path / "old.h5", version=1))


# -- what is stored


def test_the_hash_tells_apart_what_is_traded_and_that_of_eurusd_is_of_the_bars_alone(panel):
    hashes = {name: read_processed(panel, instrument=name).content_hash for name in NAMES}
    assert len(set(hashes.values())) == 3
    assert hashes["GBPUSD"] == hash_splits(read_processed(panel).splits, "GBPUSD")


def test_a_traded_name_that_was_edited_is_noticed(panel, tmp_path):
    path = tmp_path / "edited.h5"
    path.write_bytes(panel.read_bytes())
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["traded"] = "EURUSD"
    with pytest.raises(DataError, match="content hash"):
        read_processed(path)


def test_the_table_has_a_row_an_instrument_and_later_columns_are_passed_over(panel, tmp_path):
    path = tmp_path / "table.h5"
    path.write_bytes(panel.read_bytes())
    with h5py.File(path, "r+") as file:
        table = file["metadata/instruments"]
        assert table["symbol"][:].tolist() == [name.encode() for name in NAMES]
        table["later"] = np.array([b"a", b"b", b"c"])
    found = read_processed(path)
    assert found.specs == tuple(spec_of(name) for name in ("EURUSD", "GBPUSD", "USDJPY"))
    assert found.cost_note == ""
    write_processed(found, tmp_path / "again.h5")
    assert read_processed(tmp_path / "again.h5").specs == found.specs


@pytest.mark.parametrize(
    "column", [[1, 2, 3], [b"x" * 300] * 3, [b"EURUSD"], [[b"EURUSD"]] * 3, ["EURUSD"] * 3]
)
def test_a_table_of_another_form_is_refused(panel, tmp_path, column):
    path = tmp_path / "table.h5"
    path.write_bytes(panel.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["metadata/instruments/symbol"]
        file["metadata/instruments/symbol"] = np.array(column, object if isinstance(column[0], str) else None)
    with pytest.raises(DataError, match="/metadata/instruments"):
        read_processed(path)


def test_data_whose_bars_do_not_agree_are_refused():
    data = make_data(1600)
    for wrong in ({"side": "ask"}, {"side": ""}, {"seconds": 0}, {"seconds": 1800}):
        with pytest.raises(DataError, match="EURUSD in val"):
            dataclasses.replace(data, val={"EURUSD": Bars(data.val["EURUSD"], **wrong)})
    with pytest.raises(DataError, match="GBPUSD"):
        dataclasses.replace(data, traded="GBPUSD")
