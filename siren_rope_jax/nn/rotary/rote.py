"""RoTE: complex factors of year, month and day."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Axis, Heads, RotarySource, Rotation, SharedSettings
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.rotary import rotate_pairs
from siren_rope_jax.ops.rote import rote_factors


class ComplexFactors(NamedTuple):
    """Multiplication of each feature pair by a complex number, the same for queries and keys."""

    imaginary: Float32[Array, "B S R"]
    real: Float32[Array, "B S R"]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns multiplied queries and keys."""
        return rotate_pairs(query, *self, partial=True), rotate_pairs(key, *self, partial=True)


class RoteRotary(RotarySource):
    """RoTE, counted from the start of the training span; nothing is learned. Source: arXiv 2604.13389."""

    reads = frozenset({"partial"})

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns times: years after the training span have factors that training never saw."""
        return {"times"}

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation]:
        """Returns the same factors for the blocks and the action attention."""
        factors = ComplexFactors(*rote_factors(elapsed_days(events.elapsed_seconds), self.rotated // 2))
        return factors, factors
