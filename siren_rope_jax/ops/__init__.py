"""Pure functions: angles from position, time, metadata and content; rotation by them; encodings to compare with."""

from siren_rope_jax.ops.angles import (
    content_angles,
    ordinal_angles,
    section_angles,
    siren_rope_angles,
    time_order_angles,
)
from siren_rope_jax.ops.attention import RelativeEmbedding, strictly_causal_attention, visible_counts
from siren_rope_jax.ops.bias import (
    Bias,
    alibi_bias,
    alibi_slopes,
    hstu_bias,
    log_time_buckets,
    t5_bias,
    t5_buckets,
)
from siren_rope_jax.ops.calendar import (
    calendar_angles,
    calendar_features,
    calendar_harmonics,
    elapsed_days,
    split_unix_time,
)
from siren_rope_jax.ops.cycles import cycle_angles, time_scale_periods
from siren_rope_jax.ops.encodings import sinusoidal_encoding, time2vec
from siren_rope_jax.ops.frequencies import (
    ScaledFrequencies,
    frequencies_at,
    inverse_frequencies,
    query_growth,
    scaled_frequencies,
)
from siren_rope_jax.ops.intervals import interval_buckets
from siren_rope_jax.ops.lie import lie_rotations, planar_generators, rotate_blocks
from siren_rope_jax.ops.path import causal_convolution, forgetting_bias, seconds_since, selective_angles
from siren_rope_jax.ops.pope import polar_features
from siren_rope_jax.ops.rotary import apply_rotary, rotate_pairs, xpos_scale
from siren_rope_jax.ops.rote import rote_factors
from siren_rope_jax.ops.sincos import sincos
from siren_rope_jax.ops.siren import SirenParams, siren_apply, siren_init
from siren_rope_jax.ops.slots import OfSlots
from siren_rope_jax.ops.temperature import length_temperature
from siren_rope_jax.ops.time_bias import periodic_bias, time_decay_bias

__all__ = [
    "Bias",
    "OfSlots",
    "RelativeEmbedding",
    "ScaledFrequencies",
    "SirenParams",
    "alibi_bias",
    "alibi_slopes",
    "apply_rotary",
    "calendar_angles",
    "calendar_features",
    "calendar_harmonics",
    "causal_convolution",
    "content_angles",
    "cycle_angles",
    "elapsed_days",
    "forgetting_bias",
    "frequencies_at",
    "hstu_bias",
    "interval_buckets",
    "inverse_frequencies",
    "length_temperature",
    "lie_rotations",
    "log_time_buckets",
    "ordinal_angles",
    "periodic_bias",
    "planar_generators",
    "polar_features",
    "query_growth",
    "rotate_blocks",
    "rotate_pairs",
    "rote_factors",
    "scaled_frequencies",
    "seconds_since",
    "section_angles",
    "selective_angles",
    "sincos",
    "sinusoidal_encoding",
    "siren_apply",
    "siren_init",
    "siren_rope_angles",
    "split_unix_time",
    "strictly_causal_attention",
    "t5_bias",
    "t5_buckets",
    "time2vec",
    "time_decay_bias",
    "time_order_angles",
    "time_scale_periods",
    "visible_counts",
    "xpos_scale",
]
