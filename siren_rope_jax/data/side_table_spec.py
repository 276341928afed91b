"""Tables of items and users in a log description: one `[[side_table]]` for each."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from siren_rope_jax.data.feature_spec import BagColumn, VectorColumn, read_features
from siren_rope_jax.data.named_files import FileName, absolute
from siren_rope_jax.data.text_format import FORMAT_KEYS, TextFormat
from siren_rope_jax.data.toml_section import Section

MissingIds = Literal["refuse", "drop"]


@dataclasses.dataclass(frozen=True)
class SideTable:
    """A table with one row per item or per user, whose columns become features of every event.

    Attributes:
      file: absolute path or URL.
      join: "item" or "user", the kind of id in `key`.
      key: column that is compared, as text, with the log's item or user column.
      categorical: columns compared as text.
      dense: columns of numbers.
      bags: columns with any number of values in a cell.
      vectors: vectors of numbers.
      format: of the file; as in the log, but for the columns, unless given for this table.
      missing_ids: as in the log, unless given for this table; "drop" drops rows without a key.
    """

    file: FileName
    join: Literal["item", "user"]
    key: str
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    bags: tuple[BagColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()
    format: TextFormat = TextFormat()  # noqa: RUF009
    missing_ids: MissingIds = "refuse"


def read_side_tables(top: Section, log: Section, form: TextFormat, folder: Path) -> tuple[SideTable, ...]:
    """Checks the side tables of a log description.

    Args:
      top: the whole description.
      log: its section [log], whose missing_ids hold for tables without their own.
      form: format of the files of the log, likewise.
      folder: base of relative file names.

    Raises:
      InputError: if a key is unknown or missing, or a value is of the wrong kind.
    """
    tables = top.table.get("side_table", [])
    if not isinstance(tables, list | tuple):
        raise top.error("side_table", "expected [[side_table]] with two brackets, one for each table")
    result = []
    for number, table in enumerate(tables, start=1):
        keys = ["file", "join", "key", "categorical", "dense", "missing_ids", *FORMAT_KEYS]
        section = Section(top.source, f"[[side_table]] number {number}", table, keys)
        if "join" not in section.table:
            raise section.error("join", 'this key is missing, expected "item" or "user"')
        result.append(
            SideTable(
                file=absolute(folder, section.text("file")),
                join=section.choice("join", ("item", "user")),
                key=section.text("key"),
                **read_features(section, folder),
                format=TextFormat.from_section(section, form),
                missing_ids=section.choice("missing_ids", get_args(MissingIds), log.table.get("missing_ids")),
            )
        )
    return tuple(result)
