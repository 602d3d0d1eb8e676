"""Old names of parameters and values are accepted, with a warning that says the new one."""

import dataclasses

import pytest

from sac_kernel.cli.settings import parse_settings
from sac_kernel.core.config import from_flat
from sac_kernel.core.renamed import current, renamed_arguments
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.market.account import TradingEnvConfig
from tests.support import says


@renamed_arguments(colour="color")
def paint(color="red", layers=1):
    return color, layers


@renamed_arguments(colour="color")
@dataclasses.dataclass(frozen=True)
class Paint:
    color: str = "red"


def test_an_old_argument_arrives_under_its_new_name():
    with pytest.warns(FutureWarning, match=says("paint", "'colour'", "'color'")):
        assert paint(colour="blue", layers=2) == ("blue", 2)
    assert paint(color="green") == ("green", 1)  # and no warning, which would fail the test


def test_a_class_keeps_its_identity_and_its_fields():
    with pytest.warns(FutureWarning, match="Paint"):
        old = Paint(colour="blue")
    assert old == Paint(color="blue") == dataclasses.replace(Paint(), color="blue")
    with pytest.warns(FutureWarning, match="colour"):
        assert from_flat(Paint, {"colour": "blue"}, "here") == old


def test_a_mapping_keeps_what_was_not_renamed():
    with pytest.warns(FutureWarning, match="where"):
        assert current("where", {"a": 1, "b": 2}, {"a": "c"}) == {"c": 1, "b": 2}


def test_the_account_takes_its_old_words():
    with pytest.warns(FutureWarning) as told:
        old = TradingEnvConfig(min_order=0.2, reward="expected", cost_tier="spec")
    assert old == TradingEnvConfig(no_trade_band=0.2, reward="denoised", cost_tier="retail")
    assert len(told) == 3


def test_a_run_takes_its_old_words():
    with pytest.warns(FutureWarning, match="env_no_trade_band"):
        values = parse_settings(["env_min_order=0.3"])
    assert values == {"env_no_trade_band": 0.3}
    with pytest.warns(FutureWarning, match="denoised"):
        assert RunConfig.from_flat({"env_reward": "expected"}).env_config(1).reward == "denoised"
