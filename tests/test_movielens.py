"""MovieLens in its three forms, as published, reads to one log."""

import numpy as np
import pytest

from siren_rope_jax.cli import main
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.movielens import prepare_movielens
from siren_rope_jax.errors import InputError

USERS, MOVIES = 4, 5
RATINGS = [(1 + i % USERS, 1 + i % MOVIES, 1 + i * 7 % 5, 978_300_000 + 5_000 * i) for i in range(60)]
TITLES = [
    "Toy Story (1995)",
    "Caf\xe9 :: Bar (1996)",
    'The "Big", One (1997)',
    "Les Mis\xe9rables (1998)",
    "Solo (1999)",
]
GENRES = [["Comedy", "Animation"], ["Drama"], ["Drama", "War"], [], ["Sci-Fi"]]
FLAGS = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


def write_dat(folder):
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATINGS))
    movies = [f"{k + 1}::{TITLES[k].replace('::', '-')}::{'|'.join(GENRES[k])}\n" for k in range(MOVIES)]
    (folder / "movies.dat").write_bytes("".join(movies).encode("latin-1"))
    users = [f"{k + 1}::{'FM'[k % 2]}::25::{k}::48067\n" for k in range(USERS)]
    (folder / "users.dat").write_text("".join(users))
    return "ratings.dat"


def write_csv(folder):
    rows = "".join(",".join(map(str, row)) + "\n" for row in RATINGS)
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")
    quoted = [title.replace('"', '""') for title in TITLES]
    movies = [f'{k + 1},"{quoted[k]}",{"|".join(GENRES[k]) or "(no genres listed)"}\n' for k in range(MOVIES)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(movies), encoding="utf-8")
    return "ratings.csv"


def write_data(folder):
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    movies = [
        "|".join([str(k + 1), TITLES[k], "01-Jan-1995", "", "http://x", *(str(int(f in GENRES[k])) for f in FLAGS)])
        for k in range(MOVIES)
    ]
    (folder / "u.item").write_bytes("\n".join(movies).encode("latin-1") + b"\n")
    (folder / "u.user").write_text("".join(f"{k + 1}|{20 + k}|M|writer|9{k}\n" for k in range(USERS)))
    return "u.data"


@pytest.mark.parametrize("write", [write_dat, write_csv, write_data])
@pytest.mark.parametrize("whole", [True, False])
def test_every_form_is_described_as_published(tmp_path, write, whole):
    (tmp_path / "ml").mkdir()
    name = write(tmp_path / "ml")
    log = read_event_log(prepare_movielens(tmp_path / "ml" if whole else tmp_path / "ml" / name, tmp_path / "out"))
    np.testing.assert_array_equal(log.time_ms // 1000, [row[3] for row in RATINGS])
    assert log.user_ids.gather(log.user).to_list() == [str(row[0]) for row in RATINGS]
    assert log.item_ids.gather(log.item).to_list() == [str(row[1]) for row in RATINGS]
    np.testing.assert_array_equal(log.labels, [[row[2] >= 4, row[2]] for row in RATINGS])
    assert log.task_names == ("like", "rating")
    assert log.unmatched == (0,) * len(log.unmatched)
    for event, row in enumerate(RATINGS):
        genres = GENRES[row[1] - 1]
        if log.bags:
            cell = log.bags[0].cells[int(log.bags[0].index[event])]
            assert sorted(genres) == ([] if cell in (None, "no genres listed") else cell.split("\x1f"))
        else:
            flags = log.dense[event, [log.dense_names.index(flag) for flag in FLAGS]]
            assert flags.tolist() == [flag in genres for flag in FLAGS]


def test_the_command_says_what_the_times_are(tmp_path, capsys):
    write_dat(tmp_path)
    (tmp_path / "users.dat").unlink()  # as in MovieLens 10M
    main(["prepare", "movielens", str(tmp_path), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "The times are those of rating, not of watching" in said
    assert f"described in {tmp_path / 'out' / 'log.toml'}" in said
    assert len(read_event_log(tmp_path / "out" / "log.toml").spec.side_tables) == 1


def test_a_folder_without_ratings_or_movies_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder with one of ratings.dat, ratings.csv, u.data"):
        prepare_movielens(tmp_path, tmp_path / "out")
    write_csv(tmp_path)
    (tmp_path / "movies.csv").unlink()
    with pytest.raises(InputError, match=r"movies.csv: this file does not exist, expected it beside ratings.csv"):
        prepare_movielens(tmp_path, tmp_path / "out")
    write_dat(tmp_path)
    with pytest.raises(InputError, match=r"found ratings.dat and ratings.csv"):
        prepare_movielens(tmp_path, tmp_path / "out")
