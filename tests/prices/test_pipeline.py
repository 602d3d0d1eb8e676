"""The processed file: written whole, read back bit for bit, refused when it is not what it should be."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sac_kernel.core import paths
from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.prices.bars import Bars, inspect_bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import hash_splits, read_processed
from tests.conftest import make_bars, make_data
from tests.support import says

PRICES = ["open", "high", "low", "close"]


@pytest.fixture
def path(tmp_path, data):
    target = tmp_path / "processed_data.h5"
    write_processed(data, target)
    return target


def csv_of(bars, path):
    bars.to_csv(path, date_format="%Y-%m-%dT%H:%M:%SZ")
    return path


# -- the file


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_bars_are_read_back_bit_for_bit(path, data, split):
    written, found = data.splits[split]["EURUSD"], read_processed(path).splits[split]["EURUSD"]
    assert found.index.equals(written.index)
    assert (found.index.name, str(found.index.tz)) == ("open_time_utc", "UTC")
    assert found.columns.tolist() == PRICES
    assert found.to_numpy().tobytes() == written.to_numpy().tobytes()
    assert found.dtypes.unique().tolist() == [np.dtype(np.float64)]


def test_what_the_file_says_of_itself_is_read_back(path, data):
    found = read_processed(path)
    assert found.describe() == data.describe()
    assert (found.bar_seconds, found.price_side, found.source, found.clock) == (
        3600,
        "bid",
        "synthetic",
        "UTC",
    )
    bars = found.test["EURUSD"]
    assert (bars.side, bars.seconds, bars.instrument) == ("bid", 3600, "EURUSD")


def test_the_layout_is_the_contract(path, data):
    with h5py.File(path) as file:
        assert sorted(file) == ["metadata", "test", "train", "val"]
        group = file["val/EURUSD"]
        assert sorted(group) == sorted([*PRICES, "timestamp"])
        assert group["timestamp"].dtype == np.int64
        assert group["close"].dtype == np.float64
        # Seconds of the bar's open: 2017-01-02T00:00Z is 17,168 days after the epoch.
        assert file["train/EURUSD/timestamp"][0] == 17_168 * 86_400
        assert all(d.chunks and d.compression == "gzip" and d.fletcher32 for d in group.values())
        attrs = dict(file["metadata"].attrs)
    assert list(attrs["pairs"]) == ["EURUSD"]
    assert attrs["train_start"] == data.train["EURUSD"].index[0].isoformat()
    assert attrs["test_end"] == data.test["EURUSD"].index[-1].isoformat()
    known = {"bar_seconds", "price_side", "source", "clock", "content_hash", "schema_version"}
    assert known <= set(attrs)


def test_two_writes_are_equal_bytes(tmp_path, path, data):
    again = tmp_path / "other place" / "other.h5"
    write_processed(data, again)
    assert again.read_bytes() == path.read_bytes()


def test_the_hash_is_of_the_content_and_changes_with_one_price(data):
    splits = {name: {"EURUSD": bars["EURUSD"].copy()} for name, bars in data.splits.items()}
    same = hash_splits(splits, "EURUSD")
    assert same == data.content_hash
    splits["test"]["EURUSD"].iloc[17, 3] = np.nextafter(splits["test"]["EURUSD"].iloc[17, 3], 2.0)
    assert hash_splits(splits, "EURUSD") != same


@pytest.mark.parametrize(("seconds", "side"), [(300, "bid"), (3600, "ask")])
def test_the_hash_covers_bar_length_and_price_side(data, seconds, side):
    splits = {
        name: {"EURUSD": Bars(part["EURUSD"], side=side, seconds=seconds)}
        for name, part in data.splits.items()
    }
    assert hash_splits(splits, "EURUSD") != data.content_hash


def test_the_hash_covers_the_time_of_a_bar_and_its_split(data):
    moved = {name: {"EURUSD": bars["EURUSD"].shift(freq="1s")} for name, bars in data.splits.items()}
    swapped = {"train": data.train, "val": data.test, "test": data.val}
    hashes = {hash_splits(s, "EURUSD") for s in (data.splits, moved, swapped)}
    assert len(hashes) == 3


# -- what is refused


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=says("no.h5")):
        read_processed(tmp_path / "no.h5")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_or_empty_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=says("processed_data.h5", "HDF5")):
        read_processed(path)


def test_a_text_file_is_refused(path):
    path.write_text("open,high,low,close\n")
    with pytest.raises(DataError, match=says("HDF5")):
        read_processed(path)


def test_a_damaged_block_is_refused(path):
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        offset = file["train/EURUSD/close"].id.get_chunk_info(0).byte_offset
    content[offset + 100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=says("processed_data.h5")):
        read_processed(path)


def drop_split(file):
    del file["val"]


def drop_close(file):
    del file["val/EURUSD/close"]


def flatten(file):
    for name in ("train", "val", "test"):
        file.move(f"{name}/EURUSD", f"{name}_EURUSD")


def group_for_dataset(file):
    del file["val/EURUSD/close"]
    file.create_group("val/EURUSD/close")


def dataset_for_group(file):
    del file["val/EURUSD"]
    file["val/EURUSD"] = np.arange(3)


def replace(file, name, values):
    del file[name]
    file[name] = values


def shorten(file):
    replace(file, "val/EURUSD/close", file["val/EURUSD/close"][:-1])


def two_dimensional(file):
    for name in file["val/EURUSD"]:
        replace(file, f"val/EURUSD/{name}", file[f"val/EURUSD/{name}"][:][:, None])


def text_prices(file):
    replace(file, "val/EURUSD/close", file["val/EURUSD/close"][:].astype("S12"))


def float_times(file):
    replace(file, "val/EURUSD/timestamp", file["val/EURUSD/timestamp"][:].astype(np.float64))


def no_bars(file):
    for name in file["val/EURUSD"]:
        replace(file, f"val/EURUSD/{name}", file[f"val/EURUSD/{name}"][:0])


def set_price(name, value):
    def change(file):
        file[f"val/EURUSD/{name}"][5] = value

    return change


def unsorted(file):
    stamps = file["val/EURUSD/timestamp"]
    stamps[5:7] = stamps[5:7][::-1]


def duplicate(file):
    stamps = file["val/EURUSD/timestamp"]
    stamps[6] = stamps[5]


def thousandth(file):
    for split in ("train", "val", "test"):
        replace(file, f"{split}/EURUSD/timestamp", file[f"{split}/EURUSD/timestamp"][:] // 1000)


def thousandfold(file):
    for split in ("train", "val", "test"):
        replace(file, f"{split}/EURUSD/timestamp", file[f"{split}/EURUSD/timestamp"][:] * 1000)


def other_version(file):
    file["metadata"].attrs["schema_version"] = 99


def other_price(file):
    file["train/EURUSD/high"][3] += 0.001


def no_side(file):
    del file["metadata"].attrs["price_side"]


def overlap(file):
    # Validation from 2019 on inside a train block that ends later: the best model would be chosen on it.
    first = file["train/EURUSD/timestamp"][100]
    stamps = file["val/EURUSD/timestamp"][:]
    replace(file, "val/EURUSD/timestamp", stamps - stamps[0] + first)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (drop_split, ("/train", "/metadata", "/test")),
        (flatten, ("/train", "/metadata")),
        (
            drop_close,
            ("/val/EURUSD", "close", "high, low, open, t"),
        ),
        (group_for_dataset, ("/val/EURUSD", "timestamp, open, high, low, close")),
        (
            dataset_for_group,
            ("/val/EURUSD", "timestamp, open, high, low, close", "Dataset"),
        ),
        (
            shorten,
            ("/val/EURUSD", "equal length", "'timestamp'"),
        ),
        (two_dimensional, ("/val/EURUSD", "one-dimensional")),
        (text_prices, ("int64", "|S12")),
        (float_times, ("int64", "'float64'")),
        (no_bars, ("/val/EURUSD", "empty")),
        (set_price("close", np.nan), ("/val/EURUSD", "finite", 1, "bar 5")),
        (set_price("low", 0.0), ("/val/EURUSD", "above 0", 1)),
        (set_price("low", -1.0), ("/val/EURUSD", "above 0", 1)),
        (set_price("high", 0.1), ("/val/EURUSD", "high", "low", 1)),
        (unsorted, ("/val/EURUSD", "increasing", 1)),
        (duplicate, ("/val/EURUSD", "unique", 1)),
        (thousandth, ("Unix seconds", 1000)),
        (thousandfold, ("Unix seconds", 1483315200000)),
        (other_version, ("schema", 4, 99)),
        (other_price, ("content hash",)),
        (no_side, ("price side", "bid", "ask", "mid")),
        (overlap, ("EURUSD", "val", "2017-01-06T04:00:00")),
    ],
)
def test_a_file_of_another_content_is_refused_with_place_requirement_and_finding(path, spoil, found):
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(DataError, match=says("processed_data.h5", *found)):
        read_processed(path)


def test_an_empty_hdf5_file_is_refused(path):
    h5py.File(path, "w").close()
    with pytest.raises(DataError, match=says("empty")):
        read_processed(path)


def test_a_file_without_its_side_is_read_when_it_is_told(path, data):
    with h5py.File(path, "r+") as file:
        del file["metadata"]
    found = read_processed(path, "bid")
    assert found.price_side == "bid"
    assert found.bar_seconds == 3600
    assert found.content_hash == data.content_hash


def test_another_side_or_clock_than_the_file_states_is_refused(path):
    assert read_processed(path, "bid", "UTC").price_side == "bid"
    for stated in (("ask", None), (None, "Europe/Berlin"), (None, "histdata")):
        with pytest.raises(DataError, match=r"processed_data\.h5"):
            read_processed(path, *stated)


def test_extra_columns_of_an_older_file_are_ignored(path):
    with h5py.File(path, "r+") as file:
        for split in ("train", "val", "test"):
            file[f"{split}/EURUSD/raw_open"] = file[f"{split}/EURUSD/open"][:]
    assert read_processed(path).train["EURUSD"].columns.tolist() == PRICES


@pytest.mark.parametrize(
    "content",
    ["open_time_utc,open,high,low,close\n", "2017-01-02T00:00:00Z,1,2,3,4\n", ""],
    ids=["no_bars", "no_header", "empty"],
)
def test_bad_bars_leave_the_earlier_output_as_it_was(path, tmp_path, content):
    before = path.read_bytes()
    source = tmp_path / "bad.csv"
    source.write_text(content)
    config = DataConfig(source="files", path=str(source), price_side="bid", output_path=str(path))
    with pytest.raises(DataError, match=r"bad\.csv"):
        DataPipeline(config).run_full_pipeline()
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "processed_data.h5"]


def test_too_few_bars_for_three_splits_are_refused(path, tmp_path):
    before = path.read_bytes()
    source = csv_of(make_bars(150), tmp_path / "EURUSD_short.csv")
    config = DataConfig(source="files", path=str(source), price_side="bid", output_path=str(path))
    # 150 hours: validation has 30, its embargo of 120 hours takes them all.
    with pytest.raises(DataError, match=says("val", 120, 0, 150)):
        DataPipeline(config).run_full_pipeline()
    assert path.read_bytes() == before


# -- the splits


def test_splits_follow_each_other_with_the_embargo_between():
    bars = make_bars(1000, weekends=False)
    data = split_table(BarTable(bars, "", "UTC"), DataConfig())
    train, val, test = (split["EURUSD"].index for split in data.splits.values())
    # 600 and 800 of 1,000 hours are the boundaries; the bar before each, 599 and 799, plus 120 hours.
    first = bars.index[0]
    hours = [
        (t - first).total_seconds() / 3600 for t in (train[0], train[-1], val[0], val[-1], test[0], test[-1])
    ]
    assert hours == [0, 599, 719, 799, 919, 999]


def test_no_bar_is_in_two_splits_and_the_embargo_holds_across_weekends(data):
    train, val, test = (split["EURUSD"].index for split in data.splits.values())
    assert val[0] - train[-1] >= pd.Timedelta(hours=120)
    assert test[0] - val[-1] >= pd.Timedelta(hours=120)
    assert not set(train) & set(val)
    assert not set(val) & set(test)


def test_split_bars_are_the_sources_own():
    bars = make_bars(1000)
    data = split_table(BarTable(bars, "", "UTC"), DataConfig(train_fraction=0.5, val_fraction=0.25))
    for split in data.splits.values():
        part = split["EURUSD"]
        assert part.to_numpy().tobytes() == bars.loc[part.index].to_numpy().tobytes()


# -- the pipeline


def test_csv_to_file_to_splits(tmp_path):
    bars = make_bars(1200)
    source = csv_of(bars, tmp_path / "bars.csv")
    target = tmp_path / "made" / "processed_data.h5"
    pipeline = DataPipeline(
        DataConfig(
            source="files", path=str(source), instrument="GBPUSD", price_side="ask", output_path=str(target)
        )
    )
    made, found = pipeline.run_full_pipeline(), pipeline.get_processed_data()
    for one, other in zip(made, found, strict=True):
        pd.testing.assert_frame_equal(one["GBPUSD"], other["GBPUSD"], check_exact=True, check_freq=False)
    assert found[0]["GBPUSD"]["close"].iloc[7] == bars["close"].iloc[7]  # text holds all digits


def test_a_source_of_its_own_replaces_the_earlier_file(tmp_path, path):
    source = csv_of(make_bars(1200, seed=5), tmp_path / "EURUSD.csv")
    DataPipeline(
        DataConfig(source="files", path=str(source), price_side="bid", output_path=str(path))
    ).run_full_pipeline()
    assert len(read_processed(path).train["EURUSD"]) == 720


def test_the_default_source_uses_an_existing_file_or_the_sample(path, data):
    pipeline = DataPipeline(DataConfig(output_path=str(path)))
    assert len(pipeline.run_full_pipeline()[0]["EURUSD"]) == len(data.train["EURUSD"])
    path.unlink()
    # 6,225 sample bars, 60 % of them.
    assert len(pipeline.run_full_pipeline()[0]["EURUSD"]) == 3735
    assert read_processed(path).price_side == "ask"


def test_an_existing_h5_is_a_source(tmp_path, path, data):
    target = tmp_path / "copy.h5"
    DataPipeline(DataConfig(source="h5", path=str(path), output_path=str(target))).run_full_pipeline()
    assert target.read_bytes() == path.read_bytes()
    assert read_processed(target).content_hash == data.content_hash


def test_processed_data_is_found_on_the_mount(tmp_path, data, monkeypatch):
    write_processed(data, tmp_path / "input" / "slug" / "processed_data.h5")
    monkeypatch.setenv(paths.INPUT_ROOT_VARIABLE, str(tmp_path / "input"))
    found = DataPipeline(DataConfig(output_path=str(tmp_path / "absent.h5"))).get_processed_data()
    assert len(found[2]["EURUSD"]) == len(data.test["EURUSD"])


def test_inspection_counts_gaps_flat_bars_and_the_largest_move():
    bars = make_bars(400).drop(make_bars(400).index[[50, 51, 52]])  # three hours are missing on a Wednesday
    bars.iloc[10, :] = bars.iloc[9, 3]
    bars.iloc[200, 3] = bars.iloc[199, 3] * np.exp(0.05)
    bars.iloc[200, 1] = bars.iloc[200, 3]
    before = bars.copy()
    found = inspect_bars(bars, 3600)
    # 397 bars of 120 a week from a Monday: weekends after the 1st, 2nd and 3rd week.
    assert (found["gaps"], found["weekend_gaps"], found["flat_bars"]) == (4, 3, 1)
    assert found["longest_gap_h"] == 49.0  # 16:00 to 17:00 New York two days on
    assert found["largest_move_bps"] == pytest.approx(500.0, abs=1e-9)
    assert found["largest_move_utc"] == bars.index[200].isoformat()
    pd.testing.assert_frame_equal(bars, before)


def test_data_of_another_bar_size_states_it(tmp_path):
    data = make_data(9000, bar_seconds=300)
    write_processed(data, tmp_path / "m5.h5")
    assert read_processed(tmp_path / "m5.h5").bar_seconds == 300
