"""Bad input, one row each: the error says where, what was required, what was found and what to do.

Every row is what a user would type, through the command that she would type it into, beside the outputs of an
earlier run, which stay as they were.
"""

import h5py
import numpy as np
import pytest
import torch

import build_kernel
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.train_sac_kaggle import main as train
from tests.conftest import make_bars, make_data
from tests.support import told

TABLE = "train/EURUSD"


def spoilt(change):
    """Return how to spoil a good processed file in place."""

    def write(path):
        write_processed(make_data(1600), path)
        with h5py.File(path, "r+") as file:
            change(file[TABLE])

    return write


def price(name, value):
    return spoilt(lambda table: table[name].__setitem__(5, value))


def swap_times(table):
    table["timestamp"][5:7] = table["timestamp"][5:7][::-1]


def repeat_time(table):
    table["timestamp"][6] = table["timestamp"][5]


def truncated(path):
    write_processed(make_data(1600), path)
    path.write_bytes(path.read_bytes()[:5000])


def other_layout(path):
    with h5py.File(path, "w") as file:
        file["EURUSD"] = np.ones((10, 4))


def short(path):
    write_processed(make_data(1600), path)


EURUSD = "bars.h5:/train/EURUSD"

# name of the row: how the file is made, then what the message names
FILES = {
    "h5 missing": (lambda path: None, "bars.h5"),
    "h5 truncated": (truncated, "bars.h5", "HDF5", "truncated"),
    "h5 of no bytes": (lambda path: path.touch(), "bars.h5", "HDF5"),
    "h5 empty": (lambda path: h5py.File(path, "w").close(), "bars.h5", "empty"),
    "h5 of another layout": (other_layout, "bars.h5", "/train", "/EURUSD"),
    "NaN price": (price("close", np.nan), EURUSD, "finite", 1),
    "price of 0": (price("low", 0.0), EURUSD, "above 0", 1),
    "negative price": (price("low", -1.0), EURUSD, "above 0", 1),
    "high < low": (price("high", 0.1), EURUSD, "high", "low", 1),
    "unsorted times": (spoilt(swap_times), EURUSD, "increasing", 1),
    "duplicate times": (spoilt(repeat_time), EURUSD, "unique", 1),
    "too few bars for one episode": (short, 3000, "env_horizon", "env_episode_length"),
}


@pytest.fixture
def earlier(tmp_path):
    """A folder with outputs of an earlier run."""
    folder = tmp_path / "sortie de l'été"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("agent_1_best.pt", "manifest.json", "checkpoints/agent_1_ep5.pt"):
        (folder / name).write_bytes(b'{"mine": 1}')
    return folder


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("row", FILES)
def test_a_bad_file(tmp_path, earlier, row, caplog):
    make, *parts = FILES[row]
    path = tmp_path / "données du jour" / "bars.h5"
    path.parent.mkdir()
    make(path)
    before = contents(earlier)
    words = [
        "--h5-path",
        str(path),
        "--output-dir",
        str(earlier),
        "--device",
        "cpu",
        "--set",
        "learner=gaussian",
    ]
    assert train(words) == 2
    assert told(caplog.text, *parts), caplog.text
    assert contents(earlier) == before


@pytest.mark.parametrize(
    ("row", "flags", "parts"),
    [
        (
            "agent 7",
            ["--agent-id", "7"],
            ["agent_id", "1 short-term, 2 medium, 3 swing", 7],
        ),
        ("no episodes", ["--num-episodes", "0"], ["num_episodes", 0]),
        ("an unknown device", ["--device", "gpu"], ["device", "auto, cpu, cuda", "'gpu'"]),
        pytest.param(
            "--device cuda without one",
            ["--device", "cuda"],
            ["CUDA", "device='auto'"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_flag(tmp_path, earlier, row, flags, parts, caplog):
    before = contents(earlier)
    assert train(["--h5-path", str(tmp_path / "any.h5"), "--output-dir", str(earlier), *flags]) == 2
    assert told(caplog.text, *parts), caplog.text
    assert contents(earlier) == before


@pytest.mark.parametrize(
    ("row", "setting", "parts"),
    [
        ("unknown parameter", "num_episode=5", ["'num_episode'", "'num_episodes'"]),
        ("text for a number", "num_episodes=many", ["num_episodes", "int", "'many'"]),
        ("fraction for a count", "num_episodes=2.5", ["num_episodes", "int", 2.5]),
        ("truth for a number", "num_episodes=True", ["num_episodes", "int", True]),
        ("number for a list", "seeds=3", ["seeds", "list", "int", 3]),
        ("nested list", "seeds=[[1]]", ["seeds[0]", "int", "[1]"]),
        ("NaN", "sac_learning_rate=1e999", ["sac_learning_rate", "inf"]),
        ("agent 7", "agent_ids=[7]", ["agent_id", "3 swing", 7]),
        ("no equals sign", "num_episodes", ["--set", "name=value", "'num_episodes'"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_bad_setting(row, setting, parts, capsys):
    assert build_kernel.main(["--set", setting]) == 2
    error = capsys.readouterr().err
    assert told(error, *parts), error


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_blanks_accents_and_windows_line_ends_are_no_bad_input(tmp_path, ends):
    folder = tmp_path / "mes données à moi"
    folder.mkdir()
    text = make_bars(1600).rename_axis("time").to_csv(lineterminator="\n").encode()
    (folder / "euro dollar é.csv").write_bytes(text.replace(b"\n", ends))
    target = folder / "processed_data.h5"
    config = build_kernel.DataConfig(
        source="files",
        path=str(folder / "euro dollar é.csv"),
        instrument="EURUSD",
        price_side="bid",
        output_path=str(target),
    )
    build_kernel.DataPipeline(config).write()
    closes = read_processed(target).train["EURUSD"]["close"].to_numpy()
    assert np.array_equal(closes, make_bars(1600)["close"].to_numpy()[: len(closes)])
