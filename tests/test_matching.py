"""Ids of new events and side tables against those of the log: shares that are said, and what is refused."""

import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write

from siren_rope_jax.data.matching import spelling_note

EVENTS = event_table(["15", "16"], ["i1", "i2", "i3"], tab=["a", "b"])
TAB = {"features": {"categorical": ["tab"]}}


def new_events(users: list[str], items: list[str], tabs: list[str | None]) -> pl.DataFrame:
    times = [START + 100_000 + i for i in range(len(users))]
    return pl.DataFrame({"user": users, "item": items, "time": times, "tab": tabs}, schema_overrides={"tab": pl.String})


def said(log, *parts: str) -> bool:
    return any(all(part in note for part in parts) for note in log.notes)


@pytest.fixture
def log_file(tmp_path):
    return write(EVENTS, tmp_path / "log.csv")


def items_table(path, ids: list[str]) -> list[dict]:
    write(pl.DataFrame({"id": ids, "kind": [f"k{i}" for i in range(len(ids))]}), path)
    return [{"file": str(path), "join": "item", "key": "id", "categorical": ["kind"]}]


def test_the_share_of_new_events_that_the_log_knows_is_said_for_users_items_and_values(tmp_path, log_file):
    new = new_events(["15", "15", "x", "y"], ["i1", "new", "i2", "i3"], ["a", None, "c", "c"])
    log = read([log_file], write(new, tmp_path / "new.csv"), **TAB)
    assert said(log, "new.csv: the log knows the user of 2 of 4 new events (50 %)")
    assert said(log, "new.csv: the log knows the item of 3 of 4 new events (75 %)")
    assert said(log, 'new.csv: the log knows the value of "tab" of 1 of 3 new events (33.3 %)')


@pytest.mark.parametrize(
    ("column", "values", "noun"),
    [("user", ["ann", "bob"], "user"), ("item", ["j1", "j2"], "item"), ("tab", ["A", "B"], 'value of "tab"')],
)
def test_new_events_of_which_nothing_matches_are_refused_with_two_examples_of_each_side(
    tmp_path, log_file, column, values, noun
):
    known = new_events(["15", "16"], ["i1", "i2"], ["a", "b"])
    new = write(known.with_columns(pl.Series(column, values)), tmp_path / "new.csv")
    message = refusal([log_file], new, **TAB)
    assert f"new.csv: the log knows the {noun} of 0 of 2 new events" in message
    assert f'these have "{values[0]}" and "{values[1]}"' in message
    first, second = EVENTS[column].unique().sort()[:2]
    assert f'it has "{first}" and "{second}"' in message
    assert "--allow-unmatched" in message
    assert said(read([log_file], new, allow_unmatched=True, **TAB), f"the {noun} of 0 of 2 new events (0 %)")


def test_values_of_bags_that_all_differ_from_those_of_the_log_are_refused(tmp_path, log_file):
    tags = {"features": {"categorical": [{"column": "tab", "split": "|"}]}}
    known = new_events(["15", "16"], ["i1", "i2"], ["a|new", "b"])
    log = read([log_file], write(known, tmp_path / "new.csv"), **tags)
    assert said(log, 'new.csv: the log knows the value of "tab" of 2 of 3 values of new events (66.7 %)')
    new = write(known.with_columns(tab=pl.Series(["A|B", "B"])), tmp_path / "new.csv")
    message = refusal([log_file], new, **tags)
    assert 'the value of "tab" of 0 of 3 values of new events (0 %): these have "A" and "B"' in message
    assert said(read([log_file], new, allow_unmatched=True, **tags), "of 0 of 3 values")


def test_new_events_of_a_single_unknown_user_and_item_are_no_mistake(tmp_path, log_file):
    new = write(new_events(["ann", "ann"], ["j1", "j1"], ["a", "a"]), tmp_path / "new.csv")
    assert said(read([log_file], new, **TAB), "the user of 0 of 2 new events (0 %)")


@pytest.mark.parametrize("spelling", ["00015", " 15", "15.0"])
def test_a_single_user_who_is_known_in_another_spelling_is_refused(tmp_path, spelling):
    # Beside another user whose id keeps 15.0 from being read as 15.
    log_file = write(event_table(["15", "1.0"], ["i1", "i2", "i3"]), tmp_path / "log.csv")
    new = write(new_events([spelling], ["i1"], ["a"]), tmp_path / "new.csv")
    message = refusal([log_file], new)
    assert f'these have "{spelling}", and it has "15", which would match without leading zeros' in message


def test_leading_zeros_are_never_dropped_but_it_is_said_that_ids_would_match_without(tmp_path, log_file):
    new = write(new_events(["15", "000016", "000016"], ["i1"] * 3, ["a"] * 3), tmp_path / "new.csv")
    log = read([log_file], new)
    assert "000016" in log.user_ids
    assert said(log, "the user of 1 of 3 new events (33.3 %); 2 more would match without leading zeros",
                'such as "000016" as "16"')  # fmt: skip


def test_the_share_of_events_that_a_side_table_knows_is_said(tmp_path, log_file):
    table = items_table(tmp_path / "items.csv", ["i1", "i9"])
    assert said(
        read([log_file], side_table=table), "items.csv: the table knows the item of 7 of 20 events of the log (35 %)"
    )
    new = write(new_events(["15", "15"], ["i1", "i2"], ["a", "a"]), tmp_path / "new.csv")
    assert said(
        read([log_file], new, side_table=table), "items.csv: the table knows the item of 1 of 2 new events (50 %)"
    )


def test_a_side_table_that_matches_nothing_is_refused_with_two_examples_of_each_side(tmp_path, log_file):
    table = items_table(tmp_path / "items.csv", ["j1", "j2", "j3"])
    message = refusal([log_file], side_table=table)
    assert "items.csv: the table knows the item of 0 of 20 events of the log" in message
    assert 'these have "i1" and "i2", and it has "j1" and "j2"' in message
    assert "leave the table out" in message
    zeros = event_table(["15", "16"], ["0001", "0002"])
    message = refusal(
        [write(zeros, tmp_path / "zeros.csv")], side_table=items_table(tmp_path / "items.csv", ["1", "2"])
    )
    assert 'these have "0001" and "0002", and it has "1" and "2", which would match without leading zeros' in message


def test_a_side_table_that_knows_the_log_but_none_of_the_new_items_is_refused(tmp_path, log_file):
    table = items_table(tmp_path / "items.csv", ["i1", "i2"])
    new = write(new_events(["15"] * 3, ["i3", "j1", "j2"], ["a"] * 3), tmp_path / "new.csv")
    message = refusal([log_file], new, side_table=table)
    assert "items.csv: the table knows the item of 0 of 3 new events" in message
    assert "--allow-unmatched" in message
    log = read([log_file], new, allow_unmatched=True, side_table=table)
    assert said(log, "the item of 0 of 3 new events (0 %)")


def test_a_log_alone_has_nothing_to_match(tmp_path, log_file):
    assert not said(read([log_file], **TAB), "knows")


def test_ids_of_one_log_that_differ_in_spelling_alone_are_named():
    said = spelling_note(pl.Series(["118", " 118", "0118", "7", "8", "8.0"]), "user", "log.csv")
    assert said is not None
    assert said.startswith("log.csv: 5 users would be 2 without leading zeros")
    assert spelling_note(pl.Series(["118", "a118", "7"]), "user", "log.csv") is None
