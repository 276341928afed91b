"""TO-RoPE: order and time share the angles, or split them."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Angles, AngleSource, Axis, SharedSettings, SourceInputs
from siren_rope_jax.nn.rotary.scaling import ScalingConfig
from siren_rope_jax.ops.angles import time_order_angles
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.frequencies import ScaledFrequencies
from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class TimeOrderSettings:
    """Settings of TO-RoPE."""

    mixing: Literal["early", "by_dim", "by_head"] = "early"
    """Mixing of order and time: both on every pair (early), or on separate pairs (by_dim) or heads (by_head)."""
    time_share: float = 0.5
    """Fraction of the pairs (by_dim) or heads (by_head) that time gets."""
    learned_mixing: bool = False
    """Whether the weights of order and time for each pair or head are learned, starting from the fixed ones."""
    time_scale: float = 0.01
    """Positions per day: the factor of the time axis."""
    time_scaling: ScalingConfig = dataclasses.field(default_factory=ScalingConfig)
    """Scaling of the time axis, in days, beyond the training span."""

    def __post_init__(self) -> None:
        check_settings(self, time_scale="(-inf, inf)", time_share="(0, 1)")


class TimeOrderRotary(AngleSource):
    """Angles of order and time, added or split by dimension or by head. Source: Wei et al. 2025."""

    settings: TimeOrderSettings

    def __init__(self, config: SharedSettings, settings: TimeOrderSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Sets the weights of order and time; learned weights start at these and keep their signs and zeros.

        Raises:
          ValueError: if the split leaves order or time without a pair or a head, or a scaling does not fit.
        """
        super().__init__(config, settings, inputs, rngs)
        factors = {self.attention_factor, self._days().attention_factor} - {1.0}
        if len(factors) > 1:
            raise ValueError(
                "scaling and time_order.time_scaling must agree on the attention factor, which order and time share, "
                f"but give {sorted(factors)}"
            )
        self.attention_factor = max(factors, default=1.0)
        weights = self._weights(inputs.key_heads)
        self.order_weight, self.time_weight = (tuple(weight.tolist()) for weight in weights)
        logarithms = jnp.zeros_like(weights, jnp.float32)
        self.mixing = nnx.Param(logarithms) if settings.learned_mixing else None

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: TimeOrderSettings) -> set[Axis]:
        """Returns those of positions and times that have no scaling."""
        times: set[Axis] = {"times"} if settings.time_scaling.rope_type == "default" else set()
        return super().unbounded(config, settings) | times

    def _days(self) -> ScaledFrequencies:
        unit = abs(self.settings.time_scale) or 1.0  # frequencies count in positions
        scaling, base = self.settings.time_scaling, self.config.base
        return scaling.frequencies("time_order.time_scaling", self.rotated, base, self.spec.span_days, unit=unit)

    def _weights(self, key_heads: int) -> np.ndarray:
        """Returns the weights of order and time for each pair or head."""
        mixing, time_share = self.settings.mixing, self.settings.time_share
        if mixing == "early":
            return np.ones((2, self.rotated // 2))
        count = self.rotated // 2 if mixing == "by_dim" else key_heads
        # Spread evenly, so that both order and time get fast and slow pairs.
        of_time = np.diff(np.floor(np.arange(count + 1) * time_share))
        if not 0 < of_time.sum() < count:
            raise ValueError(
                f"time_share must leave order and time some of the {count} "
                f"{'pairs' if mixing == 'by_dim' else 'key heads'}, but is {time_share}"
            )
        return np.stack([1 - of_time, of_time])

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        weights = jnp.asarray([self.order_weight, self.time_weight], jnp.float32)
        if self.mixing is not None:
            weights *= jnp.exp(self.mixing[...])
        order, time = weights[..., None] if self.settings.mixing == "by_head" else weights
        angles = time_order_angles(
            events.position,
            elapsed_days(events.elapsed_seconds),
            self.frequencies(),
            time_frequencies=self.frequencies(self._days()),
            position_scale=order,
            time_scale=time * self.settings.time_scale,
        )
        return angles, angles
