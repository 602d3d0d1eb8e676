"""A short form of the fuzzing; `python -m tests.fuzz_bars --count 10000` is the long one."""

import pytest

from tests import fuzz_bars


@pytest.mark.slow
def test_mutated_files_load_to_valid_bars_or_are_refused():
    outcomes, failures = fuzz_bars.fuzz(0, 306)
    assert not failures
    assert sum(found.get("refused", 0) for found in outcomes.values()) > 100
    assert sum(found.get("loaded", 0) for found in outcomes.values()) > 10


@pytest.mark.parametrize("name", [name for name, (content, _) in fuzz_bars.seeds().items() if content])
def test_every_seed_loads_before_it_is_mutated(tmp_path, name):
    content, pack = fuzz_bars.seeds()[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(content) if pack else content)
    assert fuzz_bars.judge(path) == "loaded"
