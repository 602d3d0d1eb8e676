"""Files from elsewhere: the first attempt's layouts, and what an HDF5 file may not do to its reader."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.prices import processed_file
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed, writing
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import hash_splits, read_processed
from tests.conftest import make_bars, make_data
from tests.support import says, told

PRICES = ("open", "high", "low", "close")


@pytest.fixture
def path(tmp_path, data):
    target = tmp_path / "processed_data.h5"
    write_processed(data, target)
    return target


def first_attempt(path, splits, raw=True, attrs=True, seconds=1):
    """Write a file as the first attempt's code did: contiguous, with raw_ copies, names as an object array."""
    with h5py.File(path, "w") as file:
        for split, instruments in splits.items():
            for name, bars in instruments.items():
                group = file.create_group(f"{split}/{name}")
                group["timestamp"] = bars.index.as_unit("s").asi8 // seconds
                for k in PRICES:
                    group[k] = bars[k].to_numpy()
                for k in ("open", "close") if raw else ():
                    group[f"raw_{k}"] = bars[k].to_numpy()
        if attrs:
            stored = file.create_group("metadata").attrs
            stored["pairs"] = np.array(["EURUSD", "USDJPY"], dtype=object)
            stored["train_start"] = "2012-01-01"
            stored["created_at"] = "2025-01-01T00:00:00"
    return path


# -- the first attempt


def test_a_file_of_the_first_attempt_is_read_when_its_side_is_said(tmp_path, data):
    path = first_attempt(tmp_path / "old.h5", data.splits)
    found = read_processed(path, "bid")
    assert found.content_hash == data.content_hash
    assert found.describe()["splits"] == data.describe()["splits"]
    with pytest.raises(DataError, match=says("price side")):
        read_processed(path)


def test_the_combined_file_is_read_and_its_features_passed_over(tmp_path, data):
    path = first_attempt(tmp_path / "combined_data.h5", data.splits, raw=False, attrs=False)
    with h5py.File(path, "r+") as file:
        for split in ("train", "val", "test"):
            file[f"{split}/features/return_5min"] = np.zeros(5)
    assert read_processed(path, "bid").content_hash == data.content_hash


def test_normalised_features_without_their_scaler_are_refused(tmp_path):
    with h5py.File(tmp_path / "features_normalized.h5", "w") as file:
        file["features/train/return_5min"] = np.zeros(5)
        file["hidden/train/timestamp"] = np.arange(5)
    with pytest.raises(DataError, match=says("scaler")):
        read_processed(tmp_path / "features_normalized.h5", "bid")


def test_timestamps_a_thousand_times_too_small_are_refused_with_the_reason(tmp_path, data):
    path = first_attempt(tmp_path / "old.h5", data.splits, seconds=1000)
    with pytest.raises(DataError, match=says("seconds", 1000)):
        read_processed(path, "bid")


def test_validation_inside_train_is_refused(tmp_path, data):
    splits = {"train": data.train, "val": {"EURUSD": data.train["EURUSD"].iloc[500:]}, "test": data.test}
    with pytest.raises(DataError, match=says("splits")):
        read_processed(first_attempt(tmp_path / "old.h5", splits), "bid")


def test_one_instruments_validation_inside_anothers_train_is_refused(tmp_path, data):
    early = {"EURUSD": data.val["EURUSD"], "USDJPY": data.train["EURUSD"].iloc[900:1000]}
    splits = {"train": {"EURUSD": data.train["EURUSD"], "USDJPY": data.train["EURUSD"].iloc[:800]},
              "val": early, "test": {"EURUSD": data.test["EURUSD"], "USDJPY": data.test["EURUSD"]}}  # fmt: skip
    with pytest.raises(DataError, match=says("USDJPY", "val", "train", "EURUSD")):
        read_processed(first_attempt(tmp_path / "old.h5", splits), "bid")


def test_an_instrument_that_is_not_in_every_split_is_left_out_with_a_note(tmp_path, data):
    splits = {"train": {**data.train, "USDJPY": data.train["EURUSD"]}, "val": data.val, "test": data.test}
    found = read_processed(first_attempt(tmp_path / "old.h5", splits), "bid")
    assert sorted(found.train) == ["EURUSD"]
    assert len(found.notes) == 1
    assert told(found.notes[0], "old.h5", "USDJPY")


def year_and_a_half(late_in_summer):
    """Hourly bars of 2017-01 to 2018-06 on the true clock, or as the first attempt put them: label + 5 h."""
    bars = make_bars(9000, start="2017-01-02T00:00:00Z")
    if late_in_summer:
        labels = bars.index.tz_convert("America/New_York").tz_localize(None)
        bars.index = (labels + pd.Timedelta(hours=5)).tz_localize("UTC").rename("open_time_utc")
    return split_table(BarTable(bars, "", "UTC"), DataConfig(train_fraction=0.8, val_fraction=0.1))


def test_histdata_labels_plus_five_hours_are_refused_and_corrected_on_request(tmp_path):
    path = first_attempt(tmp_path / "old.h5", year_and_a_half(late_in_summer=True).splits)
    with pytest.raises(DataError, match=says("22:00", "histdata")):
        read_processed(path, "bid")
    corrected, true = read_processed(path, "bid", "histdata"), year_and_a_half(late_in_summer=False)
    pd.testing.assert_frame_equal(corrected.train["EURUSD"], true.train["EURUSD"], check_freq=False)
    late = read_processed(path, "bid", "UTC").train["EURUSD"].index - true.train["EURUSD"].index
    assert set(late[true.train["EURUSD"].index.month == 7]) == {pd.Timedelta(hours=1)}


def test_the_true_clock_is_not_suspected(tmp_path):
    path = first_attempt(tmp_path / "old.h5", year_and_a_half(late_in_summer=False).splits)
    assert read_processed(path, "bid").clock == "UTC"


# -- a file is data


def external(file, name):
    file[name] = h5py.ExternalLink("other.h5", f"/{name}")


def soft(file, name):
    file[name] = h5py.SoftLink("/train/EURUSD/open")


def huge(file, name):
    file.create_dataset(name, (10**12,), "f8", chunks=(1024,), compression="gzip")


def virtual(file, name):
    layout = h5py.VirtualLayout((480,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (480,))
    file.create_virtual_dataset(name, layout)


def outside(file, name):
    file.create_dataset(name, (480,), "f8", external=[("other.raw", 0, h5py.h5f.UNLIMITED)])


def unknown_filter(file, name):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((480,))
    plist.set_filter(32_013, h5py.h5z.FLAG_OPTIONAL, (1, 2))  # zfp, a plugin
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((480,)), plist)


def unwritten(file, name):
    file.create_dataset(name, (480,), "f8", chunks=(48,))


@pytest.mark.parametrize(
    ("replacement", "found"),
    [
        (external, ("val/EURUSD/close", "ExternalLink")),
        (soft, ("val/EURUSD/close", "SoftLink")),
        (huge, ("20,000,000 rows", "1,000,000,000,000 rows")),
        (virtual, ("val/EURUSD/close",)),
        (outside, ("val/EURUSD/close",)),
        (unknown_filter, ("gzip, shuffle, fletcher32, lzf", 32013)),
        (unwritten, ("480 rows", "0 bytes")),
    ],
)
def test_what_leads_elsewhere_or_claims_too_much_is_refused(path, replacement, found):
    with h5py.File(path, "r+") as file:
        for column in ("timestamp", *PRICES):
            values = np.resize(file[f"val/EURUSD/{column}"][:], 480)
            del file[f"val/EURUSD/{column}"]
            if replacement is huge:
                file.create_dataset(f"val/EURUSD/{column}", (10**12,), values.dtype, chunks=(1024,))
            else:
                file[f"val/EURUSD/{column}"] = values
        del file["val/EURUSD/close"]
        replacement(file, "val/EURUSD/close")
    with pytest.raises(DataError, match=says("processed_data.h5", *found)):
        read_processed(path)


def test_names_that_stand_for_the_same_data_are_counted_every_time(path, monkeypatch):
    """One column of the file under hundreds of names is small on the disk and large in memory."""
    monkeypatch.setattr(processed_file, "_MAX_TOTAL_BYTES", 1_000_000)
    read_processed(path)
    with h5py.File(path, "r+") as file:
        for i in range(20):
            group = file.create_group(f"train/X{i:02d}")
            for column in ("timestamp", *PRICES):
                group[column] = file[f"train/EURUSD/{column}"]  # a hard link
    with pytest.raises(DataError, match=says("1,000,000 bytes")):
        read_processed(path)


@pytest.mark.parametrize("name", ["val", "val/EURUSD", "metadata"])
def test_a_group_elsewhere_is_refused(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", f"/{name}")
    with pytest.raises(DataError, match=says("ExternalLink")):
        read_processed(path)


@pytest.mark.parametrize("value", [np.arange(9), np.zeros(10_000, "S1")])
def test_an_attribute_of_another_shape_is_refused(path, value):
    with h5py.File(path, "r+") as file:
        del file["metadata"].attrs["price_side"]
        file["metadata"].attrs["price_side"] = value
    with pytest.raises(DataError, match=says("metadata", "price_side", "shape")):
        read_processed(path)


def test_a_bar_length_that_the_bars_deny_is_refused(path):
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["bar_seconds"] = 7200
    with pytest.raises(DataError, match=says("7200", "3600")):
        read_processed(path)


# -- writing


def test_writing_one_by_one_gives_the_bytes_of_writing_at_once(tmp_path, data):
    write_processed(data, tmp_path / "once.h5")
    with writing(tmp_path / "each.h5", "EURUSD") as writer:
        writer.add("EURUSD", {name: split["EURUSD"] for name, split in data.splits.items()})
        writer.finish(data.source, data.clock)
    assert (tmp_path / "each.h5").read_bytes() == (tmp_path / "once.h5").read_bytes()
    assert read_processed(tmp_path / "each.h5").content_hash == hash_splits(data.splits, "EURUSD")


def test_a_writer_that_fails_leaves_nothing(tmp_path, data):
    def fail():
        with writing(tmp_path / "x.h5", "EURUSD") as writer:
            writer.add("EURUSD", {name: split["EURUSD"] for name, split in data.splits.items()})
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        fail()
    assert list(tmp_path.iterdir()) == []


def folder_of(path, instrument="EURUSD"):
    return DataConfig(
        source="files",
        path=str(path),
        instrument=instrument,
        price_side="bid",
        embargo_hours=24.0,
        output_path=str(path / "x.h5"),
    )


def test_notes_travel_with_the_file(tmp_path):
    bars = make_bars(3000, bar_seconds=300)
    for name in ("EURUSD", "GBPUSD"):
        bars.to_csv(tmp_path / f"{name}.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    make_bars(1500, bar_seconds=300).to_csv(tmp_path / "USDJPY.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    config = folder_of(tmp_path)
    data = DataPipeline(config).write()
    assert sorted(data.train) == ["EURUSD", "GBPUSD"]
    assert any(told(note, "USDJPY") for note in data.notes)
    assert any(told(note, "USDSEK") for note in data.describe()["notes"])
    assert read_processed(tmp_path / "x.h5").notes == data.notes


@pytest.mark.parametrize(
    ("instrument", "found"),
    [
        ("AUDUSD", ("AUDUSD", "EURUSD, GBPUSD")),
        ("EURUSD", (300, 3600, "GBPUSD", "--bar-minutes")),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, instrument, found):
    make_bars(3000, bar_seconds=300).to_csv(tmp_path / "EURUSD.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    make_bars(3000, bar_seconds=3600).to_csv(tmp_path / "GBPUSD.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    config = folder_of(tmp_path, instrument)
    with pytest.raises(DataError, match=says(*found)):
        DataPipeline(config).write()
    assert not (tmp_path / "x.h5").exists()


def test_a_later_bar_never_moves_a_boundary_of_another_instrument(tmp_path):
    data = make_data(3000)
    assert data.val["EURUSD"].index[0] > data.train["EURUSD"].index[-1]
    bars = make_bars(3000, bar_seconds=300)
    for name, part in (("EURUSD", bars), ("GBPUSD", bars.iloc[30:])):
        part.to_csv(tmp_path / f"{name}.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    config = folder_of(tmp_path)
    made = DataPipeline(config).write()
    for split in made.splits.values():
        assert split["GBPUSD"].index[-1] == split["EURUSD"].index[-1]
    assert made.val["GBPUSD"].index[0] == made.val["EURUSD"].index[0]
