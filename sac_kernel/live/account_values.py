"""An account as the JSON values of a journal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sac_kernel.market.records import Account, blank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def account_to_plain(account: Account) -> dict[str, float | None]:
    """Return an account as JSON values: field -> number, None for infinity."""
    numbers = zip(Account.__annotations__, account.tolist(), strict=True)
    return {name: None if math.isinf(value) else value for name, value in numbers}


def account_from_plain(values: Mapping[str, float | None] | Sequence[float | None]) -> Account:
    """Return the account of `account_to_plain`; a list holds the numbers in the order of the fields."""
    named = values if isinstance(values, dict) else dict(zip(Account.__annotations__, values, strict=True))
    account = blank(Account)
    for name in Account.__annotations__:
        value = named[name]
        setattr(account, name, math.inf if value is None else value)
    return account
