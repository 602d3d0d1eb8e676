"""Make figures and one page, `report.html`, of results.

These modules know plain results only, never the trainer. Figures share the style of `core.plot_style`.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "page": "write_report",
        "tables": "results_table",
        "terminal": "text_table",
    },
)
