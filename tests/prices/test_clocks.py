"""Each clock against its rule, worked out by hand for winter, summer and the weeks when only one side switched."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sac_kernel.core.errors import DataError
from sac_kernel.prices.clocks import check_clock, to_utc
from tests.support import says


def utc(label, clock):
    return to_utc(pd.DatetimeIndex([label]), clock, "here")[0].strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("label", "clock", "expected"),
    [
        ("2017-01-03 12:00", "UTC", "2017-01-03 12:00"),
        ("2017-01-03 12:00", "Europe/London", "2017-01-03 12:00"),
        ("2017-07-03 12:00", "Europe/London", "2017-07-03 11:00"),
        # HistData before 2018-12-16 is New York: 5 h behind in winter, 4 h from 11 March 2018 on
        ("2017-01-03 12:00", "histdata", "2017-01-03 17:00"),
        ("2017-07-03 12:00", "histdata", "2017-07-03 16:00"),
        ("2018-03-21 14:00", "histdata", "2018-03-21 18:00"),  # the Fed's release of 18:00 UTC
        ("2018-12-15 23:59", "histdata", "2018-12-16 04:59"),
        # from then on London - 5 h: 4 h behind only from 31 March 2019 on
        ("2018-12-16 17:00", "histdata", "2018-12-16 22:00"),
        (
            "2019-03-20 13:00",
            "histdata",
            "2019-03-20 18:00",
        ),  # the Fed again, New York already in summer time
        ("2019-07-03 12:00", "histdata", "2019-07-03 16:00"),
        ("2019-11-01 07:30", "histdata", "2019-11-01 12:30"),  # US payrolls, 08:30 New York
        # MetaTrader servers close the day at 17:00 New York
        ("2020-01-03 00:00", "mt-eet", "2020-01-02 22:00"),
        ("2020-07-03 00:00", "mt-eet", "2020-07-02 21:00"),
        (
            "2020-03-20 00:00",
            "mt-eet",
            "2020-03-19 21:00",
        ),  # New York switched on 8 March, Europe on the 29th
    ],
)
def test_a_label_lands_on_its_utc_time(label, clock, expected):
    assert utc(label, clock) == expected


@given(
    st.datetimes(pd.Timestamp("2001-01-01"), pd.Timestamp("2030-01-01")),
    st.sampled_from(["histdata", "mt-eet"]),
)
def test_a_clock_is_4_or_5_hours_behind_or_2_or_3_ahead(moment, clock):
    label = pd.Timestamp(moment).floor("min")
    try:
        shift = pd.Timestamp(utc(label, clock)) - label
    except DataError:
        return  # the hour of a switch
    assert shift in [pd.Timedelta(hours=h) for h in ((4, 5) if clock == "histdata" else (-2, -3))]


@pytest.mark.parametrize(
    ("label", "clock"), [("2019-03-31 01:30", "Europe/London"), ("2019-10-27 01:30", "Europe/London"),
                         ("2017-03-12 02:30", "histdata"), ("2019-03-30 20:30", "histdata")]
)  # fmt: skip
def test_a_label_that_a_switch_skips_or_repeats_is_refused(label, clock):
    with pytest.raises(DataError, match=says(clock, "1")):
        utc(label, clock)


@pytest.mark.parametrize("label", ["1969-01-01", "2150-01-01", "NaT"])
def test_a_label_of_another_age_is_refused(label):
    with pytest.raises(DataError, match=says("here", 1971, 2099, "row 1")):
        utc(label, "UTC")


@pytest.mark.parametrize("clock", ["EST5EDT2", "", "../../etc/passwd", "utc+2", "Europe"])
def test_an_unknown_clock_is_refused(clock):
    with pytest.raises(DataError, match=says("here", "clock", "UTC", "IANA", "histdata", "mt-eet")):
        check_clock(clock, "here")
