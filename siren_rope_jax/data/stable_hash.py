"""Hashes of texts that are the same in every process, on every machine and with every version of Python or polars."""

import hashlib

import numpy as np
import polars as pl
from jaxtyping import UInt64


def stable_hash(texts: pl.Series, salt: str) -> UInt64[np.ndarray, " E"]:
    """Hashes each text together with `salt`: the first 8 bytes of BLAKE2b, little-endian.

    Args:
      texts: texts; a null, which is a missing value, has its own hash.
      salt: kind of the texts, such as a column name; equal texts with different salts hash differently.

    Raises:
      TypeError: if `texts` are not of type String.
    """
    if texts.dtype != pl.String:
        raise TypeError(f"texts must be of type String, but are of type {texts.dtype}")
    distinct = texts.unique()
    hashes = pl.Series([_hash(text, salt) for text in distinct], dtype=pl.UInt64)
    return texts.replace_strict(distinct, hashes, return_dtype=pl.UInt64).to_numpy()


def _hash(text: str | None, salt: str) -> int:
    message = salt if text is None else f"{salt}\0{text}"
    return int.from_bytes(hashlib.blake2b(message.encode(), digest_size=8).digest(), "little")
