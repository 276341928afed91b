"""`python -m siren_rope_jax` is the same as `siren-rope`."""

from siren_rope_jax.cli import main

main()
