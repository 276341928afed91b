"""Registry of the published logs that `siren-rope prepare` describes."""

from collections.abc import Callable
from pathlib import Path

from siren_rope_jax.data.flights import installed_flights, prepare_flights
from siren_rope_jax.data.movielens import prepare_movielens
from siren_rope_jax.data.noshow import prepare_noshow
from siren_rope_jax.data.reviews import prepare_reviews
from siren_rope_jax.data.sources import prepare_deskdrop, prepare_kuairand_pure

# Name on the command line -> function of the published files and of a folder, which writes log.toml there.
PUBLISHED_LOGS: dict[str, Callable[[Path, Path], Path]] = {
    "deskdrop": prepare_deskdrop,
    "flights": prepare_flights,
    "kuairand-pure": prepare_kuairand_pure,
    "movielens": prepare_movielens,
    "noshow": prepare_noshow,
    "reviews": prepare_reviews,
}
# Logs that a Python package holds: function that finds them.
INSTALLED_LOGS: dict[str, Callable[[], Path]] = {"flights": installed_flights}
