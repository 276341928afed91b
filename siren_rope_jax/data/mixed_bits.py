"""Hashes of rows to 64 well-mixed bits, the same on every machine and with every library version."""

import functools
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(columns: Iterable[UInt64[np.ndarray, " P"]], rows: int) -> UInt64[np.ndarray, " P"]:
    """Mixes the columns of each row, one after the other; equal rows give equal bits."""
    return functools.reduce(lambda so_far, column: splitmix64(so_far + column), columns, np.zeros(rows, np.uint64))


def float_bits(numbers: np.ndarray) -> UInt64[np.ndarray, " P"]:
    """Returns the bits of float32 numbers, with one pattern for every NaN and one for both zeros."""
    plain = np.where(np.isnan(numbers), np.float32(np.nan), numbers.astype(np.float32) + np.float32(0))
    return plain.view(np.uint32).astype(np.uint64)


def splitmix64(values: UInt64[np.ndarray, " P"]) -> UInt64[np.ndarray, " P"]:
    """Takes one step of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads every bit over all 64."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
