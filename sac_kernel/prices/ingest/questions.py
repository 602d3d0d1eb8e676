"""What a source of bars does not say is asked for once, with the complete command to try.

Only the beginning of each text file is read, so an answer comes before millions of rows are.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.core.errors import DataError
from sac_kernel.prices.ingest import formats
from sac_kernel.prices.instruments import canonical, choose_traded, known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sac_kernel.prices.pipeline import DataConfig

ANSWERS = {
    "instrument": ("the instrument", "NAME", "such as EURUSD, US30 or AAPL"),
    "kind": ("the kind of instrument", "KIND", "fx, metal, index, crypto or equity"),
    "price_side": ("the price side", "SIDE", "bid, ask or mid"),
    "clock": (
        "the clock of its times",
        "CLOCK",
        "UTC, an IANA zone, histdata, or mt-eet for MetaTrader servers",
    ),
}
"""Option -> what it says, its placeholder in a command, and the values it takes."""


class MissingFactsError(DataError):
    """Facts about bars that neither the files nor the options state.

    Attributes
    ----------
    missing : option -> the files that lack it
    path : the source
    """

    def __init__(self, missing: dict[str, list[str]], path: str, command: str) -> None:
        self.missing, self.path = missing, path
        lines = [
            f"  {'--' + option.replace('_', '-'):<13} {ANSWERS[option][0]}: {ANSWERS[option][2]}{_of(files, path)}"
            for option, files in missing.items()
        ]
        what = " or ".join(ANSWERS[option][0] for option in missing)
        super().__init__(f"{path} does not state {what}.\n" + "\n".join(lines) + f"\nTry: {command}")

    def for_command(self, words: list[str]) -> MissingFactsError:
        """Return the error with the user's own command, to which the missing options are added."""
        return MissingFactsError(self.missing, self.path, _command(words, self.missing))


def ask(config: DataConfig) -> None:
    """Raise if the source's files and the config together leave a fact open.

    Raises
    ------
    MissingFactsError
        With every fact that is missing in any file.
    DataError, InputNotFoundError
        If a file cannot be read at all, or the traded instrument is not among several.
    """
    if config.source != "files":
        return
    source = Path(config.path)
    if source.is_dir():
        files = formats.find_files(source, nameless=True)
        _refuse_nameless(files.get("", []), source)
        first = [(name, paths[0]) for name, paths in files.items()]
    else:
        files, first = {}, [("", source)]
    given = {name for name in ANSWERS if getattr(config, name)}
    given |= {"kind"} if config.instrument_spec and not config.several else set()
    missing: dict[str, list[str]] = {}
    for name, path in first:
        for option in _open_questions(path, name, config):
            if option not in given:
                missing.setdefault(option, []).append(path.name)
    if missing:
        words = ["python", "build_kernel.py", "--data", config.path]
        for name in ANSWERS:
            if value := getattr(config, name):
                several = name == "instrument" and config.several
                option = "instruments" if several else name.replace("_", "-")
                words += [f"--{option}", ",".join(config.instruments) if several else value]
        in_order = {option: missing[option] for option in ANSWERS if option in missing}
        raise MissingFactsError(in_order, config.path, _command(words, in_order))
    if len(files) > 1 or config.several:
        choose_all(files, config)


def choose_all(names: Iterable[str], config: DataConfig) -> list[str]:
    """Return the traded instruments among the names, the config's or the default one, in order.

    Raises
    ------
    DataError
        With all those that are not there.
    """
    available = list(names)
    if not config.several:
        wanted = config.instrument or (available[0] if len(available) == 1 else "")
        traded = [choose_traded(available, wanted, config.path)]
    else:
        traded = []
        lacking = []
        for name in config.instruments:
            try:
                traded.append(choose_traded(available, name, config.path))
            except DataError:
                lacking.append(name)
        if lacking:
            msg = (
                f"{config.path} has no bars of {', '.join(lacking)}, only of {', '.join(sorted(available))}. "
                "Pass --instruments with some of these."
            )
            raise DataError(msg)
    return traded


def _open_questions(path: Path, name: str, config: DataConfig) -> Iterator[str]:
    """Yield the options whose facts a file does not state; `name` is its instrument in a folder, else ''."""
    facts = formats.peek(path)
    traded = name or config.instrument or facts.instrument
    if not traded:
        yield "instrument"
    # only traded instruments have costs; of several files they are named, or EURUSD
    wanted = {"", *map(canonical, (config.instrument, *config.instruments))}
    described = config.several and canonical(name) in config.own_specs()
    if not facts.kind and not known(traded) and canonical(name) in wanted and not described:
        yield "kind"
    if not facts.side:
        yield "price_side"
    if not facts.clock:
        yield "clock"


def _refuse_nameless(paths: list[Path], source: Path) -> None:
    if paths:
        listed = ", ".join(path.name for path in paths[:5])
        msg = (
            f"{source}: {len(paths)} file names do not tell their instrument ({listed}). Put the symbol into each "
            "name, as in EURUSD_M5.csv, or pass one file."
        )
        raise DataError(msg)


def _command(words: list[str], missing: Iterable[str]) -> str:
    asked = [option for option in ANSWERS if option in missing]
    return " ".join([shlex.join(words), *(f"--{o.replace('_', '-')} {ANSWERS[o][1]}" for o in asked)])


def _of(files: list[str], path: str) -> str:
    names = [name for name in files if name != Path(path).name]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" (for {', '.join(names[:3])}{more})"
