"""Instruments: what each one costs, when it trades, how its prices look; and the choice of the traded one.

Defaults are measured or cited in docs/instruments.md. A user's own figures come as `--costs` or a TOML file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from sac_kernel.core.config import check_names, from_flat, require
from sac_kernel.core.errors import ConfigError, DataError, InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

INSTRUMENTS = (
    "EURUSD",
    "USDJPY",
    "GBPUSD",
    "USDCAD",
    "USDSEK",
    "USDCHF",
    "EURGBP",
    "EURJPY",
    "XAUUSD",
    "SPXUSD",
)
"""The ten instruments that the thirty features are computed from."""

DEFAULT = "EURUSD"
"""Traded when there are several instruments and none is named."""

KINDS = ("fx", "metal", "index", "crypto", "equity")
CALENDARS = {"fx_week": 4, "always": 1, "exchange": 5}
"""Calendar -> days without bars from which a gap is a hole: longer than a weekend with its holidays."""
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIERS = ("raw", "base", "retail")
OWN_TIERS = (0.5, 1.0, 2.0)
COSTS = (
    "spread_bps", "commission_bps", "commission_per_lot", "slippage_bps", "swap_long_bps", "swap_short_bps",
)  # fmt: skip
"""What `--costs` sets, and `spread=column`, which takes the spread from the file."""

FREEZE_BELOW_S = 14_400
"""The freeze is for bars shorter than this: a daily bar opens at the rollover and could never be traded."""
_DAY_MIN = 1440
# Spread over its normal value by New York half hour. Shape: medians of OANDA's bid and ask, 2023; EURUSD 1.4-1.6
# pips by day, 7.5 in the hour after 17:00, 3.5 in the next. The first half hour of each is wider.
_EVENING = {34: 10.0, 35: 6.0, 36: 3.5, 37: 2.0, 38: 1.2}
_WIDE_EVENING = {34: 14.0, 35: 8.0, 36: 6.5, 37: 4.0, 38: 1.5}


def widening(by_half_hour: Mapping[int, float], usual: float = 1.0) -> tuple[float, ...]:
    """Return 48 multiples of the normal spread, `usual` where a half hour is not named."""
    return tuple(by_half_hour.get(i, usual) for i in range(48))


def minute_of(text: str, where: str) -> int:
    """Return the minute of the day of 'HH:MM', 0 to 1440."""
    hours, colon, minutes = text.partition(":")
    digits = colon and hours.isdigit() and minutes.isdigit() and int(minutes) < 60
    value = 60 * int(hours) + int(minutes) if digits else -1
    require(0 <= value <= _DAY_MIN, where, "times must be HH:MM", text)
    return value


@dataclass(frozen=True)
class InstrumentSpec:
    """What an instrument costs and when it trades; the defaults are EURUSD's. Times are local, HH:MM.

    Attributes
    ----------
    symbol : its name, letters and digits
    kind : fx, metal (and energy), index, crypto or equity
    quote : currency of the price
    aliases : other names of it
    calendar : fx_week (Sunday to Friday 17:00 New York), always, or exchange
    zone : IANA zone of all times here
    session : open and close of an exchange; empty for other calendars
    rollover : times at which `swap_long_bps` or `swap_short_bps` is charged; empty for never
    triple_day : weekday whose rollover counts three; without one weekends are charged like other days
    freeze : from and until when exposure cannot change, for bars below four hours; empty for never
    days_a_year : trading days, for annual figures
    spread_bps : full spread in normal hours, of price
    spread_widening : 48 multiples of it, by local half hour
    spread_from : profile, or column: the bars' own column `spread`
    commission_bps : a side, of notional
    commission_per_lot : a side, in the quote currency
    slippage_bps : a side, of price
    swap_long_bps : of notional, paid by a long position at each rollover; negative is received
    swap_short_bps : of notional, paid by a short position at each rollover; negative is received
    price_step : smallest change of the price: MetaTrader's point
    lot : units a lot; 1 for shares
    price_range : lowest and highest plausible price
    tiers : factors on spread, commission and slippage at raw, base and retail costs
    """

    symbol: str = DEFAULT
    kind: str = "fx"
    quote: str = "USD"
    aliases: tuple[str, ...] = ()
    calendar: str = "fx_week"
    zone: str = "America/New_York"
    session: tuple[str, ...] = ()
    rollover: tuple[str, ...] = ("17:00",)
    triple_day: str = "wednesday"
    freeze: tuple[str, ...] = ("16:45", "19:00")
    days_a_year: int = 260
    spread_bps: float = 0.55
    spread_widening: tuple[float, ...] = widening(_EVENING)
    spread_from: str = "profile"
    commission_bps: float = 0.32
    commission_per_lot: float = 0.0
    slippage_bps: float = 0.155
    swap_long_bps: float = 0.6
    swap_short_bps: float = 0.3
    price_step: float = 1e-5
    lot: float = 100_000.0
    price_range: tuple[float, ...] = (0.37, 3.3)
    tiers: tuple[float, ...] = (0.48, 1.0, 14 / 3)

    def __post_init__(self) -> None:
        where = f"instrument {self.symbol}"
        require(self.symbol.isalnum(), where, "symbol must be letters and digits", self.symbol)
        require(self.kind in KINDS, where, f"kind must be one of {', '.join(KINDS)}", self.kind)
        names = ", ".join(CALENDARS)
        require(self.calendar in CALENDARS, where, f"calendar must be one of {names}", self.calendar)
        days = ("", *WEEKDAYS[:5])
        require(self.triple_day in days, where, "triple_day must be a weekday or ''", self.triple_day)
        require(self.spread_from in ("profile", "column"), where, "spread_from", self.spread_from)
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as err:
            msg = f"{where}: zone must be an IANA zone such as Europe/London, got {self.zone!r}"
            raise ConfigError(msg) from err
        for name in ("session", "freeze"):
            times = tuple(minute_of(text, where) for text in getattr(self, name))
            ordered = not times or (len(times) == 2 and times[0] < times[1])
            require(ordered, where, f"{name} must be two times in order, or empty", list(getattr(self, name)))
        has_session = bool(self.session) == (self.calendar == "exchange")
        require(has_session, where, "a session belongs to the calendar exchange", list(self.session))
        object.__setattr__(self, "rollover", tuple(sorted(self.rollover)))
        for text in self.rollover:
            minute_of(text, where)
        wide = len(self.spread_widening) == 48 and min(self.spread_widening) > 0
        require(wide, where, "spread_widening must be 48 numbers above 0", len(self.spread_widening))
        for name in ("spread_bps", "commission_bps", "commission_per_lot", "slippage_bps"):
            value = getattr(self, name)
            require(0 <= value < math.inf, where, f"{name} must be >= 0", value)
        require(self.spread_bps < 1e4, where, "spread_bps must be below 10000", self.spread_bps)
        for name in ("price_step", "lot", "days_a_year"):
            require(getattr(self, name) > 0, where, f"{name} must be > 0", getattr(self, name))
        low, high = (*self.price_range, 0.0, 0.0)[:2]
        require(0 < low < high, where, "price_range must be two prices, low and high", list(self.price_range))
        require(len(self.tiers) == len(TIERS) and min(self.tiers) >= 0, where, "tiers", list(self.tiers))

    @property
    def day_start_min(self) -> int:
        """Return the local minute at which a trading day begins: 17:00 in the week of FX, else midnight."""
        week = self.calendar == "fx_week" and len(self.rollover) == 1
        return minute_of(self.rollover[0], self.symbol) if week else 0

    @property
    def day_ends_min(self) -> tuple[int, ...]:
        """Return the local minutes that `time_to_rollover` counts down to: the session's close, or each rollover."""
        ends = self.session[1:] or self.rollover
        return tuple(minute_of(text, self.symbol) for text in ends) or (self.day_start_min,)

    @property
    def day_seconds(self) -> int:
        """Return the seconds of a trading day in which there are bars."""
        if not self.session:
            return 86_400
        opens, closes = (minute_of(text, self.symbol) for text in self.session)
        return 60 * (closes - opens)

    @property
    def commission_per_unit(self) -> float:
        """Return the commission of a side in the quote currency a unit: a share, or a lot over its size."""
        return self.commission_per_lot / self.lot

    def factor(self, tier: str) -> float:
        """Return the factor of a cost tier."""
        return self.tiers[TIERS.index(tier)]

    def hole_s(self, bar_seconds: int) -> int:
        """Return from which difference of two open times on [s] bars are missing between them."""
        return CALENDARS[self.calendar] * 86_400 + (bar_seconds if bar_seconds >= 86_400 else 0)

    def frozen(self, bar_seconds: int) -> tuple[int, int]:
        """Return from and until which local minute exposure cannot change on bars of this length; (0, 0) for never."""
        if not self.freeze or bar_seconds >= FREEZE_BELOW_S:
            return 0, 0
        start, end = (minute_of(text, self.symbol) for text in self.freeze)
        return start, end

    def with_costs(self, costs: str) -> InstrumentSpec:
        """Return this spec with a user's own costs: 'NAME=VALUE,...' of `COSTS`; its tiers become x .5, x 1, x 2.

        Several parts are joined by ';'. 'SYMBOL:NAME=VALUE,...' is for one instrument and replaces what is for all.

        Raises
        ------
        ConfigError
            For an unknown name (with the nearest), or a value that is no number or out of range.
        """
        spec = self
        for symbol, part in sorted(cost_parts(costs), key=lambda part: part[0] != ""):
            changed = spec._with_own(part)  # checks those of other instruments too
            spec = changed if symbol in ("", canonical(self.symbol)) else spec
        return spec

    def _with_own(self, costs: str) -> InstrumentSpec:
        changes: dict[str, Any] = {}
        for text in filter(None, (part.strip() for part in costs.split(","))):
            name, _, value = (part.strip() for part in text.partition("="))
            if (name, value) == ("spread", "column"):
                changes["spread_from"] = "column"
                continue
            check_names("--costs", [name], COSTS)
            try:
                changes[name] = float(value)
            except ValueError as err:
                msg = f"--costs takes NAME=VALUE,..., got {text!r}"
                raise ConfigError(msg) from err
            require(math.isfinite(changes[name]), "--costs", f"{name} must be finite", text)
        if "spread_bps" in changes:
            changes.setdefault("spread_from", "profile")
        if not changes:
            return self
        # A commission in bps replaces the default one a lot, and the other way round.
        for given, other in (
            ("commission_bps", "commission_per_lot"),
            ("commission_per_lot", "commission_bps"),
        ):
            if given in changes:
                changes.setdefault(other, 0.0)
        return dataclasses.replace(self, **changes, tiers=OWN_TIERS)

    def flat(self) -> dict[str, Any]:
        """Return the spec as plain values; `from_values` takes them back."""
        return {
            f.name: list(value) if isinstance(value := getattr(self, f.name), tuple) else value
            for f in dataclasses.fields(self)
        }

    def toml(self) -> str:
        """Return the spec as TOML; `from_toml` takes it back."""
        return "\n".join(f"{name} = {json.dumps(value)}" for name, value in self.flat().items()) + "\n"


EURUSD = InstrumentSpec()


def from_values(values: Mapping[str, object], where: str) -> InstrumentSpec:
    """Return the spec of plain values; what they leave out is taken from the kind, or from the known symbol.

    `spread_widening` may be a table {"17:00" = 10.0, ...}; `tiers` are x .5, x 1, x 2 where it states costs.

    Raises
    ------
    ConfigError
        For an unknown name, a wrong type or a value out of range.
    """
    given = dict(values)
    names = [f.name for f in dataclasses.fields(InstrumentSpec)]
    check_names(where, given, names)
    symbol, kind = str(given.get("symbol", "")), str(given.get("kind", ""))
    base = spec_of(symbol, kind) if symbol else _of_kind(kind, "X")
    wide = given.get("spread_widening")
    if isinstance(wide, dict):
        table = {minute_of(str(at), where) // 30: value for at, value in wide.items()}
        given["spread_widening"] = list(widening(table))
    if "spread_widening" not in given and "calendar" in given:
        given["spread_widening"] = [1.0] * 48
    if any(name in given for name in COSTS):
        given.setdefault("tiers", list(OWN_TIERS))
    return from_flat(InstrumentSpec, {**base.flat(), **given, "symbol": symbol}, where)


def from_toml(path: Path) -> InstrumentSpec:
    """Return the spec of a TOML file (`--instrument-spec`).

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    ConfigError
        If it is not TOML, or a name or value is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        msg = f"--instrument-spec: {path} does not exist."
        raise InputNotFoundError(msg) from err
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        msg = f"--instrument-spec: {path} is not valid TOML: {err}"
        raise ConfigError(msg) from err
    require("symbol" in values, f"--instrument-spec {path}", "symbol must be set", sorted(values))
    return from_values(values, str(path))


# -- what is built in: docs/instruments.md has the sources ---------------------------------------------------

_KINDS: dict[str, dict[str, Any]] = {
    "fx": {"price_range": (1e-4, 1e5)},
    "metal": {
        "spread_bps": 0.62,
        "spread_widening": widening(_WIDE_EVENING),
        "commission_bps": 0.35,
        "slippage_bps": 0.3,
        "swap_long_bps": 1.4,
        "swap_short_bps": 0.3,
        "price_step": 0.01,
        "lot": 100.0,
        "price_range": (1.0, 1e5),
        "tiers": OWN_TIERS,
    },
    "index": {
        "triple_day": "friday",
        "freeze": (),
        "spread_bps": 1.06,
        "commission_bps": 0.0,
        "slippage_bps": 0.3,
        "swap_long_bps": 1.4,
        "swap_short_bps": 0.3,
        "price_step": 0.1,
        "lot": 1.0,
        "price_range": (10.0, 1e6),
        "tiers": OWN_TIERS,
    },
    "crypto": {
        "calendar": "always",
        "zone": "UTC",
        "rollover": ("00:00", "08:00", "16:00"),
        "triple_day": "",
        "freeze": (),
        "days_a_year": 365,
        "spread_bps": 2.0,
        "spread_widening": widening({}),
        "commission_bps": 10.0,
        "slippage_bps": 1.0,
        "swap_long_bps": 1.0,
        "swap_short_bps": 0.0,
        "price_step": 0.01,
        "lot": 1.0,
        "price_range": (1e-9, 1e7),
        "tiers": OWN_TIERS,
    },
    "equity": {
        "calendar": "exchange",
        "session": ("09:30", "16:00"),
        "rollover": ("20:00",),
        "triple_day": "friday",
        "freeze": (),
        "days_a_year": 252,
        "spread_bps": 3.0,
        "spread_widening": widening(dict.fromkeys(range(20, 32), 1.0) | {19: 2.0}, 5.0),
        "commission_bps": 0.0,
        "commission_per_lot": 0.005,
        "slippage_bps": 1.0,
        "swap_long_bps": 0.0,
        "swap_short_bps": 0.1,
        "price_step": 0.01,
        "lot": 1.0,
        "price_range": (0.01, 1e6),
        "tiers": OWN_TIERS,
    },
}

# Spreads of pairs over EURUSD's, by OANDA's daytime medians of 2023; other pairs: twice EURUSD's.
_PAIRS = {
    "EURUSD": 0.55, "GBPUSD": 0.54, "USDCAD": 0.56, "USDCHF": 0.62, "USDJPY": 0.55, "EURGBP": 0.66, "EURJPY": 0.52,
    "USDSEK": 1.25, "EURSEK": 1.3, "AUDUSD": 0.8, "NZDUSD": 1.0,
}  # fmt: skip
_NARROW_EVENING = ("EURUSD", "USDJPY", "USDCAD")
# A unit in US dollars, to tell implausible prices: within a factor 3, 20 for currencies that inflated.
_USD = {
    "EUR": 1.1, "USD": 1.0, "JPY": 0.009, "GBP": 1.4, "CHF": 1.0, "CAD": 0.8, "AUD": 0.75, "NZD": 0.68, "SEK": 0.12,
    "NOK": 0.13, "DKK": 0.15, "SGD": 0.73, "HKD": 0.128, "ZAR": 0.08, "MXN": 0.06, "TRY": 0.1, "PLN": 0.27,
    "CZK": 0.045, "HUF": 0.0035, "CNH": 0.15,
}  # fmt: skip
_INFLATED = ("TRY", "ZAR", "MXN")
_LISTED: dict[str, tuple[str, dict[str, Any]]] = {
    "XAUUSD": ("metal", {"aliases": ("GOLD", "XAU"), "price_range": (100.0, 20_000.0)}),
    "XAGUSD": (
        "metal",
        {
            "aliases": ("SILVER", "XAG"),
            "spread_bps": 6.0,
            "price_step": 0.001,
            "lot": 5000.0,
            "price_range": (2.0, 500.0),
        },
    ),
    "XTIUSD": (
        "metal",
        {
            "aliases": ("WTI", "USOIL", "CL", "WTICOUSD"),
            "spread_bps": 4.0,
            "commission_bps": 0.0,
            "price_range": (5.0, 500.0),
        },
    ),
    "XBRUSD": (
        "metal",
        {
            "aliases": ("BRENT", "UKOIL", "BCOUSD"),
            "spread_bps": 4.0,
            "commission_bps": 0.0,
            "price_range": (5.0, 500.0),
        },
    ),
    "SPXUSD": (
        "index",
        {
            "aliases": ("SPX500", "SPX500USD", "US500", "SP500", "SPX", "USA500IDXUSD"),
            "price_range": (200.0, 50_000.0),
        },
    ),
    "US30": (
        "index",
        {"aliases": ("DJ30", "WS30", "DJI", "US30USD", "USA30IDXUSD"), "price_range": (2e3, 3e5)},
    ),
    "NAS100": (
        "index",
        {
            "aliases": ("US100", "NDX", "USTEC", "NAS100USD", "NSXUSD", "USATECHIDXUSD"),
            "price_range": (500.0, 2e5),
        },
    ),
    "GER40": (
        "index",
        {
            "aliases": ("DE40", "GER30", "DE30", "DAX", "DE30EUR"),
            "quote": "EUR",
            "price_range": (1e3, 1e5),
        },
    ),
    "UK100": ("index", {"aliases": ("FTSE", "FTSE100"), "quote": "GBP", "price_range": (1e3, 5e4)}),
    "JP225": (
        "index",
        {"aliases": ("NIKKEI", "JPN225"), "quote": "JPY", "price_step": 1.0, "price_range": (5e3, 3e5)},
    ),
    "BTCUSD": ("crypto", {"spread_bps": 1.0, "aliases": ("XBTUSD",), "price_range": (10.0, 5e6)}),
    "ETHUSD": ("crypto", {"spread_bps": 1.0, "price_range": (1.0, 2e5)}),
    "SOLUSD": ("crypto", {"price_range": (0.1, 2e4)}),
    "BNBUSD": ("crypto", {"price_range": (0.1, 5e4)}),
    "XRPUSD": ("crypto", {"price_step": 1e-4, "price_range": (1e-3, 1e3)}),
    "ADAUSD": ("crypto", {"price_step": 1e-4, "price_range": (1e-3, 1e3)}),
    "DOGEUSD": ("crypto", {"price_step": 1e-5, "price_range": (1e-5, 1e2)}),
    "LTCUSD": ("crypto", {"price_range": (0.5, 1e4)}),
}
_ALIASES = {
    alias: name for name, (_, values) in _LISTED.items() for alias in (name, *values.get("aliases", ()))
}
_COINS = tuple(name.removesuffix("USD") for name, (kind, _) in _LISTED.items() if kind == "crypto")
_STABLE = ("USDT", "USDC", "BUSD", "FDUSD", "USD", "EUR", "PERP")


def cost_parts(costs: str) -> list[tuple[str, str]]:
    """Return the parts of own costs: the instrument that each is for, '' for all, and 'NAME=VALUE,...'."""
    parts = (part.rpartition(":") for part in costs.split(";"))
    return [(canonical(symbol), values) for symbol, _, values in parts]


def canonical(symbol: str) -> str:
    """Return the name under which an instrument is known here, or the symbol itself in capitals.

    >>> canonical("gold"), canonical("BTCUSDT"), canonical("EUR/USD"), canonical("ABC")
    ('XAUUSD', 'BTCUSD', 'EURUSD', 'ABC')
    """
    name = "".join(filter(str.isalnum, symbol.upper()))
    coin = next((c for c in _COINS for s in _STABLE if name == c + s), "")
    return f"{coin}USD" if coin else _ALIASES.get(name, name)


def known(symbol: str) -> bool:
    """Return whether `spec_of` knows an instrument without its kind."""
    name = canonical(symbol)
    return name in _LISTED or _is_pair(name)


def spec_of(symbol: str, kind: str = "") -> InstrumentSpec:
    """Return the built-in spec of an instrument, or that of its kind.

    Parameters
    ----------
    symbol : a name or alias; `canonical` says which instrument it is
    kind : one of `KINDS`; needed for a symbol that is not built in, and refused if it contradicts one that is

    Raises
    ------
    DataError
        If the symbol is not known and no kind is given.
    ConfigError
        If the kind is none, or another than the known instrument's.
    """
    name = canonical(symbol)
    if name in _LISTED:
        own, values = _LISTED[name]
        spec = _of_kind(own, name, **values)
    elif _is_pair(name):
        spec = _pair(name)
    elif kind:
        return _of_kind(kind, name)
    else:
        msg = (
            f"{symbol or 'The instrument'} is not known, so its costs and hours are not either. "
            f"Pass --kind ({', '.join(KINDS)}) or --instrument-spec FILE.toml."
        )
        raise DataError(msg)
    require(kind in ("", spec.kind), f"instrument {name}", f"it is of kind {spec.kind}; --kind", kind)
    return spec


def spec_or_default(symbol: str) -> InstrumentSpec:
    """Return the built-in spec of a symbol, or EURUSD's costs and hours under its name if there is none."""
    if known(symbol):
        return dataclasses.replace(spec_of(symbol), symbol=symbol)
    return dataclasses.replace(_of_kind("fx", symbol)) if symbol.isalnum() else EURUSD


def _of_kind(kind: str, symbol: str, **values: Any) -> InstrumentSpec:  # noqa: ANN401
    require(kind in KINDS, "--kind", f"it must be one of {', '.join(KINDS)}", kind)
    return InstrumentSpec(symbol, kind, **{**_KINDS[kind], **values})


def _is_pair(name: str) -> bool:
    return len(name) == 6 and name[:3] in _USD and name[3:] in _USD and name[:3] != name[3:]


def _pair(name: str) -> InstrumentSpec:
    base, quote = name[:3], name[3:]
    price = _USD[base] / _USD[quote]
    room = 20.0 if {base, quote} & {*_INFLATED} else 3.0
    return InstrumentSpec(
        name,
        quote=quote,
        spread_bps=_PAIRS.get(name, 1.1),
        spread_widening=widening(_EVENING if name in _NARROW_EVENING else _WIDE_EVENING),
        price_step=1e-3 if quote in ("JPY", "HUF") else 1e-5,
        price_range=EURUSD.price_range
        if name == DEFAULT
        else (float(f"{price / room:.2g}"), float(f"{price * room:.2g}")),
    )


def choose_traded(names: Iterable[str], wanted: str, where: str) -> str:
    """Return the instrument to trade among `names`: `wanted` or another name of it, or EURUSD if that is ''.

    Raises
    ------
    DataError
        If it is not among them; the message lists the names.
    """
    traded = wanted or DEFAULT
    available = sorted(names)
    if traded in available:
        return traded
    same = [name for name in available if canonical(name) == canonical(traded)]
    if len(same) == 1:
        return same[0]
    msg = f"{where} has no bars of {traded}, only of {', '.join(available)}. Pass --instrument NAME with one of these."
    raise DataError(msg)
