"""Errors of readers of tables, converted to one sentence."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from siren_rope_jax.data.text_format import wrong_encoding
from siren_rope_jax.errors import InputError


@contextlib.contextmanager
def reading(path: Path, local: Path) -> Iterator[None]:
    """Converts any error of a reader to an InputError with one sentence."""
    try:
        yield
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: this file is empty") from None
    except pl.exceptions.PolarsError as error:
        if "utf-8" in str(error):
            raise InputError(wrong_encoding(path, local, "utf-8")) from None
        raise InputError(f"{path}: this file cannot be read as a table: {_first_line(error)}") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # zipfile raises a RuntimeError for encrypted archives and for unknown compressions.
        raise InputError(f"{path}: this file cannot be read or is damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
