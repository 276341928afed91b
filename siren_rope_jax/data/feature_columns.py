"""Cells of features, as polars expressions: numbers, bags of values, and vectors of numbers."""

import fnmatch
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.feature_spec import BagColumn, VectorColumn
from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.read_table import MISSING_WORDS, Rule, Table
from siren_rope_jax.errors import InputError

BETWEEN = "\x1f"  # stands between the values of a bag; no text holds it
_AROUND = " \t[](){}'\""  # of values that programs print as lists
_NUMBERS, _NUMBERS_WITH_COMMAS = r"[^\s,;|\[\]()]+", r"[^\s;|\[\]()]+"


def dense_column(table: Table, column: str) -> tuple[pl.Expr, Rule]:
    """Returns a column of numbers as float32, null = missing, and the rule that each is a finite number."""
    number, is_number = table.number(column)
    dense = number.cast(pl.Float32)
    valid = is_number & dense.is_finite().fill_null(True)
    return dense, Rule(column, valid, "a finite number or an empty cell")


def bag_column(table: Table, bag: BagColumn, key: str) -> pl.Expr:
    """Returns the values of each cell as one text, each once and in the order of the alphabet; null if there is none.

    Raises:
      InputError: if the column is missing, or holds neither text with a separator nor lists.
    """
    kind = table.types[table.require(bag.column, key)]
    where = f'{table.path}: the column "{bag.column}" ({key}) holds {kind}'
    if isinstance(kind, pl.List | pl.Array):
        if kind.inner.is_nested():  # type: ignore[union-attr]
            raise InputError(f"{where}, expected lists of texts or numbers")
        values = pl.col(bag.column).cast(pl.List(pl.String))
        if kind.inner.is_float():  # type: ignore[union-attr]
            values = values.list.eval(pl.element().str.replace(r"\.0$", ""))  # whole numbers, as another file has them
    elif kind == pl.Null:
        return pl.lit(None, pl.String)
    elif bag.split is None:
        raise InputError(f'{where}, expected lists; for texts such as "a|b" give split = "|"')
    else:
        values = table.text(bag.column).str.split(bag.split)
    value = pl.element().str.strip_chars(_AROUND)
    present = value.filter(~value.is_in(MISSING_WORDS) & value.is_not_null())
    text = values.list.eval(present).list.unique().list.sort().list.join(BETWEEN)
    return pl.when(text != "").then(text)


class Vector(NamedTuple):
    """Numbers of a vector, by name, as float32 with null = missing, and the rules on them."""

    numbers: dict[str, pl.Expr]
    rules: list[Rule]


def vector_columns(
    table: Table, vector: VectorColumn, key: str, *, known: Sequence[str] = (), hidden: Collection[str] = ()
) -> Vector:
    """Returns the numbers of a vector.

    Args:
      table: the open file.
      vector: the column, or the pattern of columns.
      key: setting that names it, for errors.
      known: names of the numbers in the files before, which tell the length where a file has no vector at all.
      hidden: columns that no feature may read, such as those of outcomes.

    Raises:
      InputError: if no column has such a name or holds vectors, or a column that is hidden has.
    """
    if vector.columns is not None:
        names = sorted(fnmatch.filter(table.types, vector.columns), key=_natural)
        if not names:
            raise InputError(f'{table.path}: no column of this file is named like "{vector.columns}" ({key})')
        for name in names:
            if name in hidden:
                raise InputError(
                    f'{table.path}: "{vector.columns}" ({key}) takes the column "{name}" in, which tells the outcome '
                    "or the split: a model must not read it"
                )
        read = {name: dense_column(table, name) for name in names}
        return Vector({name: number for name, (number, _) in read.items()}, [rule for _, rule in read.values()])
    column = table.require(str(vector.column), key)
    kind = table.types[column]
    if isinstance(kind, pl.List | pl.Array) and (kind.inner.is_numeric() or kind.inner == pl.Null):  # type: ignore[union-attr]
        numbers = pl.col(column).cast(pl.List(pl.Float32))
    elif kind in (pl.String, pl.Null):
        text = table.text(column)
        found = text.str.extract_all(_NUMBERS_WITH_COMMAS if table.decimal_comma else _NUMBERS)
        numbers = found.list.eval(pl.element().str.replace(",", ".").cast(pl.Float32, strict=False))
        numbers = pl.when(text.is_not_null()).then(numbers)
    else:
        raise InputError(f'{table.path}: the column "{column}" ({key}) holds {kind}, expected lists of numbers')
    numbers = pl.when(numbers.list.len() > 0).then(numbers)  # an empty list is missing
    before = [name for name in known if name.startswith(f"{vector.name}[")]
    width = table.first(numbers.list.len()) or len(before)
    if not width:
        raise InputError(f'{table.path}: the column "{column}" ({key}) holds no vector, expected at least one')
    are_numbers = numbers.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    valid = (numbers.list.len() == width) & are_numbers
    expected = f"{width} finite numbers, as in the first vector, or an empty cell"
    rule = Rule(column, valid.fill_null(True), expected)
    names = vector_names(vector, width)
    return Vector({name: numbers.list.get(k, null_on_oob=True) for k, name in enumerate(names)}, [rule])


def vectors_of_file(table: Table, vector: VectorColumn, rows: int) -> Float32[np.ndarray, "R W"]:
    """Reads a NumPy file with one vector for each row of a table; NaN is missing.

    Raises:
      InputError: if the file is missing, no NumPy file, or of another shape.
    """
    assert vector.file is not None
    file = existing_file(vector.file)
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{vector.file}: expected a NumPy file (.npy) with numbers, found something else") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim != 2 or not array.shape[1]:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"{vector.file}: expected numbers with one row for each of {table.path}, found {found}")
    if len(array) != rows:
        raise InputError(f"{vector.file}: expected {rows:,} rows, as {table.path} has, found {len(array):,}")
    with np.errstate(over="ignore"):  # found next
        array = array.astype(np.float32)
    if np.isinf(array).any():
        raise InputError(f"{vector.file}: expected finite numbers of float32, or NaN where missing, found another")
    return array


def vector_names(vector: VectorColumn, width: int) -> list[str]:
    """Returns the names of a vector's numbers."""
    return [f"{vector.name}[{place}]" for place in range(width)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts embedding_2 before embedding_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
