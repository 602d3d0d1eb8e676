"""Fixtures of a local platform; a test asks for them with

`pytest_plugins = ["tests.kaggle_standin.fixtures"]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kaggle_standin import KaggleStandin, kaggle_env, run_kaggle
from tests.kaggle_standin.samples import write_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kaggle_standin.client import Cli


@pytest.fixture
def kaggle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KaggleStandin]:
    """Start a platform; `@rules(...)` sets its rules."""
    with KaggleStandin(tmp_path / "platform", **getattr(request, "param", {})) as standin:
        yield standin


@pytest.fixture
def cli(kaggle: KaggleStandin, tmp_path: Path) -> Cli:
    """Return a function that runs the client on the platform."""
    env = kaggle_env(kaggle, tmp_path / "home")
    return lambda *args, timeout=60.0: run_kaggle([*map(str, args)], env, tmp_path, timeout)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """Return the folder of dataset tester/x-data, with one file of 100 bytes."""
    return write_dataset(tmp_path / "upload", "tester/x-data", {"bars.bin": b"0123456789" * 10})
