"""Results as a table for a terminal."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from sac_kernel.core import strings
from sac_kernel.report.tables import COLUMNS, by_tier, figures, tier_title

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sac_kernel.report.tables import Row
_MAX_WIDTH = 100
_THOUSANDS = re.compile(r"\d[\d,]*,\d{3}\.\d+")


def text_table(rows: Iterable[Row]) -> str:
    """Return the results as aligned plain text, one block per tier, at most 100 columns wide."""
    head = [strings.POLICY.lower(), *(column.short for column in COLUMNS)]
    blocks = {
        tier: [[str(row["policy"]), *(_narrow(text or "-") for text in figures(row))] for row in group]
        for tier, group in by_tier(rows).items()
    }
    lines = [head, *itertools.chain.from_iterable(blocks.values())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = min(widths[0], _MAX_WIDTH - sum(widths[1:]) - len(COLUMNS))
    texts = []
    for tier, block in blocks.items():
        body = [_aligned(cells, widths) for cells in (head, *block)] if block else [strings.NOT_RUN]
        texts.append("\n".join((tier_title(tier), *body)))
    return "\n\n".join(texts) + "\n"


def _narrow(text: str) -> str:
    """Return numbers of four digits and more without decimals: they would take the room of the names."""
    return _THOUSANDS.sub(lambda found: f"{float(found[0].replace(',', '')):,.0f}", text)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 3] + "..."
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join((name.ljust(widths[0]), *numbers))
