"""Shared bars and data. Everything is made from seeds; nothing here reads a network or a user's folder."""

import atexit
import contextlib
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PIP_NO_INDEX"] = "1"  # no test fetches a package
os.environ["SAC_LEDGERS"] = ""  # no test counts the trials of another, or of the clone
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig

GUARD = Path(__file__).parent / "network_guard"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(GUARD / "sitecustomize.py"))  # this process; children find it on their path

if "SAC_TESTS_COMPILED" not in os.environ:  # what kernels of the local Kaggle compile, shared by all workers
    os.environ["SAC_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="sac-tests-compiled-")
    atexit.register(shutil.rmtree, os.environ["SAC_TESTS_COMPILED"], ignore_errors=True)


def make_bars(
    n=4000,
    seed=0,
    bar_seconds=3600,
    start="2017-01-02T00:00:00Z",
    sigma=1e-3,
    weekends=True,
    instrument="EURUSD",
):
    """A random walk of n bid bars whose opens differ a little from the close before; weekends are holes."""
    step = pd.Timedelta(seconds=bar_seconds)
    times = pd.date_range(start, periods=2 * n + 2000, freq=step)
    if weekends:
        local = times.tz_convert("America/New_York")
        shifted = (local.tz_localize(None) + pd.Timedelta(hours=7)).day_of_week
        times = times[shifted < 5]
    times = times[:n]
    rng = np.random.default_rng(seed)
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, sigma, n)))
    open_ = np.concatenate(([1.1], close[:-1])) * np.exp(rng.normal(0, sigma / 10, n))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, sigma / 3, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, sigma / 3, n)))
    frame = pd.DataFrame(
        {"open": open_, "high": high, "low": low, "close": close},
        index=pd.DatetimeIndex(times, name="open_time_utc").as_unit("ns"),
    )
    return Bars(frame, side="bid", seconds=bar_seconds, instrument=instrument)


def make_data(n=2400, seed=0, bar_seconds=3600, **kwargs):
    """Processed data of one synthetic instrument, EURUSD, bid prices."""
    bars = make_bars(n, seed, bar_seconds, **kwargs)
    return split_table(BarTable(bars, "synthetic", "UTC"), DataConfig())


@pytest.fixture(scope="session")
def shared_data():
    """Real bars beside the checkout; their owners' licences forbid committing them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SAC_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the shared real data is absent")
    return folder


@contextlib.contextmanager
def figures_left_blank():
    """Figures are made, but each picture is the same empty one: drawing is most of what a short run costs."""
    from matplotlib.figure import Figure

    from sac_kernel.report import plots

    blank = plots.to_png(Figure(figsize=(1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "to_png", lambda figure: blank)
        yield


@pytest.fixture(scope="module")
def blank_figures():
    """The same for every test of a module."""
    with figures_left_blank():
        yield


@pytest.fixture(scope="session")
def bars():
    return make_bars()


@pytest.fixture(scope="session")
def data():
    return make_data()


LONG = (
    "kaggle/test_story",
    "project/test_doc_commands_run",
    "kaggle/test_rehearsal",
    "kaggle/test_failures",
    "experiment/test_job_queue",
    "experiment/test_resume",
    "experiment/test_trainer",
    "market/test_audit",
    "kaggle/test_build_kernel",
    "kaggle/test_evaluate_notebook",
)


def pytest_collection_modifyitems(items):
    """Run the long files first: with `--dist loadfile` a file stays on one worker, where its fixtures are made once."""
    rank = {name: place for place, name in enumerate(LONG)}
    here = Path(__file__).parent
    items.sort(key=lambda item: rank.get(item.path.relative_to(here).with_suffix("").as_posix(), len(LONG)))
