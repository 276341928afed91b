"""MovieLens in its three published forms: ratings.dat (1M, 10M), ratings.csv (20M to 32M, latest), u.data (100K)."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from siren_rope_jax.data.sources import SPLIT, quoted, written_description
from siren_rope_jax.errors import InputError

_GENRES = [
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
_TOML = """\
# MovieLens. The times are those of rating, not of watching: people rate many films in a few minutes, of which some
# were seen years ago. So hours, weekdays and short gaps tell how people use the site, not when they watch. The zone of
# a user is unknown: local time is UTC.
[log]
files = [{ratings}]
user = "userId"
item = "movieId"
timestamp = "timestamp"
{format}
[tasks]
like = {{ column = "rating", at_least = 4 }}
rating = {{ column = "rating", kind = "continuous" }}
"""


class _Side(NamedTuple):
    """A table of movies or users, as keys of [[side_table]]."""

    file: str
    keys: str
    needed: bool = True  # MovieLens 10M has no users


class _Form(NamedTuple):
    """One published form: keys of [log], and its side tables."""

    format: str
    sides: tuple[_Side, ...]


_DAT = 'separator = "::"\nencoding = "latin-1"\n'
_MOVIES = 'join = "item"\nkey = "movieId"\n'
_USERS = 'join = "user"\nkey = "userId"\n'
_BAG = 'categorical = [{ column = "genres", split = "|" }]\n'
_OF_USER = 'categorical = ["gender", "age", "occupation"]\n'
_FORMS = {
    "ratings.dat": _Form(
        _DAT + 'columns = ["userId", "movieId", "rating", "timestamp"]\n',
        (
            _Side("movies.dat", f'{_MOVIES}columns = ["movieId", "title", "genres"]\n{_BAG}'),
            _Side(
                "users.dat",
                f'{_USERS}columns = ["userId", "gender", "age", "occupation", "zip"]\n{_OF_USER}',
                needed=False,
            ),
        ),
    ),
    "ratings.csv": _Form("", (_Side("movies.csv", _MOVIES + _BAG),)),
    "u.data": _Form(
        'separator = "\\t"\ncolumns = ["userId", "movieId", "rating", "timestamp"]\n',
        (
            _Side(
                "u.item",
                f'{_MOVIES}separator = "|"\nencoding = "latin-1"\nquote = "none"\n'
                f"columns = {json.dumps(['movieId', 'title', 'released', 'video', 'url', *_GENRES])}\n"
                f"dense = {json.dumps(_GENRES)}\n",
            ),
            _Side(
                "u.user",
                f'{_USERS}separator = "|"\ncolumns = ["userId", "age", "gender", "occupation", "zip"]\n'
                'categorical = ["gender", "occupation"]\ndense = ["age"]\n',
            ),
        ),
    ),
}


def prepare_movielens(data: Path, folder: Path) -> Path:
    """Describes MovieLens as published, without copying the ratings.

    The tasks are `like`, a rating of at least 4, and `rating`, the number itself.

    Args:
      data: the unpacked folder, or its ratings.dat, ratings.csv or u.data.
      folder: receives log.toml, which names the data by absolute paths; created if necessary.

    Returns:
      The path of log.toml. Local time is UTC; the split is at event quantiles.

    Raises:
      InputError: if the ratings or the table of movies do not exist.

    Source: Harper and Konstan 2015, The MovieLens Datasets (doi 10.1145/2827872).
    """
    data = Path(data).resolve()
    ratings = [data] if data.is_file() else [data / name for name in _FORMS if (data / name).is_file()]
    if len(ratings) != 1 or ratings[0].name not in _FORMS:
        found = " and ".join(file.name for file in ratings) or "none"
        raise InputError(f"{data}: expected a folder with one of {', '.join(_FORMS)}, or that file, found {found}")
    form, folder = _FORMS[ratings[0].name], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    toml = _TOML.format(ratings=quoted(ratings[0]), format=form.format) + SPLIT
    for side in form.sides:
        file = ratings[0].parent / side.file
        if file.is_file():
            toml += f"\n[[side_table]]\nfile = {quoted(_readable(file, folder))}\n{side.keys}"
        elif side.needed:
            raise InputError(f"{file}: this file does not exist, expected it beside {ratings[0].name}")
    return written_description(folder, toml)


def _readable(file: Path, folder: Path) -> Path:
    """Returns the file, or a copy whose ending tells that it is a table."""
    if file.suffix in (".dat", ".csv"):
        return file
    return Path(shutil.copyfile(file, folder.resolve() / f"{file.name}.txt"))
