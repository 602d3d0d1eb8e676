"""The table of docs/layouts.md: what becomes of files as people have them.

python -m tests.layout_table docs/layouts.md

Every file of tests/prices/user_files, and of ../shared/data/raw_formats where that folder is there, is read first
without any option; what it then asks for is given, and it is read again.
"""

from __future__ import annotations

import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from sac_kernel.core.errors import SacKernelError
from sac_kernel.prices.ingest.formats import peek, read_bars
from sac_kernel.prices.ingest.holes import LONG_WEEKS, find_holes
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.instruments import known

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "tests" / "prices" / "user_files", ROOT.parent / "shared" / "data" / "raw_formats")
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
CLOCKS = {
    "Index_Historical_Data_investing.csv": "America/New_York",
    "EURUSD60_2020_copy_rates_datetime.csv": "Etc/GMT-3",
    "oanda-EUR_USD-2019-1_head.csv": "UTC",
    "EURUSD_1H_head.csv": "UTC",
    "FOREX_EURUSD_1H_ASK_head.csv": "UTC",
}
"""Clocks given where a file needs one; MetaTrader's for all others."""


def paths():
    """Return the files, those that users have first."""
    inner = (p for folder in FOLDERS if folder.is_dir() for p in sorted(folder.rglob("*")) if p.is_file())
    return [path for path in inner if path.suffix not in (".md", ".py")]


def row(path):
    """Return the cells of a file's row: its name, what it says itself, what was given, and the result."""
    try:
        facts = peek(path)
    except SacKernelError as err:
        return [path.name, "", "", f"refused: {reason(err, path)}"]
    given = {
        "--price-side": "" if facts.side else "mid" if "oanda" in path.name else "bid",
        "--clock": "" if facts.clock else CLOCKS.get(path.name, "mt-eet"),
        "--instrument": "" if facts.instrument else "ABC",
        "--kind": "" if facts.kind or known(facts.instrument) else "index",
    }
    own = [facts.instrument, facts.kind, facts.side, facts.clock]
    asked = ", ".join(f"{option} {value}" for option, value in given.items() if value)
    try:
        table = read_bars(path, given["--price-side"] or None, given["--clock"] or None)
    except SacKernelError as err:
        return [path.name, ", ".join(filter(None, own)), asked, f"refused: {reason(err, path)}"]
    return [path.name, ", ".join(filter(None, own)), asked, result(table, path)]


def result(table, path):
    """Return what was read: number, length and first bar, then what was changed or looks wrong."""
    bars = table.bars
    minutes = bars.seconds // 60
    texts = [f"{len(bars):,} bars of {minutes} min from {bars.index[0]:%Y-%m-%d %H:%M} UTC"]
    texts += [note.removeprefix(f"{path.name}: ") for note in table.changes]
    if wrong := suspects(bars):
        times = " and ".join(f"{s.when:%Y-%m-%d %H:%M}" for s in wrong)
        texts.append(f"the build refuses the bars of {times} without `--accept-outliers`")
    long = [h for h in find_holes(bars, bars.seconds) if h.weeks >= LONG_WEEKS]
    texts += [f"a hole from {h.last:%Y-%m-%d} to {h.next:%Y-%m-%d} is noted first" for h in long]
    return "; ".join(texts)


def reason(err, path):
    """Return an error's text without the path."""
    return re.sub(r"\s+", " ", str(err).replace(f"{path}: ", "").replace(str(path), path.name))


def table():
    """Return the table in Markdown, below the date and the versions."""
    head = ["file", "what it says itself", "given", "result"]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * 4, *map(row, paths()))]
    versions = f"Python {platform.python_version()}, pandas {pd.__version__}, NumPy {np.__version__}"
    return f"Measured on {datetime.now(UTC):%Y-%m-%d} with {versions}.\n\n" + "\n".join(lines)


def main():
    page = Path(sys.argv[1])
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{before}{BEGIN}\n{table()}\n{after}", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
