"""A short form of `make interrupts` and `make two-at-once`."""

import os

import pytest

from tests import commands_at_random

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="this test sends POSIX signals, and this system has none"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with commands_at_random.worlds(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.mark.parametrize("number", [0, 1, 2, 4, 6])
def test_a_command_stopped_at_a_random_moment_ends_as_one_that_was_not(world, number):
    commands_at_random.interrupted(world, number)


@pytest.mark.parametrize("number", range(1, 5))
def test_two_commands_at_once_end_as_alone_or_are_refused(world, number):
    commands_at_random.two_at_once(world, number)
