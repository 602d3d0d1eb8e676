"""The next opens by the calendar, against dates worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.live.next_opens import next_opens
from sac_kernel.prices.instruments import spec_of

NEW_YORK = "America/New_York"


def opens(symbol, kind, after, n, bar_seconds):
    start = pd.Timestamp(after, tz=NEW_YORK).timestamp()
    found = next_opens(int(start), n, bar_seconds, spec_of(symbol, kind))
    return [f"{time:%m-%d %H:%M}" for time in pd.to_datetime(found, unit="s", utc=True).tz_convert(NEW_YORK)]


@pytest.mark.parametrize(
    ("after", "n", "bar_seconds", "wanted"),
    [
        ("2024-03-06 12:00", 2, 3600, ["03-06 12:00", "03-06 13:00"]),
        ("2024-03-08 16:00", 3, 3600, ["03-08 16:00", "03-10 17:00", "03-10 18:00"]),  # clocks go forward
        ("2024-11-01 16:55", 2, 300, ["11-01 16:55", "11-03 17:00"]),  # clocks go back
        ("2024-03-09 03:00", 1, 900, ["03-10 17:00"]),
        ("2024-03-15 17:00", 1, 14_400, ["03-17 17:00"]),
        (
            "2024-03-15 20:00",
            2,
            86_400,
            ["03-16 20:00", "03-17 20:00"],
        ),  # Sunday of UTC has three open hours
    ],
)
def test_the_week_of_fx_ends_on_friday_and_begins_on_sunday_at_17(after, n, bar_seconds, wanted):
    assert opens("EURUSD", "fx", after, n, bar_seconds) == wanted


@pytest.mark.parametrize(
    ("after", "n", "bar_seconds", "wanted"),
    [
        ("2024-03-15 15:30", 2, 1800, ["03-15 15:30", "03-18 09:30"]),
        ("2024-03-13 16:00", 2, 300, ["03-14 09:30", "03-14 09:35"]),
        ("2024-03-15 20:00", 1, 86_400, ["03-17 20:00"]),  # Monday of UTC
    ],
)
def test_an_exchange_opens_on_the_next_working_day(after, n, bar_seconds, wanted):
    assert opens("AAPL", "equity", after, n, bar_seconds) == wanted


def test_a_market_that_never_closes_has_bars_in_a_row():
    found = next_opens(1_710_547_200, 5, 3600, spec_of("BTCUSD", "crypto"))
    assert found.tolist() == (1_710_547_200 + 3600 * np.arange(5)).tolist()


def test_a_long_interval_of_a_short_session_is_complete():
    found = next_opens(1_710_547_200, 200, 3600, spec_of("AAPL", "equity"))
    assert len(found) == 200
