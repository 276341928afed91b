"""File of the scores of new events: CSV, TSV, JSON Lines or Parquet, as its name says."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.event_files import event_files
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError


class _Format(NamedTuple):
    write: Callable[..., object]  # of the table and the path
    scan: Callable[[Path], pl.LazyFrame]
    nests: bool = True  # whether a cell can hold a list


_JSON_LINES = _Format(pl.DataFrame.write_ndjson, pl.scan_ndjson)
_TABS: Any = {"separator": "\t"}
_FORMATS = {
    ".csv": _Format(pl.DataFrame.write_csv, pl.scan_csv, nests=False),
    ".tsv": _Format(partial(pl.DataFrame.write_csv, **_TABS), partial(pl.scan_csv, **_TABS), nests=False),
    ".parquet": _Format(pl.DataFrame.write_parquet, pl.scan_parquet),
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
}


def check_scores_file(path: Path, spec: EventLogSpec, events: Path) -> None:
    """Checks that a file can be written, and is new or holds earlier scores, which may be overwritten.

    Args:
      path: the file for the scores.
      spec: description of the log.
      events: the file of new events.

    Raises:
      InputError: if its name tells no format, it is read too, or it holds anything else.
    """
    form = _format_of(path)
    read = [events, *event_files(spec.files), *(side.file for side in spec.side_tables)]
    if path.resolve() in [existing_file(file).resolve() for file in read]:
        raise InputError(f"{path} must be a new file or earlier scores, but is read: it holds events or features")
    if not path.exists():
        return
    tasks = [task.name for task in spec.tasks]
    try:
        types = form.scan(path).collect_schema() if path.is_file() else {}
        earlier = [*types][-len(tasks) :] == tasks and all(types[task].is_float() for task in tasks)  # outcomes are not
    except pl.exceptions.PolarsError:
        earlier = False
    if not earlier:
        raise InputError(
            f"{path} must be a new file or earlier scores of the tasks {', '.join(tasks)}, but is something else; give "
            "another --out"
        )


def carried_columns(file: Path, names: Sequence[str], spec: EventLogSpec, out: Path) -> pl.DataFrame:
    """Reads columns of a file of new events to stand beside their scores, with every cell as it is.

    Args:
      file: the new events.
      names: the columns.
      spec: description of the log.
      out: file for the scores, which cannot hold lists if it is a text table.

    Raises:
      InputError: if the file lacks a column, or the scores cannot hold it.
    """
    with open_table(file, spec.format) as table:
        for number, name in enumerate(names):
            table.require(name, "--columns")
            if name in names[:number] or name in [task.name for task in spec.tasks]:
                raise InputError(
                    f'--columns must differ from each other and from the tasks, but "{name}" is there twice'
                )
            kind = table.types[name]
            is_plain = out.suffix.lower() == ".parquet" or kind not in (pl.Binary, pl.Object, pl.Duration)
            if not is_plain or (kind.is_nested() and not _format_of(out).nests):
                raise InputError(
                    f'{file}: the column "{name}" (--columns) holds {kind}, which {out} cannot; give '
                    f"--out as .parquet{' or .jsonl' if is_plain else ''}"
                )
        return table.read({name: pl.col(name) for name in names}, [])


def write_scores(
    path: Path, log: EventLog, predictions: Float32[np.ndarray, "N K"], carried: pl.DataFrame | None = None
) -> None:
    """Writes one row per new event, in the order of their file, with one prediction per task.

    Args:
      path: the file to write, whose ending is one that `check_scores_file` accepts.
      log: the log with the new events.
      predictions: predictions of the new events in the order of their rows.
      carried: columns to write before them, of `carried_columns`.
    """
    scores = pl.DataFrame({task: predictions[:, k] for k, task in enumerate(log.task_names)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    _format_of(path).write(scores if carried is None else pl.concat([carried, scores], how="horizontal"), temporary)
    temporary.replace(path)


def _format_of(path: Path) -> _Format:
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f'{path} must end in one of {", ".join(_FORMATS)}, but ends in "{path.suffix}"')
    return _FORMATS[path.suffix.lower()]
