"""Drawn negatives for logs in which every event is positive, from what was known at the time."""

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64, UInt64

from siren_rope_jax.data.mixed_bits import mixed
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.data.toml_section import Section, is_number
from siren_rope_jax.errors import InputError

By = Literal["popularity", "uniform"]
_TRIES = 100  # until a draw that is refused so often is left out
_ROWS = "__rows"
_ENOUGH_ITEMS = 20  # that occur again, for a feature to be one of items rather than alike by chance


@dataclasses.dataclass(frozen=True)
class Negatives:
    """How negatives are drawn.

    Attributes:
      per_positive: number of negatives for each event.
      by: "popularity" draws an item as often as it has occurred before, "uniform" draws all known items alike.
      exclude_seen: whether items of the user's own history are never drawn.
      seed: seed of the draws.
      task: name of the task: 1 for the events of the log, 0 for drawn ones.
    """

    per_positive: int
    by: By = "popularity"
    exclude_seen: bool = True
    seed: int = 0
    task: str = "positive"


def read_negatives(source: str, table: object) -> Negatives:
    """Checks the section [negatives] of a log description.

    Raises:
      InputError: if a key is unknown or missing, or a value is of the wrong kind.
    """
    section = Section(source, "[negatives]", table, [field.name for field in dataclasses.fields(Negatives)])
    whole = {}
    for key, least in (("per_positive", 1), ("seed", 0)):
        value = section.table.get(key, 0 if key == "seed" else None)
        if not (is_number(value) and isinstance(value, int) and least <= value < 2**32):
            raise section.error(key, f"expected a whole number of at least {least}, found {value!r}")
        whole[key] = value
    return Negatives(
        by=section.choice("by", get_args(By)),
        exclude_seen=section.flag("exclude_seen", True),
        task=section.text("task", "positive"),
        **whole,
    )


class _Known(NamedTuple):
    """Items to draw from, in the order in which they became known, and the seconds from which on they can be drawn."""

    items: pl.Series
    seconds: Int64[np.ndarray, " N"]


def with_negatives(rows: pl.DataFrame, negatives: Negatives, outcome: str) -> tuple[pl.DataFrame, list[str]]:
    """Adds drawn negatives to the rows of a log.

    A negative is at the second of its positive, of the same user, with the same features of the event, and with another
    item: one that occurred in the log in an earlier second. Draws depend on the content of events, the seed, and on
    what came before: neither the order of rows nor what follows changes them. The first second of an item is history
    only, since no negative is that new, so that novelty would tell the outcome; so is an event that does not get all
    its negatives, since their number would tell it.

    Args:
      rows: columns as `event_columns` names them, and "row"; one row for each event.
      negatives: how to draw.
      outcome: column of the outcome.

    Returns:
      (rows and the negatives after them, with the column "drawn"; notes).
    """
    second = rows["time_ms"].to_numpy() // 1000
    hashes = {name: stable_hash(rows[name], name) for name in ("user", "item")}
    first = rows.select(pl.col("time_ms").min().over("item")).to_series().to_numpy() // 1000
    is_new = second <= first
    in_order = every = _in_order(rows, second, hashes)
    if negatives.by == "uniform":  # each item once, at its first second
        is_first = rows[in_order].select(pl.col("item").is_first_distinct()).to_series().to_numpy()
        in_order = in_order[is_first]
    known = _Known(rows["item"].gather(in_order), second[in_order])
    positives = every[~is_new[every]]
    # Rows of one second, user and item differ in features alone, and each has negatives that share its own.
    kinds = pl.DataFrame({"user": hashes["user"], "item": hashes["item"], "second": second})[positives]
    row = kinds.select(pl.int_range(pl.len()).over("user", "item", "second")).to_series().to_numpy()
    per = negatives.per_positive
    wanted = np.repeat(positives, per)
    number = (per * row[:, None] + np.arange(per)).ravel()
    drawn = _drawn(rows, known, wanted, number, second, hashes, negatives)
    is_whole = drawn.is_not_null().to_numpy().reshape(-1, per).all(axis=1)
    is_positive = np.zeros(rows.height, bool)
    is_positive[positives[is_whole]] = True
    outcomes = [name for name in rows.columns if name.startswith("outcome ")]
    unobserved = {name: pl.lit(None, rows[name].dtype) for name in outcomes} | {outcome: pl.lit(0.0, pl.Float32)}
    at_once = {name: pl.col("time_ms") for name in rows.columns if name.startswith("known ")}
    kept = np.repeat(is_whole, per)
    added = rows[wanted].with_columns(item=drawn).filter(kept).with_columns(**unobserved, **at_once)
    positive = pl.when(pl.Series(is_positive)).then(pl.col(outcome)).alias(outcome)
    count = int(is_whole.sum())
    notes = [f"negatives drawn: {added.height:,} for {count:,} events, by {negatives.by} among known items"]
    if is_new.any():
        notes.append(
            f"events in the first second of their item, which are history but neither trained on nor evaluated: "
            f"{int(is_new.sum()):,}"
        )
    if lost := int((~is_whole).sum()):
        notes.append(
            "events for which too few other items were known to draw from, which are history but neither trained on "
            f"nor evaluated: {lost:,}"
        )
    if negatives.exclude_seen and (again := _repeats(rows, second, is_positive)):
        notes.append(
            f"positive events of items that their users had before: {again:,} of {count:,}; no drawn item is "
            "one (exclude_seen), so that a model may learn to tell them apart by that alone"
        )
    rows = rows.with_columns(positive, drawn=pl.lit(False))
    return pl.concat([rows, added.with_columns(drawn=pl.lit(True))]), notes


def _repeats(rows: pl.DataFrame, second: Int64[np.ndarray, " E"], chosen: Bool[np.ndarray, " E"]) -> int:
    """Counts the chosen events of items that their users had in an earlier second."""
    first = rows.select(pl.col("time_ms").min().over("user", "item")).to_series().to_numpy() // 1000
    return int((chosen & (second > first)).sum())


def check_features(rows: pl.DataFrame, names: dict[str, str]) -> None:
    """Checks that no feature of events is one of items, which negatives would carry from their positive's item.

    Args:
      rows: the rows of the log, with the features and the item.
      names: name of each feature, for the message.

    Raises:
      InputError: if a feature differs between items, but never within one.
    """
    kinds = [pl.col(column).drop_nulls().n_unique().alias(column) for column in names]
    per_item = rows.group_by("item").agg(pl.len().alias(_ROWS), *kinds).filter(pl.col(_ROWS) > 1)
    for column, name in names.items():
        differs = rows[column].drop_nulls().n_unique() > 1
        if differs and per_item.height >= _ENOUGH_ITEMS and per_item[column].max() == 1:
            raise InputError(
                f'the feature "{name}" must be given in a [[side_table]] of items, as it never differs within an item: '
                "a drawn negative would carry that of its positive's item, which tells it apart"
            )


def _in_order(
    rows: pl.DataFrame, second: Int64[np.ndarray, " E"], hashes: dict[str, UInt64[np.ndarray, " E"]]
) -> Int64[np.ndarray, " E"]:
    """Returns the rows in an order that depends on their content alone, by time first."""
    content = rows.drop("row", "user", "item").rename(lambda name: f"of {name}")
    by = [pl.Series("second", second), pl.Series("item", hashes["item"]), pl.Series("user", hashes["user"])]
    table = pl.DataFrame(by).hstack(content)
    return table.with_row_index("place").sort(table.columns, nulls_last=True)["place"].cast(pl.Int64).to_numpy()


def _drawn(
    rows: pl.DataFrame,
    known: _Known,
    wanted: Int64[np.ndarray, " N"],
    number: Int64[np.ndarray, " N"],
    second: Int64[np.ndarray, " E"],
    hashes: dict[str, UInt64[np.ndarray, " E"]],
    negatives: Negatives,
) -> pl.Series:
    """Draws one item for each wanted negative; null where none was found."""
    choices = np.searchsorted(known.seconds, second[wanted], side="left")  # items of earlier seconds
    content = [hashes["user"][wanted], hashes["item"][wanted], *(x.astype(np.uint64) for x in (second[wanted], number))]
    pairs = rows.select("user", "item", second=pl.col("time_ms") // 1000)
    own = pairs.group_by("user", "item").agg(pl.col("second").min()) if negatives.exclude_seen else pairs.unique()
    users = rows["user"].gather(wanted)
    seconds = second[wanted]
    group = pl.DataFrame({"user": users, "second": seconds}).select(pl.struct(pl.all()).rank("dense") - 1)
    group = group.to_series().to_numpy()
    result = pl.Series("item", [None] * len(wanted), dtype=pl.String)
    left = np.flatnonzero(choices > 0)
    for attempt in range(_TRIES):
        if not len(left):
            break
        salt = np.full(len(left), negatives.seed * _TRIES + attempt, np.uint64)
        uniform = _uniform([*(column[left] for column in content), salt])
        items = known.items.gather((uniform * choices[left]).astype(np.int64))
        result = result.scatter(left, items)
        is_tried = np.zeros(len(wanted), bool)
        is_tried[left] = True
        # Only draws of the same user and second can repeat each other; those that are settled come first.
        rivals = np.flatnonzero(np.isin(group, group[left]) & ~is_tried)
        places = np.concatenate([rivals, left])
        draws = pl.DataFrame({"user": users[places], "item": result[places], "second": seconds[places]})
        taken = _taken(draws, len(left), own, exclude_seen=negatives.exclude_seen)
        result = result.scatter(left[taken], None)
        left = left[taken]
    return result


def _taken(draws: pl.DataFrame, tried: int, own: pl.DataFrame, *, exclude_seen: bool) -> Bool[np.ndarray, " {tried}"]:
    """Returns which of the last draws are of the user's own items, or repeat another draw of the user and second."""
    key = ["user", "item"] if exclude_seen else ["user", "item", "second"]
    found = draws[-tried:].join(own.with_columns(since="second"), on=key, how="left", maintain_order="left")
    is_own = (found["since"] <= found["second"]).fill_null(False).to_numpy()
    is_first = draws.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return is_own | ~is_first[-tried:]


def _uniform(columns: list[UInt64[np.ndarray, " N"]]) -> Float64[np.ndarray, " N"]:
    """Returns numbers from 0 to 1, but not 1, that depend on the columns alone."""
    return (mixed(columns, len(columns[0])) >> np.uint64(11)).astype(np.float64) * 2.0**-53
