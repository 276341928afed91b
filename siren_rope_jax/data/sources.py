"""Preparation of public logs: each function writes the description (log.toml) that `siren-rope train` reads."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.read_table import Rule
from siren_rope_jax.errors import InputError

_DAY = 24 * 60 * 60
_LONG_DWELL = 60
SPLIT = """
[split]
validation_from = 0.7
test_from = 0.8
"""

# User-agent patterns; the first match counts, since a phone's browser also names its system.
_DEVICES = {
    "Android - Native": "android_app",
    "iOS - Native": "ios_app",
    "iPhone|iPad|Android": "mobile_web",
    "Windows": "windows",
    "Macintosh": "mac",
    "Linux|X11": "linux",
}

_DESKDROP_TOML = """\
[log]
files = ["views.parquet"]
user = "user"
item = "item"
timestamp = "time"
timestamp_unit = "s"
utc_offset_hours = -3

[tasks]
like = { column = "like", happened_at = "like_at" }
contribution = { column = "contribution", happened_at = "contribution_at" }
long_dwell = { column = "long_dwell", known_at = "long_dwell_known_at" }

[features]
categorical = ["device", "region", "country"]
"""

_KUAIRAND_TOML = """\
[log]
files = [{files}]
user = "user_id"
item = "video_id"
timestamp = "time_ms"
timestamp_unit = "ms"
utc_offset_hours = 8

[tasks]
click = "is_click"
long_view = "long_view"
like = "is_like"
contribution = {{ any_of = ["is_comment", "is_follow", "is_forward"] }}

[features]
categorical = ["tab"]
dense = ["duration_ms"]

[[side_table]]
file = {user_features}
join = "user"
key = "user_id"
categorical = [
    "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
    "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range",
    {onehot}
]

[[side_table]]
file = {video_features}
join = "item"
key = "video_id"
categorical = ["author_id", "video_type", "upload_type", "music_id", "music_type", "tag"]
"""


def prepare_deskdrop(archive: Path, folder: Path) -> Path:
    """Converts the interactions of CI&T DeskDrop to one row per view, with outcomes and the times they became known.

    - Consecutive views of one item by one person in a session count as one view, the first: 23 % of the raw views are
      such repeats, half of them within 21 s. A view in another session is a new view.
    - `like`: a LIKE of the same person and item within 24 hours after the view; a reaction belongs to the
      latest view at or before it. `contribution`: the same for COMMENT CREATED, BOOKMARK and FOLLOW.
      `like_at` and `contribution_at` are the times of the first reaction, empty for negatives.
    - `long_dwell`: more than 60 s until the person's next event on another item in the same session; unobserved if
      there is none. `long_dwell_known_at` is the time of that event: before it, even after 60 s, it is not known that
      the session continues.
    - `device` is read from the user agent; it, `region` and `country` may be missing.

    Exact duplicates are dropped; events of one second keep the order of the file.

    Args:
      archive: users_interactions.csv as published, plain or inside .zip or .gz; times are Unix seconds.
      folder: receives views.parquet and log.toml; created if necessary. The same archive gives the same bytes.

    Returns:
      The path of log.toml. Local time is UTC-3, where most users live; the split is at event quantiles.

    Raises:
      InputError: if the archive is missing, damaged or empty, lacks a column or has no views, or a row has no
        valid time, person, item, session or event type.

    Source: "Articles sharing and reading from CI&T DeskDrop", Kaggle, 2017.
    """
    views = _deskdrop_views(_read_deskdrop(Path(archive)))
    if views.is_empty():
        raise InputError(f'{archive}: expected rows with the eventType "VIEW", found none')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(views, folder / "views.parquet")
    return written_description(folder, _DESKDROP_TOML + SPLIT)


def prepare_kuairand_pure(data_folder: Path, folder: Path) -> Path:
    """Describes KuaiRand-Pure as published, without copying it.

    The log is every log_standard_*.csv, without the randomly exposed log_random_*.csv. The statistics of videos are
    left out, since they include outcomes of the test period.

    Args:
      data_folder: the folder "data" of the published archive, its files plain or inside .gz.
      folder: receives log.toml, which names the data by absolute paths; created if necessary.

    Returns:
      The path of log.toml. Local time is UTC+8; the split is at event quantiles.

    Raises:
      InputError: if the log or a feature file does not exist.

    Source: Gao et al. 2022, KuaiRand (doi 10.1145/3511808.3557624), CC BY-SA 4.0.
    """
    data_folder = Path(data_folder).resolve()
    if not data_folder.is_dir():
        raise InputError(f"{data_folder}: this folder does not exist")
    # A file may exist plain, compressed or both; named without .gz, it is read once.
    logs = sorted({_plain(file) for file in data_folder.glob("log_standard_*.csv*") if _is_csv(file)})
    if not logs:
        raise InputError(f"{data_folder}: expected files log_standard_*.csv or .csv.gz, found none")
    features = [data_folder / "user_features_pure.csv", data_folder / "video_features_basic_pure.csv"]
    for file in features:
        if not (file.is_file() or Path(f"{file}.gz").is_file()):
            raise InputError(f"{file}: this file does not exist, plain or as .gz")
    toml = _KUAIRAND_TOML.format(
        files=", ".join(map(quoted, logs)),
        user_features=quoted(features[0]),
        video_features=quoted(features[1]),
        onehot=", ".join(f'"onehot_feat{index}"' for index in range(18)),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return written_description(folder, toml + SPLIT)


def _read_deskdrop(archive: Path) -> pl.DataFrame:
    renamed = {
        "eventType": "kind",
        "contentId": "item",
        "personId": "user",
        "sessionId": "session",
        "userAgent": "agent",
        "userRegion": "region",
        "userCountry": "country",
    }
    optional = ("userAgent", "userRegion", "userCountry")
    with open_table(archive) as table:
        for column in ("timestamp", *renamed):
            table.require(column, "a column of Deskdrop")
        seconds, is_number = table.number("timestamp")
        # Seconds up to the year 2100; milliseconds would be far above.
        valid = is_number & seconds.is_between(0, 4_102_444_800).fill_null(False)
        rules = [Rule("timestamp", valid, "Unix seconds")]
        for column in renamed.keys() - set(optional):
            rules.append(Rule(column, table.text(column).is_not_null(), "a value"))
        columns = {name: table.text(column) for column, name in renamed.items()}
        events = table.read({"time": seconds.cast(pl.Int64), **columns}, rules)
    return events.unique(maintain_order=True).with_row_index("row")


def _deskdrop_views(events: pl.DataFrame) -> pl.DataFrame:
    session = ["user", "session"]
    in_session = events.sort(*session, "time", "row")
    next_time, next_item = (pl.col(name).shift(-1).over(session) for name in ("time", "item"))
    leaves_at = pl.when(next_item != pl.col("item")).then(next_time)
    views = (
        in_session.with_columns(left_at=leaves_at)
        .with_columns(pl.col("left_at").fill_null(strategy="backward").over(session))
        .filter(pl.col("kind") == "VIEW")
        .filter((pl.col("item") != pl.col("item").shift().over(session)).fill_null(True))
        .sort("time", "row")
    )
    like_at = _first_reaction(views, events, ["LIKE"])
    contribution_at = _first_reaction(views, events, ["COMMENT CREATED", "BOOKMARK", "FOLLOW"])
    return views.with_columns(like_at=like_at, contribution_at=contribution_at).select(
        "time",
        "user",
        "item",
        _device(),
        "region",
        "country",
        pl.col("like_at").is_not_null().cast(pl.Int8).alias("like"),
        "like_at",
        pl.col("contribution_at").is_not_null().cast(pl.Int8).alias("contribution"),
        "contribution_at",
        (pl.col("left_at") - pl.col("time") > _LONG_DWELL).cast(pl.Int8).alias("long_dwell"),
        pl.col("left_at").alias("long_dwell_known_at"),
    )


def _first_reaction(views: pl.DataFrame, events: pl.DataFrame, kinds: Sequence[str]) -> pl.Series:
    """Returns the time of each view's first reaction of these kinds, null if there is none."""
    reactions = events.filter(pl.col("kind").is_in(kinds)).sort("time", "row")
    first = (
        reactions.select("user", "item", "time", reacted_at="time")
        .join_asof(
            views.select("user", "item", "time", "row", viewed_at="time"),
            on="time",
            by=["user", "item"],
            strategy="backward",
            check_sortedness=False,  # sorted above; polars cannot check it within groups
        )
        .filter(pl.col("reacted_at") - pl.col("viewed_at") <= _DAY)
        .group_by("row")
        .agg(pl.col("reacted_at").min())
    )
    return views.join(first, on="row", how="left", maintain_order="left")["reacted_at"]


def _device() -> pl.Expr:
    agent = pl.col("agent")
    device = pl.when(agent.is_null()).then(None)
    for pattern, name in _DEVICES.items():
        device = device.when(agent.str.contains(pattern)).then(pl.lit(name))
    return device.otherwise(pl.lit("other")).alias("device")


def _is_csv(file: Path) -> bool:
    return file.name.endswith((".csv", ".csv.gz"))


def _plain(file: Path) -> Path:
    return file.with_suffix("") if file.suffix == ".gz" else file


def write_table(table: pl.DataFrame, file: Path) -> None:
    """Writes a Parquet file, whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    table.write_parquet(unfinished)
    unfinished.replace(file)


def written_description(folder: Path, toml: str) -> Path:
    """Writes log.toml into a folder, and returns its path."""
    description = folder / "log.toml"
    description.write_text(toml, encoding="utf-8")
    return description


def quoted(file: Path) -> str:
    """Returns a path as TOML writes it."""
    return json.dumps(str(file), ensure_ascii=False)  # a JSON string is a TOML string
