"""Prices: instruments and their costs, checked bars, clocks, and the processed file that training reads.

`DataPipeline` turns a source of bars into `processed_data.h5`, split in time with an embargo between the splits.
Readers of other formats, and the writer of that file, are in `prices.ingest`.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "bars": "Bars check_bars inspect_bars",
        "pipeline": "DataConfig DataPipeline",
        "processed_file": "ProcessedData read_processed",
        "ingest.tables": "BarTable",
        "ingest.writer": "write_processed",
    },
)
