"""The shipped real logs: outcomes of Deskdrop against a naive loop, KuaiRand read as published."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.sources import prepare_deskdrop, prepare_kuairand_pure
from siren_rope_jax.errors import InputError

DATA = Path(__file__).parents[2] / "shared" / "data"
DESKDROP_COLUMNS = [
    *("timestamp", "eventType", "contentId", "personId", "sessionId"),
    *("userAgent", "userRegion", "userCountry"),
]
START = 1_460_000_000
HOUR = 3600


def event(seconds, kind, item, *, person="ann", session="s1", agent="Android - Native Mobile App"):
    return [START + seconds, kind, item, person, session, agent, "SP", "BR"]


def deskdrop_archive(folder, events):
    text = io.StringIO()
    csv.writer(text).writerows([DESKDROP_COLUMNS, *events])
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "users_interactions.csv.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("users_interactions.csv", text.getvalue())
    return archive


def prepared(tmp_path, events):
    prepare_deskdrop(deskdrop_archive(tmp_path, events), tmp_path / "log")
    return pl.read_parquet(tmp_path / "log" / "views.parquet")


def random_deskdrop_events(generator, size=6000):
    """Crowded with repeats, ties, late reactions and sessions that end; unsorted, as published."""
    kinds = ["VIEW", "LIKE", "BOOKMARK", "COMMENT CREATED", "FOLLOW"]
    agents = ["", "Android - Native Mobile App", "Mozilla/5.0 (Macintosh; Intel)", "Mozilla/5.0 (X11; Linux)"]
    events = []
    for _ in range(size):
        person, day = generator.integers(0, 12), generator.integers(0, 30)
        seconds = int(day * 24 * HOUR + generator.integers(0, 1200))
        session = f"{person}-{day}"
        kind = str(generator.choice(kinds, p=[0.6, 0.1, 0.1, 0.1, 0.1]))
        item = f"i{generator.integers(0, 3) + day // 3}"
        agent = str(generator.choice(agents))
        events.append(event(seconds, kind, item, person=f"p{person}", session=session, agent=agent))
    return events


@pytest.fixture(params=["published", "made here"])
def archive(request, tmp_path):
    """The published Deskdrop where it is at hand; a log in the same raw format always, and in its place."""
    published = DATA / "deskdrop" / "users_interactions.csv.zip"
    if request.param == "published" and published.is_file():
        return published
    seed = 0 if request.param == "published" else 1
    return deskdrop_archive(tmp_path / "raw", random_deskdrop_events(np.random.default_rng(seed)))


def naive_views(archive):
    """The definition of the preparation, one person's events after the other."""
    with zipfile.ZipFile(archive) as source:
        rows = list(csv.DictReader(io.StringIO(source.read("users_interactions.csv").decode())))
    rows = list({tuple(row.values()): row for row in rows}.values())
    by_person = {}
    for number, row in enumerate(rows):
        moment = int(row["timestamp"])
        by_person.setdefault(row["personId"], []).append(
            (moment, number, row["eventType"], row["contentId"], row["sessionId"])
        )
    result = {}
    for person, events in by_person.items():
        events.sort()
        last_viewed, views = {}, []
        for place, (moment, number, kind, item, session) in enumerate(events):
            if kind == "VIEW" and last_viewed.get(session) != item:
                others = [e[0] for e in events[place + 1 :] if e[4] == session and e[3] != item][:1]
                dwell = (int(others[0] - moment > 60), others[0]) if others else (None, None)
                views.append((moment, number, item, dwell))
            if kind == "VIEW":
                last_viewed[session] = item
        made = {}
        for moment, _, kind, item, _ in events:
            before = [view for view in views if view[2] == item and view[0] <= moment]
            if kind != "VIEW" and before and moment - before[-1][0] <= 24 * HOUR:
                made.setdefault((before[-1][1], kind == "LIKE"), moment)
        for moment, number, item, dwell in views:
            like, contribution = made.get((number, True)), made.get((number, False))
            outcomes = (int(like is not None), like, int(contribution is not None), contribution, *dwell)
            result[moment, number] = (person, item, *outcomes)
    return [(moment, *result[moment, number]) for moment, number in sorted(result)]


@pytest.mark.slow
def test_every_outcome_and_its_time_equal_a_naive_loop_over_the_events(archive, tmp_path):
    prepare_deskdrop(archive, tmp_path / "log")
    views = pl.read_parquet(tmp_path / "log" / "views.parquet").drop("device", "region", "country")
    assert views.columns == [
        *("time", "user", "item", "like", "like_at", "contribution", "contribution_at"),
        *("long_dwell", "long_dwell_known_at"),
    ]
    assert views.rows() == naive_views(archive)


@pytest.mark.slow
def test_the_prepared_log_is_read_with_late_outcomes_hidden_from_earlier_events(archive, tmp_path):
    views_file = tmp_path / "log" / "views.parquet"
    log = read_event_log(EventLogSpec.from_toml(prepare_deskdrop(archive, tmp_path / "log")))
    views = pl.read_parquet(views_file)
    assert log.task_names == log.action_names == ("like", "contribution", "long_dwell")
    assert log.categorical_names == ("device", "region", "country")
    assert len(log.time_ms) + log.duplicates == views.height
    np.testing.assert_array_equal(log.action_pending, [0, 0, np.nan])
    late = views["like_at"].to_numpy()[log.row] * 1000.0
    is_late = late > log.time_ms
    assert is_late.sum() > 50
    np.testing.assert_array_equal(log.action_known[is_late, 0], late[is_late])
    unobserved = views["long_dwell"].is_null().to_numpy()[log.row]
    assert unobserved.sum() > 50
    np.testing.assert_array_equal(np.isnan(log.labels), np.stack([0 * unobserved] * 2 + [unobserved], axis=1))


@pytest.mark.slow
def test_the_same_archive_gives_the_same_bytes(archive, tmp_path):
    for name in ("one", "two"):
        prepare_deskdrop(archive, tmp_path / name)
    for file in ("views.parquet", "log.toml"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["log.toml", "views.parquet"]


def test_repeats_within_a_session_are_one_view_and_a_return_in_another_session_is_a_new_one(tmp_path):
    views = prepared(tmp_path, [
        event(0, "VIEW", "a"),
        event(5, "VIEW", "a"),
        event(9, "VIEW", "b"),
        event(20, "VIEW", "a"),
        event(90_000, "VIEW", "a", session="s2"),
    ])  # fmt: skip
    assert (views["time"] - START).to_list() == [0, 9, 20, 90_000]


def test_dwell_runs_past_repeats_and_reactions_to_the_next_event_on_another_item(tmp_path):
    views = prepared(tmp_path, [
        event(0, "VIEW", "a"),
        event(30, "VIEW", "a"),
        event(40, "LIKE", "a"),
        event(61, "VIEW", "b"),  # 61 s after a
        event(121, "BOOKMARK", "c"),  # 60 s after b: not more than 60
        event(130, "VIEW", "d"),
        event(99_000, "VIEW", "e", session="s2"),
    ])  # fmt: skip
    assert views["long_dwell"].to_list() == [1, 0, None, None]
    assert views["long_dwell_known_at"].to_list() == [START + 61, START + 121, None, None]


def test_a_reaction_counts_for_the_latest_view_at_or_before_it_within_a_day(tmp_path):
    day = 24 * HOUR
    views = prepared(tmp_path, [
        event(0, "LIKE", "a"),  # before any view
        event(10, "VIEW", "a"),
        event(20, "VIEW", "b"),
        event(30, "VIEW", "a"),
        event(30, "LIKE", "a"),
        event(31, "FOLLOW", "b", person="bob"),  # somebody else
        event(20 + day, "COMMENT CREATED", "b"),
        event(31 + day, "BOOKMARK", "a"),  # one second late
    ])  # fmt: skip
    assert views["like"].to_list() == [0, 0, 1]
    assert views["like_at"].to_list() == [None, None, START + 30]
    assert views["contribution"].to_list() == [0, 1, 0]
    assert views["contribution_at"].to_list() == [None, START + 20 + day, None]


def test_the_first_of_several_reactions_tells_when_it_was_made(tmp_path):
    events = [
        event(0, "VIEW", "a"),
        event(50, "FOLLOW", "a"),
        event(8, "BOOKMARK", "a"),
        event(60, "LIKE", "a"),
    ]
    views = prepared(tmp_path, events)
    assert views["contribution_at"].to_list() == [START + 8]
    assert views["like_at"].to_list() == [START + 60]


def test_devices_are_told_apart_and_may_be_missing(tmp_path):
    agents = {
        "Android - Native Mobile App": "android_app",
        "iOS - Native Mobile App": "ios_app",
        "Mozilla/5.0 (Linux; Android 6.0; MotoG3) Mobile Safari": "mobile_web",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 9_3_2 like Mac OS X)": "mobile_web",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64)": "windows",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11)": "mac",
        "Mozilla/5.0 (X11; Linux x86_64)": "linux",
        "curl/7": "other",
        "": None,
    }
    events = [event(10 * n, "VIEW", f"i{n}", agent=agent) for n, agent in enumerate(agents)]
    assert prepared(tmp_path, events)["device"].to_list() == list(agents.values())


def test_no_view_missing_column_wrong_time_and_damaged_archives_are_named(tmp_path):
    def refused(archive, message):
        with pytest.raises(InputError, match=message):
            prepare_deskdrop(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused(deskdrop_archive(tmp_path / "a", [event(0, "LIKE", "a")]), 'eventType "VIEW", found none')
    refused(deskdrop_archive(tmp_path / "b", []), "no rows")
    milliseconds = event(0, "VIEW", "a")
    milliseconds[0] *= 1000
    refused(deskdrop_archive(tmp_path / "c", [milliseconds]), f"expected Unix seconds, found '{START}000'")
    refused(deskdrop_archive(tmp_path / "d", [event(0, "VIEW", "")]), '"contentId": expected a value')
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"this is no zip")
    refused(broken, "cannot be read or is damaged")
    short = tmp_path / "short.csv"
    short.write_text("timestamp,eventType\n1460000000,VIEW\n")
    refused(short, 'the column "contentId"')


def write_kuairand(folder, generator):
    """The raw format of the published archive: some exact duplicates, two standard logs, one random log."""
    folder.mkdir(parents=True)
    size, users, videos = 400, 30, 50
    flags = ["is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view"]
    numbers = ["play_time_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand"]
    for name, start in (
        ("standard_4_08_to_4_21", 0),
        ("standard_4_22_to_5_08", 14),
        ("random_4_22_to_5_08", 14),
    ):
        times = 1_649_400_000_000 + start * 86_400_000 + generator.integers(0, 14 * 86_400_000, size)
        log = pl.DataFrame(
            {
                "user_id": generator.integers(0, users, size),
                "video_id": generator.integers(0, videos, size),
                "time_ms": times,
                **{flag: (generator.random(size) < 0.3).astype(int) for flag in flags},
                **{name: np.zeros(size, int) for name in numbers},
                "duration_ms": generator.integers(1000, 100_000, size),
                "tab": generator.integers(0, 3, size),
            }
        )
        pl.concat([log, log.head(7)]).write_csv(folder / f"log_{name}_pure.csv")
    degrees = ["user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"]
    ranges = [f"{what}_range" for what in ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")]
    onehot = [f"onehot_feat{index}" for index in range(18)]
    pl.DataFrame(
        {"user_id": range(users)} | {name: generator.integers(0, 3, users) for name in degrees + ranges + onehot}
    ).write_csv(folder / "user_features_pure.csv")
    basic = ["author_id", "video_type", "upload_type", "music_id", "music_type", "tag"]
    pl.DataFrame({"video_id": range(videos)} | {name: generator.integers(0, 9, videos) for name in basic}).write_csv(
        folder / "video_features_basic_pure.csv"
    )
    return folder


@pytest.fixture(params=["slice", "made here"])
def kuairand(request, tmp_path):
    """The slice where it is at hand; a folder in the same raw format always, and in its place."""
    data = DATA / "kuairand_pure_slice" / "data"
    if request.param == "slice" and data.is_dir():
        return data
    return write_kuairand(tmp_path / "raw" / "data", np.random.default_rng(0))


@pytest.mark.slow
def test_kuairand_is_read_from_all_standard_logs_and_never_the_random_one(kuairand, tmp_path):
    log = read_event_log(EventLogSpec.from_toml(prepare_kuairand_pure(kuairand, tmp_path / "log")))
    raw = pl.concat([pl.read_csv(file, infer_schema=False) for file in kuairand.glob("log_standard_*")])
    contribution = pl.any_horizontal(pl.col("is_comment", "is_follow", "is_forward") == "1")
    event, told = ["user_id", "video_id", "time_ms", "tab", "duration_ms"], ["is_click", "long_view", "is_like"]
    once = raw.select(*event, *told, contribution=contribution).unique()
    assert log.duplicates == raw.height - once.height > 0
    assert len(log.time_ms) == once.select(event).unique().height == once.height - log.contradictions
    assert log.task_names == ("click", "long_view", "like", "contribution")
    positives = [*((once[name] == "1").sum() for name in told), once["contribution"].sum()]
    np.testing.assert_allclose(log.labels.sum(axis=0), positives, atol=log.contradictions)
    assert log.contradictions <= 3
    np.testing.assert_allclose((log.period == 2).mean(), 0.2, atol=0.01)
    # Users live at UTC+8.
    np.testing.assert_array_equal(log.day, (log.time_ms // 1000 + 8 * HOUR) // (24 * HOUR))


def test_kuairand_may_lie_compressed_and_beside_its_own_uncompressed_twin(tmp_path):
    data = write_kuairand(tmp_path / "data", np.random.default_rng(0))
    one = data / "log_standard_4_08_to_4_21_pure.csv"
    plain = prepare_kuairand_pure(data, tmp_path / "plain").read_text()
    Path(f"{one}.gz").write_bytes(gzip.compress(one.read_bytes()))
    assert prepare_kuairand_pure(data, tmp_path / "both").read_text() == plain
    one.unlink()
    assert prepare_kuairand_pure(data, tmp_path / "gz").read_text() == plain
    read_event_log(EventLogSpec.from_toml(tmp_path / "gz" / "log.toml"))


def test_a_missing_kuairand_file_is_named(tmp_path):
    with pytest.raises(InputError, match="folder does not exist"):
        prepare_kuairand_pure(tmp_path / "nowhere", tmp_path / "out")
    data = write_kuairand(tmp_path / "data", np.random.default_rng(0))
    (data / "user_features_pure.csv").unlink()
    with pytest.raises(InputError, match=r"user_features_pure\.csv: this file does not exist"):
        prepare_kuairand_pure(data, tmp_path / "out")
    for log in data.glob("log_standard_*"):
        log.unlink()
    with pytest.raises(InputError, match=r"expected files log_standard_\*\.csv"):
        prepare_kuairand_pure(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
