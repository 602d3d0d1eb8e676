"""A short form of the soak; `python -m tests.soak --steps 2000000` is the long one."""

import pytest

from tests import soak


@pytest.mark.slow
def test_memory_and_files_stay_as_they_are(tmp_path):
    samples, slope, trainer, wrong = soak.soak(60_000, tmp_path, episode=6_000)
    assert trainer.learning.steps == 60_000
    assert wrong == []
    assert len(samples) > 90
    assert slope * 0.06 < 25  # MB in all this: a short run cannot tell a slope, only a flood
    assert samples[-1, 2] <= samples[len(samples) // 2, 2]  # open files
