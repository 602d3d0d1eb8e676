"""What the speed bench of the agent counts as necessary, and that its sides work."""

import pytest

from benchmarks import agent, timing


def test_the_products_are_those_that_an_update_needs():
    """By hand, multiply-adds a transition at state 30, action 1, 256 x 256.

    A pass of the actor 30 x 256 + 256 x 256 + 256 x 2 = 73,728, twice; of a critic 31 x 256 + 256 x 256 + 256 =
    73,728, six times; gradients of a critic's weights 73,728 and of its hidden layers 256 + 256 x 256 = 65,792,
    twice; through it to the action 65,792 + 256, twice; of the actor 73,728 and 2 x 256 + 256 x 256 = 66,048.
    """
    shapes = agent.product_shapes(128, (256, 256))
    assert sum(rows * inner * columns for rows, inner, columns, _ in shapes) == 128 * 1_140_736


def test_each_side_that_needs_no_peer_does_ten_updates_a_call():
    assert agent.ours(16, (8, 8))() == 10
    assert agent.products(16, (8, 8))() == 10


def test_rates_are_taken_in_turn_and_ratios_round_by_round(monkeypatch):
    """A clock that each side moves by its own cost a unit: 1/2 s and 1/8 s, so 2 and 8 a second."""
    now, order = [0.0], []

    def side(name, cost_s):
        def work():
            now[0] += cost_s
            order.append(name)
            return 1

        return work

    monkeypatch.setattr(timing, "WINDOW_S", 0.5)
    rates = timing.interleaved({"a": side("a", 0.5), "b": side("b", 0.125)}, 2, lambda: now[0])
    assert rates == {"a": [2.0, 2.0], "b": [8.0, 8.0]}
    assert "".join(order) == "ab" + 2 * "abbbb"
    assert timing.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == "3.00 (2.00-4.00)"
    with pytest.raises(ValueError, match="argument 2"):
        timing.ratio([1.0], [1.0, 2.0])
