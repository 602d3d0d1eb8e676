"""The download, against a local server that answers as Dukascopy and HistData.com do."""

import datetime as dt
import http.server
import io
import lzma
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.cli import main as command_line
from sac_kernel.core.errors import ConfigError, InputNotFoundError
from sac_kernel.prices.ingest import download
from sac_kernel.prices.ingest.download import Download, fetch
from sac_kernel.prices.ingest.formats import read_bars
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed
from tests.support import says, told

DAY = dt.date(2019, 2, 4)
NO_NETWORK = OSError("Name or service not known")
TICK = np.dtype([("ms", ">u4"), ("ask", ">u4"), ("bid", ">u4"), ("ask_volume", ">f4"), ("bid_volume", ">f4")])


def ticks_file(points, every_ms=60_000):
    """A .bi5 of one hour: a tick at the start of each minute and one just before its end, bid = `points`."""
    ms = np.sort(np.concatenate((np.arange(0, 3_600_000, every_ms), np.arange(59_000, 3_600_000, every_ms))))
    rows = np.zeros(ms.size, TICK)
    rows["ms"], rows["bid"], rows["ask"] = ms, points + np.arange(ms.size), points + np.arange(ms.size) + 12
    rows["ask_volume"] = rows["bid_volume"] = 1.0
    return lzma.compress(rows.tobytes(), format=lzma.FORMAT_ALONE)


@pytest.fixture
def server(monkeypatch):
    """A Dukascopy whose files are `server.files` (path -> bytes); all other hours are closed (200, empty)."""
    dukascopy = pytest.importorskip(
        "tradedesk_marketdata.sources.dukascopy", reason="needs tradedesk-marketdata"
    )
    files, asked, broken = {}, [], set()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = files.get(self.path.lstrip("/"), b"")
            self.send_response(503 if self.path.lstrip("/") in broken or "*" in broken else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *args):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
    base = f"http://127.0.0.1:{http_server.server_port}"
    monkeypatch.setattr(dukascopy, "BASE_URL", base)
    monkeypatch.setattr(dukascopy, "RETRY_BASE_DELAY", 0.01)
    http_server.files, http_server.asked, http_server.broken, http_server.base = files, asked, broken, base
    yield http_server
    http_server.shutdown()
    http_server.server_close()


def order(tmp_path, days=1, **changes):
    values = {
        "provider": "dukascopy", "first_day": DAY, "last_day": DAY + dt.timedelta(days=days - 1),
        "cache": tmp_path / "cache", "price_side": "bid", "bar_seconds": 300, "retries": 2, "timeout_s": 5.0,
    }  # fmt: skip
    return Download(**{**values, **changes})


def test_real_ticks_become_the_bars_of_dukascopys_own_candles(server, shared_data, tmp_path):
    real = shared_data / "raw_formats" / "dukascopy_bi5"
    for hour in ("00", "08"):
        name = f"EURUSD/2019/01/04/{hour}h_ticks.bi5"
        server.files[name] = (real / name).read_bytes()
    table = fetch(order(tmp_path, bar_seconds=60), "EURUSD")
    candles = read_bars(real / "EURUSD/2019/01/04/BID_candles_min_1.bi5").bars
    assert len(table.bars) == 120
    assert (table.bars.side, table.clock, table.bars.seconds) == ("bid", "UTC", 60)
    np.testing.assert_allclose(table.bars, candles.loc[table.bars.index], rtol=0, atol=1e-12)


def test_minutes_become_bars_and_closed_hours_none(server, tmp_path):
    server.files["EURUSD/2019/01/04/08h_ticks.bi5"] = ticks_file(110_000)
    table = fetch(order(tmp_path), "EURUSD")
    # 12 bars of 5 minutes; two ticks a minute, each one point above the last
    assert len(table.bars) == 12
    assert table.bars.index[0] == pd.Timestamp("2019-02-04 08:00", tz="UTC")
    np.testing.assert_allclose(table.bars.iloc[0], [1.1, 1.10009, 1.1, 1.10009], rtol=0, atol=1e-12)
    asks = fetch(order(tmp_path, price_side="ask"), "EURUSD")
    np.testing.assert_allclose(asks.bars.iloc[0], [1.10012, 1.10021, 1.10012, 1.10021], rtol=0, atol=1e-12)


def test_the_index_has_its_own_name_and_scale(server, tmp_path):
    server.files["USA500IDXUSD/2019/01/04/15h_ticks.bi5"] = ticks_file(2_700_000)
    assert fetch(order(tmp_path), "SPXUSD").bars.iloc[0, 0] == pytest.approx(2700.0)


def test_what_the_cache_has_is_not_asked_for_again(server, tmp_path):
    server.files["EURUSD/2019/01/04/08h_ticks.bi5"] = ticks_file(110_000)
    first = fetch(order(tmp_path), "EURUSD")
    assert len(server.asked) == 24
    again = fetch(order(tmp_path), "EURUSD")
    assert len(server.asked) == 24
    pd.testing.assert_frame_equal(first.bars, again.bars)


def test_a_cut_download_keeps_what_came_and_goes_on(server, tmp_path):
    for day in ("04", "05"):
        server.files[f"EURUSD/2019/01/{day}/08h_ticks.bi5"] = ticks_file(110_000)
    server.broken.add("EURUSD/2019/01/05/09h_ticks.bi5")
    with pytest.raises(InputNotFoundError, match=says("1 day", "dukascopy", "2019-02-05")):
        fetch(order(tmp_path, days=2), "EURUSD")
    server.broken.clear()
    server.asked.clear()
    table = fetch(order(tmp_path, days=2), "EURUSD")
    assert server.asked == ["/EURUSD/2019/01/05/09h_ticks.bi5"]
    assert len(table.bars) == 24


def test_a_provider_out_of_reach_is_given_up_after_the_first_day(server, tmp_path):
    server.broken.add("*")
    with pytest.raises(InputNotFoundError, match=says("1 day", "dukascopy", "2019-02-04")):
        fetch(order(tmp_path, days=300), "EURUSD")
    assert {path.rsplit("/", 1)[0] for path in server.asked} == {"/EURUSD/2019/01/04"}


def test_an_instrument_without_any_data_is_absent(server, tmp_path):
    assert fetch(order(tmp_path), "USDSEK") is None


def test_force_download_writes_the_file_and_says_what_is_absent(server, tmp_path):
    for day in range(1, 11):
        for name, points in (("EURUSD", 110_000), ("USDJPY", 110_000)):
            server.files[f"{name}/2019/01/{day:02d}/08h_ticks.bi5"] = ticks_file(points)
    target = tmp_path / "processed_data.h5"
    config = DataConfig(
        download_start="2019-02-01", download_end="2019-02-10", embargo_hours=24.0,
        download_cache=str(tmp_path / "cache"), output_path=str(target),
    )  # fmt: skip
    train, _, _ = DataPipeline(config).run_full_pipeline(force_download=True)
    assert sorted(train) == ["EURUSD", "USDJPY"]
    # JPY pairs have 3 digits
    assert train["USDJPY"].iloc[0, 0] == pytest.approx(110.0)
    data = read_processed(target)
    assert (data.bar_seconds, data.price_side, data.clock) == (300, "bid", "UTC")
    assert any(told(note, "USDSEK") for note in data.notes)
    asked = len(server.asked)
    DataPipeline(config).run_full_pipeline()
    assert len(server.asked) == asked


def test_histdata_months_are_read_on_their_own_clock(server, tmp_path, monkeypatch):
    histdata = pytest.importorskip(
        "tradedesk_marketdata.sources.histdata", reason="needs tradedesk-marketdata"
    )
    monkeypatch.setattr(histdata, "PAGE_URL", server.base + "/page/{pair}/{y}/{m}")
    monkeypatch.setattr(histdata, "DOWNLOAD_URL", server.base + "/get.php")
    monkeypatch.setattr(histdata, "REQUEST_INTERVAL", 0.0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        # July 2019: label 03:00 + 5 h = 08:00 London, summer = 07:00 UTC
        lines = [
            f"201907{d:02d} 0300{s:02d}000,1.1{d:02d}{s:02d},1.1{d:02d}99,0"
            for d in (1, 2, 3)
            for s in (0, 30)
        ]
        archive.writestr("DAT_ASCII_EURUSD_T_201907.csv", "\n".join(lines) + "\n")
    form = '<form id="file_down"><input name="tk" value="{}"><input name="datemonth" value="201907"></form>'
    server.files |= {"page/eurusd/2019/7": form.format("x").encode(), "page/eurusd/2019/6": form.format("").encode(),
                     "get.php": packed.getvalue()}  # fmt: skip
    what = order(
        tmp_path,
        provider="histdata",
        first_day=dt.date(2019, 7, 2),
        last_day=dt.date(2019, 7, 2),
        bar_seconds=60,
    )
    table = fetch(what, "EURUSD")
    assert table.bars.index.tolist() == [pd.Timestamp("2019-07-02 07:00", tz="UTC")]
    np.testing.assert_allclose(table.bars.iloc[0], [1.1020, 1.1023, 1.1020, 1.1023], rtol=0, atol=1e-4)


def test_the_command_writes_files_that_the_build_reads(server, tmp_path, monkeypatch, caplog):
    for day in ("04", "05"):
        server.files[f"EURUSD/2019/01/{day}/08h_ticks.bi5"] = ticks_file(110_000)
    monkeypatch.chdir(tmp_path)
    words = [
        "download",
        "--instruments",
        "EURUSD,USDSEK",
        "--first-day",
        "2019-02-04",
        "--last-day",
        "2019-02-05",
    ]
    assert command_line.main([*words, "--output", "bars", "--cache", "cache"]) == 0
    assert [path.name for path in (tmp_path / "bars").iterdir()] == ["EURUSD_M5_BID.csv"]
    table = read_bars(tmp_path / "bars" / "EURUSD_M5_BID.csv")
    expected = fetch(order(tmp_path, days=2), "EURUSD").bars
    pd.testing.assert_frame_equal(table.bars, expected, check_freq=False)
    assert (table.bars.side, table.clock, table.bars.instrument) == ("bid", "UTC", "EURUSD")


def test_a_full_cache_needs_no_network(server, tmp_path, monkeypatch):
    server.files["EURUSD/2019/01/04/08h_ticks.bi5"] = ticks_file(110_000)
    first = fetch(order(tmp_path), "EURUSD")
    monkeypatch.setattr(download, "check_reachable", lambda provider: pytest.fail("asked for the network"))
    pd.testing.assert_frame_equal(first.bars, fetch(order(tmp_path), "EURUSD").bars)


# -- without a network


def test_without_a_network_the_command_ends_with_one_sentence(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tradedesk_marketdata.sources.dukascopy", reason="needs tradedesk-marketdata")

    def refuse(*args, **kwargs):
        raise NO_NETWORK

    monkeypatch.setattr(download.socket, "create_connection", refuse)
    words = ["download", "--first-day", "2019-02-04", "--last-day", "2019-02-05"]
    assert command_line.main([*words, "--output", str(tmp_path / "a"), "--cache", str(tmp_path / "b")]) == 2
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert told(record.getMessage(), "dukascopy", "datafeed.dukascopy.com")
    assert "\n" not in record.getMessage()
    assert not (tmp_path / "a").exists()


def test_a_name_that_is_never_looked_up_does_not_hold_the_command(tmp_path, monkeypatch):
    pytest.importorskip("tradedesk_marketdata.sources.dukascopy", reason="needs tradedesk-marketdata")
    never = threading.Event()

    def hang(*args, **kwargs):
        never.wait()
        raise NO_NETWORK

    monkeypatch.setattr(download.socket, "create_connection", hang)
    monkeypatch.setattr(download, "_CONNECT_S", 0.0)
    with pytest.raises(InputNotFoundError, match=says("datafeed.dukascopy.com")):
        fetch(order(tmp_path), "EURUSD")
    never.set()


# -- without the package


def test_without_the_package_the_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tradedesk_marketdata.export", None)
    with pytest.raises(InputNotFoundError, match=says("pip install tradedesk-marketdata==")):
        fetch(order(tmp_path), "EURUSD")


def test_the_requirement_file_pins_what_the_error_names():
    text = (Path(__file__).resolve().parents[2] / "requirements" / "download.txt").read_text()
    assert download.EXTRA in text


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"provider": "yahoo"}, ("provider", "dukascopy, histdata", "'yahoo'")),
        ({"last_day": DAY - dt.timedelta(days=1)}, ("first_day", "last_day")),
        ({"price_side": "mid"}, ("price_side", "bid", "ask", "'mid'")),
    ],
)
def test_an_order_that_cannot_be_filled_is_refused(tmp_path, changes, found):
    with pytest.raises(ConfigError, match=says(*found)):
        order(tmp_path, **changes)
