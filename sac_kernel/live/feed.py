"""Closed bars one at a time, from files that grow or replayed.

A feed yields a dict for each closed bar of the traded instrument: that bar, and the bars of the others that opened
with it or before. It yields None while there is nothing new.
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
    """Bars of one instrument from a file, or of several from a folder, read as `--data` reads them.

    Parameters
    ----------
    path : a file or folder
    instrument : the traded one
    others : instruments whose bars are needed too
    price_side, clock : as in `prices.ingest.formats.read_bars`
    """

    def __init__(
        self, path: Path, instrument: str, others: tuple[str, ...], price_side: str | None, clock: str | None
    ) -> None:
        self.instrument, self._side, self._clock = instrument, price_side, clock
        paths_of = formats.find_files(path) if path.is_dir() else {instrument: [path]}
        # The traded one is read first, so the others are never older than it.
        self._files = {name: paths_of.get(name, []) for name in (instrument, *others)}
        missing = [name for name, paths in self._files.items() if not paths]
        if missing:
            msg = f"{path} has no bars of {', '.join(missing)}. The agent needs {', '.join(self._files)}."
            raise DataError(msg)
        self._size = -1

    def read(self) -> BarsByInstrument:
        """Return all bars of all files."""
        return {
            name: formats.read_instrument(paths, self._side, self._clock, name).bars
            for name, paths in self._files.items()
        }

    def replay(self, after: pd.Timestamp | None = None) -> Iterator[BarsByInstrument]:
        """Yield the bars after a time one by one, to the end of the files."""
        yield from one_by_one(self.read(), self.instrument, after)

    def tail(self, after: pd.Timestamp | None = None) -> Iterator[BarsByInstrument | None]:
        """Yield the bars after a time one by one, without end; None whenever there is no new one.

        An unfinished last line is left for later. Write the traded instrument's file last.
        """
        for name, paths in self._files.items():
            if len(paths) != 1 or paths[0].suffix.lower() not in _TEXT:
                msg = (
                    f"Only a single text file ({', '.join(_TEXT)}) can be watched as it grows. {name} has "
                    f"{', '.join(p.name for p in paths)}. Replay the bars with --speed instead."
                )
                raise DataError(msg)
        while True:
            bars = self._new_bars(after)
            for step in one_by_one(bars, self.instrument, after) if bars else ():
                after = step[self.instrument].index[-1]
                yield step
            yield None

    def _new_bars(self, after: pd.Timestamp | None) -> BarsByInstrument:
        """Return the last bars of every file, or {} if the file of the traded instrument has not grown."""
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
            if len(bars) > 1 and bars.index[1] <= after:  # row 0 may be the first line of the file
                return bars
        return self._parsed(path, name, content)

    def _parsed(self, path: Path, name: str, content: bytes) -> pd.DataFrame:
        return formats.read_bars(path, self._side, self._clock, name, content).bars


def one_by_one(
    bars: BarsByInstrument, instrument: str, after: pd.Timestamp | None
) -> Iterator[BarsByInstrument]:
    """Yield each bar of the instrument after a time, with the bars of the others up to its open."""
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
