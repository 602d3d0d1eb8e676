"""Readers of foreign files: text, binary and packed formats, and downloads.

Each reader returns a `BarTable` or raises `DataError` with the line that it cannot use. What a file does not
prove about its clock or price side is asked for, never guessed. The kernel notebook does not carry this package.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "formats": "find_files read_bars read_instrument read_sample",
        "download": "Download fetch",
        "panel": "write_tables",
        "tables": "aggregate",
    },
)
