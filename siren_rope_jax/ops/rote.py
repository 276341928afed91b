"""RoTE: queries and keys multiplied by complex numbers of year, month and day, which also change their length."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from siren_rope_jax.ops.arguments import check_arrays, count, device_floats
from siren_rope_jax.ops.sincos import sincos

# Amplitude, days of a unit, and how far the frequencies fall from the first to the last pair, as a power of 10.
_LEVELS = ((1.5, 365.25, 6), (1.0, 30.4375, 4), (0.5, 1.0, 2))


def rote_factors(
    elapsed_days: Float[Array, "*batch"], pairs: int
) -> tuple[Float32[Array, "*batch R"], Float32[Array, "*batch R"]]:
    """Computes the complex factor of each rotary pair, the sum of one wave of years, one of months and one of days.

    1.5 exp(i y 10^(-6 j / R)) + exp(i m 10^(-4 j / R)) + .5 exp(i d 10^(-2 j / R)), with y, m and d the years of 365.25
    days, the months of 30.4375 and the days since a moment. Products of different waves depend on that moment: the
    score of two events is no function of the time between them alone. Factors are 0 to 3 long.

    Args:
      elapsed_days: days since a fixed moment; the source takes 1970, whose distance float32 rounds to minutes.
      pairs: number of rotary pairs, R.

    Returns:
      (imaginary part, real part), float32, for `rotate_pairs` in the places of sine and cosine.

    Raises:
      ValueError: if elapsed_days are no floats of at least 32 bits, or pairs is no whole number of at least 1.

    Source: RoTE (arXiv 2604.13389) and the authors' code.
    """
    check_arrays(elapsed_days=elapsed_days)
    days, pairs = device_floats("elapsed_days", elapsed_days)[..., None], count("pairs", pairs)
    place = jnp.arange(pairs, dtype=jnp.float32) / pairs
    imaginary, real = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for amplitude, unit, fall in _LEVELS:
        frequencies = (10.0 ** (-fall * place) / unit).reshape((1,) * (days.ndim - 1) + (pairs,))
        sin, cos = sincos(days * frequencies)
        imaginary, real = imaginary + amplitude * sin, real + amplitude * cos
    return imaginary, real
