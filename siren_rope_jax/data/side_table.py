"""Features of items or users, read from a table with one row for each."""

import dataclasses

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, UInt64

from siren_rope_jax.data.csv_lines import number_of
from siren_rope_jax.data.event_columns import key_column
from siren_rope_jax.data.feature_columns import (
    bag_column,
    dense_column,
    vector_columns,
    vector_names,
    vectors_of_file,
)
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.read_table import Table
from siren_rope_jax.data.side_table_spec import SideTable
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.data.whole_numbers import Style, are_whole_numbers, as_whole_numbers, style_of, whole_numbers_note
from siren_rope_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class SideFeatures:
    """Features of the requested ids, in their order.

    Attributes:
      categorical: stable hash of (feature name, value); a missing value has its own hash.
      dense: numbers, NaN where missing.
      found: whether the table has a row for the id; without one, every feature is missing.
      keys: every id that the table has a row for.
      dense_names: names of the numbers.
      bags: text of each column of bags, as `bag_column` writes it.
    """

    categorical: UInt64[np.ndarray, "I C"]
    dense: Float32[np.ndarray, "I F"]
    found: Bool[np.ndarray, " I"]
    keys: pl.Series
    dense_names: tuple[str, ...] = ()
    bags: tuple[pl.Series, ...] = ()


def read_side_table(
    side: SideTable, ids: pl.Series, style: Style, categorical_names: tuple[str, ...], notes: list[str]
) -> SideFeatures:
    """Looks up the features of items or users.

    Args:
      side: file and columns of the table.
      ids: ids to look up, as text.
      style: style of the whole numbers among the log's ids.
      categorical_names: names under which the categorical columns are hashed.
      notes: receives notes for the user, one sentence each.

    Raises:
      InputError: if the file is invalid, or has two rows for one key.
    """
    with open_table(side.file, side.format) as table:
        remedy = '[[side_table]] missing_ids = "drop" leaves such rows out'
        key, rules = key_column(table, side.key, "[[side_table]] key", side.join, side.missing_ids, remedy)
        columns = {"key": key}
        for column in side.categorical:
            columns[f"categorical {column}"] = table.text(table.require(column, "[[side_table]] categorical"))
        for number, bag in enumerate(side.bags):
            columns[f"bag {number}"] = bag_column(table, bag, "[[side_table]] categorical")
        names = list(side.dense)
        for number, column in enumerate(side.dense):
            columns[f"dense {number}"], rule = dense_column(table, table.require(column, "[[side_table]] dense"))
            rules.append(rule)
        for vector in side.vectors:
            if vector.file is None:
                numbers, more = vector_columns(table, vector, "[[side_table]] dense")
                columns |= {f"dense {len(names) + place}": number for place, number in enumerate(numbers.values())}
                rules += more
                names += numbers
        data = table.read(columns, rules)
        for vector in side.vectors:
            if vector.file is not None:
                array = vectors_of_file(table, vector, data.height)
                data = data.with_columns(
                    pl.Series(f"dense {len(names) + place}", column).fill_nan(None)
                    for place, column in enumerate(array.T)
                )
                names += vector_names(vector, array.shape[1])
        data = _with_whole_numbers(data, side, style, notes)
        _check_keys_are_unique(table, side.key, data["key"])
    notes += table.notes
    if missing := data["key"].null_count():
        notes.append(f"{side.file}: {number_of(missing, 'row')} left out for a missing key")
    rows = ids.to_frame("key").join(data.with_columns(found=pl.lit(True)), on="key", how="left", maintain_order="left")
    hashes = [
        stable_hash(rows[f"categorical {column}"], name)
        for column, name in zip(side.categorical, categorical_names, strict=True)
    ]
    numbers = [rows[f"dense {number}"].cast(pl.Float32).to_numpy() for number in range(len(names))]
    return SideFeatures(
        categorical=np.stack(hashes, axis=1) if hashes else np.zeros((len(ids), 0), np.uint64),
        dense=np.stack(numbers, axis=1) if numbers else np.zeros((len(ids), 0), np.float32),
        found=rows["found"].is_not_null().to_numpy(),
        keys=data["key"],
        dense_names=tuple(names),
        bags=tuple(rows[f"bag {number}"] for number in range(len(side.bags))),
    )


def _with_whole_numbers(data: pl.DataFrame, side: SideTable, style: Style, notes: list[str]) -> pl.DataFrame:
    for name, column in (("key", side.key), *((f"categorical {column}", column) for column in side.categorical)):
        own = style_of(data[name])
        if are_whole_numbers(own, style if name == "key" else own):
            data = data.with_columns(as_whole_numbers(data[name]))
            notes.append(whole_numbers_note(side.file, column))
    return data


def _check_keys_are_unique(table: Table, column: str, keys: pl.Series) -> None:
    repeated = keys.is_duplicated() & keys.is_not_null()
    if repeated.any():
        key = keys.filter(repeated)[0]
        first, second = (keys == key).arg_true()[:2]
        raise InputError(
            f'{table.path}: the key "{key}" of column "{column}" has two rows, {table.place(first)} and '
            f"{table.place(second)}, expected one"
        )
