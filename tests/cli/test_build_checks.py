"""What cannot run is refused at the build, all of it at once."""

import pytest

from sac_kernel.cli.build_checks import check_run
from sac_kernel.core.errors import ConfigError
from tests.conftest import make_data
from tests.support import says


def test_a_run_that_fits_passes():
    check_run(make_data(1600), {})


def test_costs_of_an_instrument_that_is_not_traded_are_a_fault():
    with pytest.raises(ConfigError, match=says("env_costs", "GBPUSD", "EURUSD")):
        check_run(make_data(1600), {"env_costs": "GBPUSD:spread_bps=1"})


def test_every_fault_is_named_at_once():
    # 60 % of 1,600 hourly bars are 960; two days of them warm up, and the first return needs one
    with pytest.raises(ConfigError, match=says("device", "'gpu'", "3,000", "911", "env_horizon")):
        check_run(make_data(1600), {"device": "gpu", "learner": "gaussian"})
