"""Registry of the published logs that `siren-rope prepare` describes."""

from collections.abc import Callable
from pathlib import Path

from siren_rope_jax.data.movielens import prepare_movielens
from siren_rope_jax.data.sources import prepare_deskdrop, prepare_kuairand_pure

# Name on the command line -> function of the published files and of a folder, which writes log.toml there.
PUBLISHED_LOGS: dict[str, Callable[[Path, Path], Path]] = {
    "deskdrop": prepare_deskdrop,
    "kuairand-pure": prepare_kuairand_pure,
    "movielens": prepare_movielens,
}
