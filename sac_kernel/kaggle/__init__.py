"""Kaggle: the notebook that is built, the client that publishes and fetches, the rehearsal at home.

Only `display`, what the notebook shows, travels inside the notebook; the rest serves the build.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "client": "KaggleClient",
        "run": "KaggleRun",
    },
)
