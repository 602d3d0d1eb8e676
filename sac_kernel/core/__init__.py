"""What every other package uses: errors, strict configuration, atomic files.

Also folders and mounted inputs, devices, time budgets, versions and hashes, and the style of figures.
Nothing here knows prices, agents or Kaggle, and importing the package loads no framework.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "errors": "CheckpointError ConfigError DataError DeviceError InputNotFoundError KaggleError "
        "NonFiniteError SacKernelError StorageError TimeUpError",
        "clock": "Deadline Progress",
        "paths": "Paths",
    },
)
