"""Spaced repetition: does a learner still know a card after so many days?"""

from pathlib import Path

from siren_rope_jax.data.sources import SPLIT, quoted, written_description
from siren_rope_jax.errors import InputError

_TOML = """\
# Reviews of one learner's cards. The history is that of a card; the time it takes to answer is an outcome, no input.
[log]
files = [{file}]
user = "card_id"
timestamp = "review_time"
timestamp_unit = "iso"

[tasks]
recalled = {{ column = "review_rating", at_least = 2 }}
"""


def prepare_reviews(table: Path, folder: Path) -> Path:
    """Describes a log of reviews as Anki and the FSRS packages export them, without copying it.

    The task is `recalled`, a rating above 1, known at once.

    Args:
      table: file with the columns card_id, review_rating and review_time, plain or inside .gz.
      folder: receives log.toml, which names the table by its absolute path; created if necessary.

    Returns:
      The path of log.toml. Local time is UTC; the split is at event quantiles.

    Raises:
      InputError: if the table does not exist.

    Source: the scheduler FSRS (Ye et al. 2022, doi 10.1145/3534678.3539081) and the tests of its package fsrs (MIT).
    """
    table, folder = Path(table).resolve(), Path(folder)
    if not table.is_file():
        raise InputError(f"{table}: this file does not exist")
    folder.mkdir(parents=True, exist_ok=True)
    return written_description(folder, _TOML.format(file=quoted(table)) + SPLIT)
