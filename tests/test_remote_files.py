"""Files of object stores are read as their local twins, and copied once for each version."""

import functools
import http.server
import os
import shutil
import threading

import fsspec
import numpy as np
import polars as pl
import pytest
from log_files import event_table, read, refusal, write

from siren_rope_jax.data import remote_files
from siren_rope_jax.data.describe import describe
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

TABLE = event_table(["ann", "bob", "eve"], ["x", "y"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "siren_rope_jax"


@pytest.fixture
def store():
    """An object store in memory, whose URLs fsspec reads as those of s3 or gs."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def stored(store, tmp_path):
    """Puts a table into the store under a name."""

    def put(table, name):
        local = write(table, tmp_path / name.replace("/", "-"))
        store.pipe(f"/bucket/{name}", local.read_bytes())
        return f"memory://bucket/{name}"

    return put


def _same_events(left, right):
    for name in ("time_ms", "user", "item", "labels", "categorical", "period"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_files_folders_and_patterns_of_a_store_are_the_log_of_their_local_twins(stored, store, tmp_path):
    halves = [TABLE[:10], TABLE[10:]]
    local = read([write(half, tmp_path / f"local-{n}.parquet") for n, half in enumerate(halves)])
    urls = [stored(half, f"events/day={n}/part.parquet") for n, half in enumerate(halves)]
    store.pipe("/bucket/events/_SUCCESS", b"")
    store.pipe("/bucket/events/.hidden/part.parquet", b"")
    store.pipe("/bucket/events/notes.txt", b"of the export")
    for files in (
        urls,
        ["memory://bucket/events"],
        ["memory://bucket/events/*/*.parquet"],
        ["memory://bucket/events/d*"],
    ):
        _same_events(read(files), local)


def test_folders_of_a_store_name_partitions(stored):
    for place, half in (("a", TABLE[:10]), ("b", TABLE[10:])):
        stored(half, f"events/place={place}/part.csv")
    log = read(["memory://bucket/events"], features={"categorical": ["place"]})
    assert len(np.unique(log.categorical[:, 0])) == 2


def test_a_changed_file_is_copied_anew_and_the_earlier_copy_stays(stored, cache):
    url = stored(TABLE, "log.csv")
    [first] = remote_files.fetched(url)
    before = first.read_bytes()
    stored(TABLE[:15], "log.csv")
    [second] = remote_files.fetched(url)
    assert first != second
    assert first.name == second.name == "log.csv"
    assert first.read_bytes() == before
    assert len(pl.read_csv(second)) == 15
    assert cache in first.parents


def test_the_same_bytes_have_one_path_whenever_and_by_whatever_name_they_are_asked_for(stored):
    url = stored(TABLE, "events/log.csv")
    copies = [remote_files.fetched(url)]
    stored(TABLE, "events/log.csv")  # again: the store tells another time
    copies += [remote_files.fetched(name) for name in (url, "memory://bucket/events", "memory://bucket/*/log.csv")]
    assert copies == copies[:1] * 4
    assert "named twice" in refusal([url, "memory://bucket/events"])


def test_an_unchanged_file_is_copied_once(stored, monkeypatch, store):
    url = stored(TABLE, "log.csv")
    [copy] = remote_files.fetched(url)
    monkeypatch.setattr(type(store), "get", lambda *_: pytest.fail("copied again"))
    assert remote_files.fetched(url) == [copy]


def test_a_file_of_which_the_store_tells_no_version_is_copied_every_time(stored, monkeypatch, store):
    url = stored(TABLE, "log.csv")
    monkeypatch.setattr(type(store), "info", lambda self, name: {"name": name, "size": None, "type": "file"})
    [first] = remote_files.fetched(url)
    stored(TABLE[:15], "log.csv")
    [second] = remote_files.fetched(url)
    assert len(pl.read_csv(first)) == 20
    assert len(pl.read_csv(second)) == 15


def test_names_that_exist_are_no_patterns(stored):
    for name in ("data[1]/x.csv", "data1/x.csv", "w?x.csv", "wax.csv"):
        stored(TABLE[: 12 if "[" in name or "?" in name else 20], name)
    for name in ("data[1]/x.csv", "data[1]", "w?x.csv"):
        [copy] = remote_files.fetched(f"memory://bucket/{name}")
        assert len(copy.read_text().splitlines()) == 1 + 12


def test_a_copy_that_breaks_off_leaves_no_file_under_its_name_and_is_taken_up_again(stored, monkeypatch, store, cache):
    urls = [stored(TABLE[:n], f"events/{n}.csv") for n in (15, 16, 17)]
    monkeypatch.setattr(remote_files, "_AT_ONCE", 1)
    get, asked = type(store).get, []

    def breaking(self, names, copies, **options):
        asked.extend(names)
        get(self, names, copies, **options)
        if len(asked) == 2:
            with open(copies[0], "r+b") as file:
                file.truncate(7)

    monkeypatch.setattr(type(store), "get", breaking)
    with pytest.raises(
        InputError, match=r"/bucket/events/16\.csv must have [\d,]+ bytes, but 7 were copied; try again"
    ):
        remote_files.fetched("memory://bucket/events")
    assert [file.name for file in cache.rglob("*") if file.is_file() and file.parent.name != "versions"] == ["15.csv"]
    assert len(remote_files.fetched("memory://bucket/events")) == len(urls)
    assert asked == [f"/bucket/events/{n}.csv" for n in (15, 16, 16, 17)]


def test_what_cannot_be_copied_is_refused_in_one_sentence(stored, store):
    stored(TABLE, "events/log.csv")
    for url, sentence in {
        "memory://bucket/none.csv": "memory://bucket/none.csv: no file matches, expected at least one",
        "memory://bucket/*.parquet": "memory://bucket/*.parquet: no file matches, expected at least one",
        "nowhere://bucket/log.csv": "nowhere://bucket/log.csv cannot be read: ValueError: Protocol not known: nowhere",
    }.items():
        assert refusal([url]).splitlines()[0].startswith(sentence)
    stored(TABLE, "events/log.parquet")
    assert "found tables in .csv and .parquet" in refusal(["memory://bucket/events"])
    store.store["/bucket/up/../log.csv"] = store.store["/bucket/events/log.csv"]
    with pytest.raises(InputError, match=r'expected files without "\.\." in their names'):
        remote_files.fetched("memory://bucket/up/../log.csv")
    stored(TABLE, "events/more.csv")
    with pytest.raises(InputError, match="must be one file, but 2 files match it"):
        existing_file("memory://bucket/events/*.csv")


def test_a_description_keeps_urls_so_that_it_reads_what_the_store_holds_now(stored, tmp_path):
    for number, part in enumerate((TABLE[:10], TABLE[10:15], TABLE[15:])):
        stored(part, f"events/{number}.csv")
    log = {"files": ["memory://bucket/events"], "user": "user", "item": "item", "timestamp": "time"}
    split = {"by": "file", "validation": ["memory://bucket/events/1.csv"], "test": ["memory://bucket/events/2*"]}
    spec = EventLogSpec.from_dict({"log": log, "tasks": {"click": "click"}, "split": split}, tmp_path, "my.toml")
    again = EventLogSpec.from_dict(spec.to_dict(), tmp_path, "run")
    assert again == spec
    assert np.bincount(read_event_log(spec).period).tolist() == [10, 5, 5]
    shutil.rmtree(tmp_path / "cache")
    stored(TABLE[:8], "events/0.csv")
    assert np.bincount(read_event_log(again).period).tolist() == [8, 5, 5]


def test_files_of_a_web_server_are_copied_anew_when_they_change(tmp_path):
    (tmp_path / "site").mkdir()
    table = write(TABLE, tmp_path / "site" / "log.csv")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/log.csv?token=7"
        assert len(read([url]).user) == 20
        write(TABLE[:16], table)
        os.utime(table, (0, 10**9))
        assert len(read([url]).user) == 16
        assert "expected a .csv" in refusal([f"http://127.0.0.1:{server.server_port}/"])
        server.shutdown()
    assert "cannot be read" in refusal([url])


def test_a_store_is_described_by_its_url_and_scored_from_it(stored, tmp_path):
    url = stored(TABLE, "events/log.csv")
    toml = describe([url]).to_toml()
    assert f'files = ["{url}"]' in toml
    (tmp_path / "log.toml").write_text(toml.replace("# time_zone", "#"))
    log = read_event_log(tmp_path / "log.toml", new_events=stored(TABLE[:3], "new.csv"))
    assert log.new.sum() == 3
