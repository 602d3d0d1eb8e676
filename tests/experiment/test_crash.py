"""A short form of the crash test; `python -m tests.crash --kills 200` is the long one."""

import pytest

from tests import crash


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_end():
    # From case 7: kills by time and in writes, and case 9 with a disk that refuses.
    cases, total, uncut = crash.crash(kills=4, first=7, wholes=(False,))
    assert cases >= 3
    assert total["time"] >= 1
    assert total["write"] >= 1
    assert total["ENOSPC"] + total["EROFS"] == 1
    assert uncut[False][1] > 60  # steps of writes in which a kill can fall


def test_a_step_of_every_kind_is_counted(tmp_path, monkeypatch):
    """Half-written, written, synced, named: the injection sees all writes of the package."""
    from pathlib import Path

    from sac_kernel.core import files

    path = crash.WritePath()
    for owner, name in ((Path, "write_bytes"), (Path, "replace"), (crash.os, "fsync")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back after the test
    path.install()
    files.write_json(tmp_path / "a.json", {})
    assert path.count == 4
    files.write_zip(tmp_path / "a.zip", {"x": b"1"})
    assert path.count == 6  # synced, named
