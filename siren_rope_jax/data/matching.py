"""Match of events' ids with another table: the share to report, and an error if no id matches."""

import numpy as np
import polars as pl
from jaxtyping import Int64

from siren_rope_jax.data.whole_numbers import as_whole_numbers
from siren_rope_jax.errors import InputError

_SPELLING = 'without leading zeros, a final ".0" and spaces around'
_EXAMPLES = 2


def match_note(
    texts: pl.Series,
    events: Int64[np.ndarray, " T"],
    known: pl.Series,
    *,
    subject: str,
    noun: str,
    whose: str,
    remedy: str | None,
) -> str | None:
    """Reports for how many events the id, or another value, is known; raises if none is.

    A single unknown id may be new. If several ids are all unknown, or one is known in another spelling, their spelling
    most likely differs, and every event would silently be treated as that of an unknown user or item.

    Args:
      texts: distinct texts; a null, which is a missing value, does not count.
      events: number of events with each text.
      known: distinct texts that are known, in any order.
      subject: table that knows the texts, for the message, such as "new.csv: the log".
      noun: kind of the texts, such as "user".
      whose: name of the events, such as "new events".
      remedy: alternative to writing the texts alike; None if nothing has to match.

    Returns:
      One sentence, or None if there are no texts.

    Raises:
      InputError: if nothing matches; the message shows two examples of each side.
    """
    table = pl.DataFrame({"text": texts, "events": events}).filter(pl.col("events") > 0).drop_nulls()
    total = int(table["events"].sum())
    if not total:
        return None
    strangers = table.filter(~table["text"].is_in(known.implode()))
    matched = total - int(strangers["events"].sum())
    share = f"{matched:,} of {total:,} {whose} ({100 * matched / total:.3g} %)"
    respelt = _respelt(strangers, known)
    more = int(respelt["events"].sum())
    if matched or remedy is None or (strangers.height < 2 and not more):
        said = f"{subject} knows the {noun} of {share}"
        if not more:
            return said
        example = f'such as "{respelt["text"][0]}" as "{respelt["known"][0]}"'
        return f"{said}; {more:,} more would match {_SPELLING}, {example}"
    theirs = respelt["text"] if more else strangers["text"]
    ours = respelt["known"] if more else known.drop_nulls().sort()
    raise InputError(
        f"{subject} knows the {noun} of {share}: these have {_examples(theirs)}, and it has {_examples(ours)}"
        f"{f', which would match {_SPELLING}' if more else ''}; write them alike, or {remedy}"
    )


def _respelt(strangers: pl.DataFrame, known: pl.Series) -> pl.DataFrame:
    """Returns the unknown texts that are known in another spelling, and that spelling."""
    if strangers.is_empty():
        return strangers.with_columns(known="text")
    known = known.drop_nulls()
    table = pl.DataFrame({"known": known, "spelling": _spelling(known)}).group_by("spelling").agg(pl.min("known"))
    strangers = strangers.with_columns(spelling=_spelling(strangers["text"]))
    return strangers.join(table, on="spelling", maintain_order="left")


def spelling_note(ids: pl.Series, noun: str, whose: str) -> str | None:
    """Reports distinct ids of a log that differ only in their spelling, and so count as several users or items.

    Args:
      ids: distinct ids.
      noun: kind of the ids, such as "user".
      whose: files of the log, for the message.

    Returns:
      One sentence, or None if there are none.
    """
    table = pl.DataFrame({"id": ids}).with_columns(spelling=_spelling(ids))
    alike = table.filter(table["spelling"].is_duplicated()).sort("spelling", "id")
    if alike.is_empty():
        return None
    return (
        f"{whose}: {alike.height:,} {noun}s would be {alike['spelling'].n_unique():,} {_SPELLING}, such as "
        f"{_examples(alike['id'])}: each counts as a separate {noun}"
    )


def _spelling(texts: pl.Series) -> pl.Series:
    return as_whole_numbers(texts.str.strip_chars()).str.replace(r"^0+(\d)", "${1}")


def _examples(texts: pl.Series) -> str:
    return " and ".join(f'"{text}"' for text in texts.head(_EXAMPLES))
