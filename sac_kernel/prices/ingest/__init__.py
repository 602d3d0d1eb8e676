"""Readers of bars in text, binary and compressed files, and downloads.

Each reader returns a `BarTable` or raises `DataError`, naming the file. The caller must state a clock or price side
that the file does not prove. The kernel notebook does not carry this package.
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
