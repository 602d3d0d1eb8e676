"""A local Kaggle for tests: the unmodified `kaggle` client talks to it, and it runs what is pushed.

Nothing here reaches beyond 127.0.0.1, and nothing here imports the project under test.
"""

from tests.kaggle_standin.client import client_python, kaggle_env, run_kaggle
from tests.kaggle_standin.faults import (
    Body,
    Drop,
    Expired,
    Partial,
    PassThrough,
    Silence,
    StaleReady,
    Status,
)
from tests.kaggle_standin.rules import Rules
from tests.kaggle_standin.server import KaggleStandin

__all__ = [
    "Body",
    "Drop",
    "Expired",
    "KaggleStandin",
    "Partial",
    "PassThrough",
    "Rules",
    "Silence",
    "StaleReady",
    "Status",
    "client_python",
    "kaggle_env",
    "run_kaggle",
]
