"""A short form of the fuzzing; `python -m tests.fuzz_files --count 20000` is the long one."""

import pytest

from tests import fuzz_bars, fuzz_files


@pytest.mark.slow
def test_mutated_files_and_parameters_work_or_are_refused():
    outcomes, failures = fuzz_bars.fuzz(0, 330, fuzz_files.work)
    assert not failures
    assert set(outcomes) == set(fuzz_files.KINDS)
    assert all(found.get("refused", 0) > 0 for found in outcomes.values()), outcomes
    assert sum(found.get("worked", 0) for found in outcomes.values()) > 20
