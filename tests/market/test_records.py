"""Records by name, and the files of plain numbers that hold them."""

import math
import pickle

import numba
import numpy as np
import pytest

from sac_kernel.live import account_values
from sac_kernel.market import records
from sac_kernel.market.records import Account, Bar, Terms, blank, new_table

# The order of the numbers in state files and in journals whose accounts are lists.
STORED = (
    "t", "bars_left", "cash", "units", "entry_price", "equity", "start_equity", "peak_equity", "max_drawdown",
    "bars_held", "spread_paid", "commission_paid", "slippage_paid", "swap_paid", "turnover", "trades", "day_equity",
    "days", "daily_return_mean", "daily_return_m2", "terminated", "truncated", "close_outs", "target", "halted_until",
    "limit_peak", "reward_mean", "reward_square",
)  # fmt: skip


def numbered():
    """An account whose fields count from 10 on, in the order of the files."""
    account = blank(Account)
    for i, name in enumerate(STORED):
        account[name] = 10.0 + i
    return account


def test_a_row_of_a_table_is_a_view_and_a_copy_is_not():
    table = new_table(Account, 3)
    row, copy = table[1], table[1].copy()
    row.cash, copy.cash = 5.0, 7.0
    assert table["cash"].tolist() == [0.0, 5.0, 0.0]
    assert (row.cash, copy.cash) == (5.0, 7.0)


def test_an_unknown_field_is_an_error_in_both_directions():
    account = blank(Account)
    with pytest.raises(AttributeError):
        _ = account.chash
    with pytest.raises(ValueError, match="chash"):
        account.chash = 1.0


@pytest.mark.parametrize("kind", [Account, Bar, Terms, records.Minute, records.Trace])
def test_no_field_hides_behind_an_attribute_of_numpy(kind):
    record = blank(kind)
    for i, name in enumerate(kind.__annotations__):
        record[name] = 100.0 + i
    assert [getattr(record, name) for name in kind.__annotations__] == [
        100.0 + i for i in range(len(kind.__annotations__))
    ]


def test_compiled_code_writes_into_the_record_it_was_given():
    @numba.njit
    def deposit(account, amount):
        account.cash += amount
        return account.t

    account = numbered()
    assert deposit(account, 0.5) == 10.0
    assert account.cash == 12.5


def test_a_matrix_of_accounts_has_a_column_a_field_in_the_order_of_the_files():
    table = new_table(Account, 2)
    table[1] = numbered()
    matrix = records.to_matrix(table)
    assert matrix.tolist() == [[0.0] * 28, [10.0 + i for i in range(28)]]
    back = records.to_table(matrix, Account)
    assert (back[1].t, back[1].target, back[1].reward_square) == (10.0, 33.0, 37.0)
    matrix[:] = 0.0
    assert back[1].cash == 12.0


def test_the_flat_numbers_of_a_table_are_the_table_itself():
    table = new_table(Account, 2)
    table[1] = numbered()
    numbers = records.flat(table)
    assert (numbers.shape, numbers[28:31].tolist()) == ((56,), [10.0, 11.0, 12.0])
    numbers[2] = 7.0
    assert table[0].cash == 7.0
    assert records.flat(np.empty((5, 0), records.MINUTE_DTYPE)).shape == (5, 0)


@pytest.mark.parametrize("shape", [(2, 27), (2, 29), (28,)])
def test_a_matrix_of_another_width_is_refused(shape):
    with pytest.raises(ValueError, match=r"28"):
        records.to_table(np.zeros(shape), Account)


def test_joined_tables_and_pickled_records_keep_their_kind():
    joined = records.join((new_table(Account, 1), new_table(Account, 2)))
    assert (len(joined), type(joined[0])) == (3, Account)
    back = pickle.loads(pickle.dumps(numbered()))
    assert (type(back), back.cash) == (Account, 12.0)


def test_a_table_of_one_row_holds_a_copy():
    account = numbered()
    row = records.one_row(account)
    account.cash = 0.0
    assert (row.shape, row[0].cash) == ((1,), 12.0)


def test_an_account_as_plain_values_comes_back_equal():
    account = numbered()
    account.halted_until = math.inf
    plain = account_values.account_to_plain(account)
    assert (plain["cash"], plain["halted_until"]) == (12.0, None)
    assert account_values.account_from_plain(plain) == account


def test_a_list_of_numbers_is_an_account_too():
    values = [10.0 + i for i in range(28)]
    values[24] = None  # for ever
    account = account_values.account_from_plain(values)
    assert (account.halted_until, account.limit_peak, account.day_equity) == (math.inf, 35.0, 26.0)
    with pytest.raises(ValueError, match="shorter"):
        account_values.account_from_plain(values[:27])
