"""RoTE: complex factors of year, month and day."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Axis, Heads, RotarySource, Rotation, SharedSettings
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY, elapsed_days
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
    cancels = False  # the factors of one moment lengthen queries and keys
    still: nnx.Variable | None = None  # factors of all events in place of those of their times

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns times: years after the training span have factors that training never saw."""
        return {"times"}

    def knock_outs(self, day: Int[Array, " E"], second: Int[Array, " E"]) -> dict[str, Callable[[], None]]:
        """Returns a function that turns nothing, and lengthens queries and keys as over training in the mean square."""
        elapsed = elapsed_days((day - self.spec.start_day) * SECONDS_PER_DAY + second)

        def stop() -> None:
            squares = sum(factor**2 for factor in rote_factors(elapsed, self.rotated // 2))
            self.still = nnx.Variable(jnp.sqrt(jnp.asarray(squares).mean(axis=0)))

        return {"all times in the rotation": stop}

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation]:
        """Returns the same factors for the blocks and the action attention."""
        factors = ComplexFactors(*rote_factors(elapsed_days(events.elapsed_seconds), self.rotated // 2))
        if self.still is not None:
            lengths = jnp.broadcast_to(self.still[...], factors.real.shape)
            factors = ComplexFactors(jnp.zeros_like(lengths), lengths)
        return factors, factors
