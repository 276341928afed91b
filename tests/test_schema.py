import copy
import datetime
import json
import tomllib
from pathlib import Path

import pytest

from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.side_table_spec import SideTable
from siren_rope_jax.data.signals import BinarySignal, ContinuousSignal
from siren_rope_jax.data.split import Split
from siren_rope_jax.errors import InputError

# The example of the README and of issue 2, with our extensions at the end of [tasks].
EXAMPLE = """
[log]
files = ["ratings.csv", "more/ratings.parquet"]
user = "user_id"
item = "movie_id"
timestamp = "time"
timestamp_unit = "ms"
time_zone = "America/Sao_Paulo"
contradictions = "first"
[tasks]
click = "is_click"
like = { column = "rating", at_least = 8 }
contribution = { any_of = ["is_comment", "is_follow"] }
long_dwell = { column = "dwell60", observed = "dwell_observed", known_at = "dwell_at" }
late_like = { column = "liked", happened_at = "liked_at" }
dwell = { column = "seconds", kind = "continuous", transform = "log1p", observed = "dwell_observed", known_at = "t" }
share = { column = "watched", kind = "continuous" }
[actions]
liked_early = "like_before_next"
[features]
categorical = ["tab"]
dense = ["duration_ms"]
[[side_table]]
file = "video_features.csv"
join = "item"
key = "video_id"
categorical = ["author_id", "tag"]
[split]
validation_from = "2022-05-05T00:00:00"
test_from = 2022-05-06
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "log.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(sections: dict, *path: object, value: object = None) -> str:
    """Returns the error after setting the entry at `path` (removing it, with None)."""
    sections = copy.deepcopy(sections)
    *parents, last = path
    table = sections
    for key in parents:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    with pytest.raises(InputError) as caught:
        EventLogSpec.from_dict(sections, Path("/logs"), "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert "\n" not in message
    return message


@pytest.fixture
def sections() -> dict:
    return tomllib.loads(EXAMPLE)


def test_every_key_of_the_documented_format_is_read(tmp_path):
    spec = EventLogSpec.from_toml(write(tmp_path, EXAMPLE))
    assert spec == EventLogSpec(
        files=(tmp_path / "ratings.csv", tmp_path / "more" / "ratings.parquet"),
        user="user_id",
        item="movie_id",
        timestamp="time",
        timestamp_unit="ms",
        time_zone="America/Sao_Paulo",
        contradictions="first",
        tasks=(
            BinarySignal("click", column="is_click"),
            BinarySignal("like", column="rating", at_least=8.0),
            BinarySignal("contribution", any_of=("is_comment", "is_follow")),
            BinarySignal("long_dwell", column="dwell60", observed="dwell_observed", known_at="dwell_at"),
            BinarySignal("late_like", column="liked", happened_at="liked_at"),
            ContinuousSignal("dwell", "seconds", observed="dwell_observed", known_at="t", transform="log1p"),
            ContinuousSignal("share", "watched"),
        ),
        actions=(BinarySignal("liked_early", column="like_before_next"),),
        categorical=("tab",),
        dense=("duration_ms",),
        side_tables=(SideTable(tmp_path / "video_features.csv", "item", "video_id", categorical=("author_id", "tag")),),
        split=Split("2022-05-05T00:00:00", "2022-05-06"),
    )


def test_a_description_survives_json_and_another_folder(tmp_path):
    spec = EventLogSpec.from_toml(write(tmp_path, EXAMPLE))
    stored = json.loads(json.dumps(spec.to_dict()))
    assert EventLogSpec.from_dict(stored, Path("/elsewhere"), "stored") == spec


def test_side_tables_have_the_quote_and_the_missing_ids_of_the_log_unless_they_have_their_own(sections):
    sections["log"] |= {"quote": "none", "missing_ids": "drop"}
    sections["side_table"].append(sections["side_table"][0] | {"quote": '"', "missing_ids": "refuse"})
    spec = EventLogSpec.from_dict(sections, Path("/logs"), "my.toml")
    assert [(side.format.quote, side.missing_ids) for side in spec.side_tables] == [("none", "drop"), ('"', "refuse")]
    assert EventLogSpec.from_dict(json.loads(json.dumps(spec.to_dict())), Path("/elsewhere"), "stored") == spec


def test_without_a_section_actions_the_tasks_are_the_actions(sections):
    del sections["actions"]
    spec = EventLogSpec.from_dict(sections, Path("/logs"), "my.toml")
    assert spec.actions == spec.tasks


def test_an_empty_section_actions_hides_every_outcome_also_after_storing(sections):
    sections["actions"] = {}
    spec = EventLogSpec.from_dict(sections, Path("/logs"), "my.toml")
    assert spec.actions == ()
    assert EventLogSpec.from_dict(spec.to_dict(), Path("/logs"), "stored") == spec


@pytest.mark.parametrize(
    ("local_time", "date", "utc"),
    [
        ({}, "2022-07-05T00:00:00", "2022-07-05T00:00:00"),
        ({"time_zone": "Europe/Paris"}, "2022-07-05T00:00:00", "2022-07-04T22:00:00"),
        ({"time_zone": "Europe/Paris"}, "2022-01-05", "2022-01-04T23:00:00"),
        ({"utc_offset_hours": 5.5}, "2022-07-05T00:00:00", "2022-07-04T18:30:00"),
        ({"utc_offset_column": "tz"}, "2022-07-05T00:00:00", "2022-07-05T00:00:00"),
        ({"time_zone": "Europe/Paris"}, "2022-07-05T00:00:00-03:00", "2022-07-05T03:00:00"),
        ({"utc_offset_hours": 8}, "2022-07-05T00:00:00Z", "2022-07-05T00:00:00"),
    ],
)
def test_a_split_date_is_local_unless_it_carries_an_offset(sections, local_time, date, utc):
    del sections["log"]["time_zone"]
    sections["log"] |= local_time
    spec = EventLogSpec.from_dict(sections, Path("/logs"), "my.toml")
    expected = datetime.datetime.fromisoformat(utc).replace(tzinfo=datetime.UTC).timestamp() * 1000
    assert spec.split_time(date) == expected


@pytest.mark.parametrize(
    ("path", "key", "nearest"),
    [
        (("log", "file"), "file", "files"),
        (("log", "timestmap"), "timestmap", "timestamp"),
        (("task",), "task", "tasks"),
        (("tasks", "click"), "atleast", "at_least"),
        (("features", "categorial"), "categorial", "categorical"),
        (("split", "validation_form"), "validation_form", "validation_from"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(sections, path, key, nearest):
    value = {"column": "c", "atleast": 3} if key == "atleast" else "x"
    message = refusal(sections, *path, value=value)
    assert f'"{key}"' in message
    assert f'did you mean "{nearest}"' in message


@pytest.mark.parametrize("path", [("log",), ("tasks",), ("split",)])
def test_a_missing_section_is_named(sections, path):
    assert f"[{path[0]}] is missing" in refusal(sections, *path)


@pytest.mark.parametrize(
    "path",
    [
        ("log", "user"),
        ("log", "item"),
        ("log", "timestamp"),
        ("log", "files"),
        ("split", "test_from"),
        ("side_table", 0, "join"),
        ("side_table", 0, "key"),
        ("side_table", 0, "file"),
    ],
)
def test_a_missing_key_is_named_with_its_section(sections, path):
    message = refusal(sections, *path)
    assert str(path[0]) in message
    assert path[-1] in message
    assert "expected" in message


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("log",), 3, "3"),
        (("log", "files"), "ratings.csv", "'ratings.csv'"),
        (("log", "files"), [], "at least one"),
        (("log", "files"), ["a.csv", "a.csv"], '"a.csv" is listed twice'),
        (("log", "user"), 7, "7"),
        (("log", "user"), "", "''"),
        (("log", "timestamp_unit"), "minutes", "'minutes'"),
        (("log", "contradictions"), "last", "expected 'mean' or 'first' or 'refuse', found 'last'"),
        (("log", "quote"), "'", "expected '\"' or 'none', found \"'\""),
        (("log", "missing_ids"), "keep", "expected 'refuse' or 'drop', found 'keep'"),
        (("side_table", 0, "missing_ids"), "keep", "'keep'"),
        (("log", "time_zone"), "America/SaoPaulo", 'did you mean "America/Sao_Paulo"'),
        (("log", "time_zone"), "Europe", '"Europe"'),
        (("log", "time_zone"), "../etc", '"../etc"'),
        (("log", "utc_offset_hours"), 3, "time_zone and utc_offset_hours"),
        (("log", "utc_offset_column"), "tz", "time_zone and utc_offset_column"),
        (("tasks",), {}, "at least one"),
        (("tasks",), ["click"], "['click']"),
        (("tasks", "a.b"), "column", '"a.b"'),
        (("tasks", "click"), 1, "1"),
        (("tasks", "click"), {"observed": "seen"}, "exactly one of column, any_of and always"),
        (("tasks", "click"), {"column": "a", "any_of": ["b"]}, "exactly one of column, any_of and always"),
        (("tasks", "click"), {"any_of": ["a"], "at_least": 2}, "at_least"),
        (("tasks", "click"), {"any_of": ["a"], "equals": "b"}, "equals: this key goes with column"),
        (("tasks", "click"), {"column": "a", "at_least": 1, "in": [2]}, "one comparison, found at_least and in"),
        (("tasks", "click"), {"column": "a", "at_least": 2, "at_most": 1}, "at_most: expected at least 2, as at_least"),
        (("tasks", "click"), {"column": "a", "equals": True}, "a text in quotes or a finite number, found True"),
        (("tasks", "click"), {"column": "a", "equals": ""}, "a text in quotes or a finite number, found ''"),
        (("tasks", "click"), {"column": "a", "in": []}, "a list of texts in quotes or of finite numbers, found []"),
        (("tasks", "click"), {"column": "a", "in": ["b", 1]}, "or of finite numbers, found ['b', 1]"),
        (("tasks", "click"), {"column": "a", "in": "b"}, "or of finite numbers, found 'b'"),
        (("tasks", "click"), {"column": "a", "at_least": "2"}, "'2'"),
        (("tasks", "click"), {"column": "a", "at_least": True}, "True"),
        (("tasks", "click"), {"column": "a", "at_least": float("nan")}, "nan"),
        (("tasks", "click"), {"column": "a", "known_at": "b", "happened_at": "c"}, "at most one"),
        (("tasks", "click"), {"column": "a", "kind": "real"}, "'binary' or 'continuous', found 'real'"),
        (("tasks", "click"), {"column": "a", "kind": ["binary"]}, "found ['binary']"),
        (("tasks", "click"), {"column": "a", "transform": "log1p"}, 'no key "transform"'),
        (("tasks", "dwell"), {"kind": "continuous"}, "dwell column: this key is missing"),
        (
            ("tasks", "dwell"),
            {"column": "a", "kind": "continuous", "transform": "log"},
            "'none' or 'log1p', found 'log'",
        ),
        (("tasks", "dwell"), {"column": "a", "kind": "continuous", "happened_at": "t"}, 'no key "happened_at"'),
        (("tasks", "dwell"), {"column": "a", "kind": "continuous", "at_least": 3}, 'no key "at_least"'),
        (("features", "dense"), ["a", "a"], '"a" is listed twice'),
        (("features", "categorical"), [1], "[1]"),
        (("features", "dense"), ["rating"], '"rating" belongs to the outcome like'),
        (("features", "categorical"), ["like_before_next"], "belongs to the outcome liked_early"),
        (("side_table",), {"file": "x.csv"}, "[[side_table]]"),
        (("side_table", 0, "join"), "movie", "'movie'"),
        (("split", "by"), "item", "'item'"),
        (("split", "validation_from"), "5 May", "'5 May'"),
        (("split", "validation_from"), 0, "0"),
        (("split", "validation_from"), True, "True"),
        (("split", "validation_from"), 0.5, "one kind"),
        (("split", "validation_from"), "2022-05-06", "out of order"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_was_found(sections, path, value, found):
    message = refusal(sections, *path, value=value)
    assert str(path[0]) in message
    assert found in message


@pytest.mark.parametrize(("validation", "test"), [(0.8, 0.7), (0.7, 0.7)])
def test_validation_must_begin_before_test(sections, validation, test):
    sections["split"]["validation_from"] = validation
    assert "out of order" in refusal(sections, "split", "test_from", value=test)


def test_split_dates_are_compared_as_moments_not_as_text(sections):
    sections["log"]["time_zone"] = "Asia/Shanghai"
    sections["split"] = {"validation_from": "2022-05-05T12:00:00Z"}
    # Noon in UTC is 20:00 in Shanghai, so a local 19:00 lies before it.
    assert "out of order" in refusal(sections, "split", "test_from", value="2022-05-05T19:00:00")


@pytest.mark.parametrize("value", ["2022-05-05", "0.8"])
def test_a_split_by_user_takes_fractions_only(sections, value):
    sections["split"] = {"by": "user", "test_from": 0.9}
    message = refusal(sections, "split", "validation_from", value=value)
    assert "fraction" in message
    assert "date" not in message


@pytest.mark.parametrize("hours", [-13, 15, 28800])
def test_an_impossible_utc_offset_is_refused(sections, hours):
    del sections["log"]["time_zone"]
    assert f"{hours}" in refusal(sections, "log", "utc_offset_hours", value=hours)


def test_a_toml_syntax_error_is_one_sentence_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"log\.toml: .*line 2") as caught:
        EventLogSpec.from_toml(write(tmp_path, "[log]\nuser = user_id\n"))
    assert "\n" not in str(caught.value)


def test_an_unreadable_description_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml"):
        EventLogSpec.from_toml(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="cannot be read"):
        EventLogSpec.from_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes('[log]\nuser = "usuário"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.toml.*UTF-8"):
        EventLogSpec.from_toml(tmp_path / "latin.toml")
