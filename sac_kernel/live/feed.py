"""Closed bars one at a time, as a market gives them: from files that grow, or replayed.

A feed gives a dict for each closed bar of the traded instrument: that bar, and the bars of the others that came
with it or before; None while there is nothing new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sac_kernel.core.errors import DataError
from sac_kernel.prices.ingest import formats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from sac_kernel.prices.bars import BarsByInstrument

_TAIL_BYTES = 1 << 16
_TEXT = (".csv", ".txt")


class BarFiles:
    """Bars of one instrument in a file, or of several in a folder, read as `--data` reads them.

    Parameters
    ----------
    path : a file or folder
    instrument : the traded one
    others : those that must be there beside it
    price_side, clock : as of `bar_formats.read_bars`
    """

    def __init__(
        self, path: Path, instrument: str, others: tuple[str, ...], price_side: str | None, clock: str | None
    ) -> None:
        self.instrument, self._side, self._clock = instrument, price_side, clock
        found = formats.find_files(path) if path.is_dir() else {instrument: [path]}
        # The traded one first: what the others have by then is no newer than what is read after it.
        self._files = {name: found.get(name, []) for name in (instrument, *others)}
        missing = [name for name, paths in self._files.items() if not paths]
        if missing:
            msg = f"{path}: bars of {', '.join(self._files)} are required, found none of {', '.join(missing)}"
            raise DataError(msg)
        self._size = -1

    def read(self) -> BarsByInstrument:
        """Return all bars of all files."""
        return {
            name: formats.read_instrument(paths, self._side, self._clock, name).bars
            for name, paths in self._files.items()
        }

    def replay(self, after: pd.Timestamp | None = None) -> Iterator[BarsByInstrument]:
        """Give the bars after a moment one by one, to the end of the files."""
        yield from one_by_one(self.read(), self.instrument, after)

    def tail(self, after: pd.Timestamp | None = None) -> Iterator[BarsByInstrument | None]:
        """Give the bars after a moment one by one, for ever; None whenever there is none.

        A line without its end is not read yet. The traded instrument's file should be the last one written.
        """
        for name, paths in self._files.items():
            if len(paths) != 1 or paths[0].suffix.lower() not in _TEXT:
                msg = (
                    f"bar_feed.tail: one growing text file ({', '.join(_TEXT)}) of {name} is required, found "
                    f"{', '.join(p.name for p in paths)}; replay other formats with --speed"
                )
                raise DataError(msg)
        while True:
            bars = self._new_bars(after)
            for step in one_by_one(bars, self.instrument, after) if bars else ():
                after = step[self.instrument].index[-1]
                yield step
            yield None

    def _new_bars(self, after: pd.Timestamp | None) -> BarsByInstrument:
        """Return the end of every file, or {} where the traded one has not grown."""
        size = self._files[self.instrument][0].stat().st_size
        if size == self._size:
            return {}
        self._size = size
        return {name: self._end_of(paths[0], name, after) for name, paths in self._files.items()}

    def _end_of(self, path: Path, name: str, after: pd.Timestamp | None) -> pd.DataFrame:
        content = path.read_bytes()
        content = content[: content.rfind(b"\n") + 1]
        first = content[: content.find(b"\n") + 1]
        start = content.find(b"\n", max(len(first), len(content) - _TAIL_BYTES)) + 1
        if after is not None and start > len(first):
            bars = self._parsed(path, name, first + content[start:])
            if len(bars) > 1 and bars.index[1] <= after:  # row 0 may be the file's first line
                return bars
        return self._parsed(path, name, content)

    def _parsed(self, path: Path, name: str, content: bytes) -> pd.DataFrame:
        return formats.read_bars(path, self._side, self._clock, name, content).bars


def one_by_one(
    bars: BarsByInstrument, instrument: str, after: pd.Timestamp | None
) -> Iterator[BarsByInstrument]:
    """Give each bar of the instrument after a moment, with the bars of the others up to its open."""
    own = bars[instrument]
    first = 0 if after is None else own.index.searchsorted(after, side="right")
    others = {name: part for name, part in bars.items() if name != instrument}
    done = dict.fromkeys(others, 0)
    for i in range(int(first), len(own)):
        step = {instrument: own.iloc[i : i + 1]}
        for name, part in others.items():
            end = int(part.index.searchsorted(own.index[i], side="right"))
            step[name] = part.iloc[done[name] : end]
            done[name] = end
        yield step
