"""Pure functions that compute rotary angles from position and time, and rotate queries and keys by them."""

from siren_rope_jax.ops.angles import ordinal_angles, siren_rope_angles, time_order_angles
from siren_rope_jax.ops.attention import strictly_causal_attention
from siren_rope_jax.ops.calendar import calendar_features, split_unix_time
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.rotary import apply_rotary, rotate_pairs, sincos
from siren_rope_jax.ops.siren import siren_apply, siren_init

__all__ = [
    "apply_rotary",
    "calendar_features",
    "inverse_frequencies",
    "ordinal_angles",
    "rotate_pairs",
    "sincos",
    "siren_apply",
    "siren_init",
    "siren_rope_angles",
    "split_unix_time",
    "strictly_causal_attention",
    "time_order_angles",
]
