"""Selective RoPE: an event's content decides how far it turns all that follows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Axis, PlanarRotation, RotarySource, SharedSettings, SourceInputs
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.path import causal_convolution, selective_angles
from siren_rope_jax.ops.sincos import sincos
from siren_rope_jax.settings import check_settings

_OPEN = 4.0  # a gate that starts at .98
_TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class SelectiveSettings:
    """Settings of Selective RoPE."""

    rank: int = 32
    """Rank of the projection of each event to its steps."""
    taps: int = 4
    """Events that the convolution of the steps reads: the event itself and the latest before it."""
    gated: bool = True
    """Whether a learned gate of each event and head multiplies its steps."""

    def __post_init__(self) -> None:
        check_settings(self, rank="[1, inf)", taps="[1, 64]")


class SelectiveRotary(RotarySource):
    """Steps of 1, as of RoPE, to which each event adds its own; without the gate, training starts at RoPE exactly.

    Source: arXiv 2511.17388 and the authors' code, with its best variant, SiLU after the convolution. There each layer
    has its own; here the events before the first block set the angles of all.
    """

    settings: SelectiveSettings
    reads = frozenset({"base", "partial"})
    reads_hidden = True
    cancels = False

    def __init__(self, config: SharedSettings, settings: SelectiveSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Draws the projection's first factor from the stream "params"; the second starts at 0.

        Raises:
          ValueError: if `partial` leaves less than one pair.
        """
        super().__init__(config, settings, inputs, rngs)
        steps = self.key_heads * self.rotated // 2
        init = nnx.initializers.lecun_normal()
        self.down = nnx.Param(init(rngs.params(), (inputs.width, settings.rank), jnp.float32))
        self.up = nnx.Param(jnp.zeros((settings.rank, steps), jnp.float32))
        self.kernel = nnx.Param(jnp.zeros((settings.taps, steps), jnp.float32).at[0].set(1))
        self.base_step = nnx.Param(jnp.zeros((self.key_heads, 1), jnp.float32))  # its logarithm
        gate = jnp.zeros((inputs.width + 1, self.key_heads), jnp.float32).at[-1].set(_OPEN)
        self.gate_kernel = nnx.Param(gate) if settings.gated else None

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns positions, which the steps count."""
        return {"positions"}

    def logged(self) -> dict[str, Float[Array, "..."]]:
        """Returns the step that every event adds."""
        return {"base_step": jnp.exp(self.base_step[...])}

    def knock_outs(self, day: Int[Array, " E"], second: Int[Array, " E"]) -> dict[str, Callable[[], None]]:
        """Returns functions that take away what the content adds to a step, the step of every event, and both."""

        def content() -> None:
            self.up.set_value(jnp.zeros_like(self.up[...]))

        def every() -> None:
            self.base_step.set_value(jnp.full_like(self.base_step[...], -jnp.inf))

        def both() -> None:
            content()
            every()

        return {"steps by content": content, "step of every event": every, "all steps of the rotation": both}

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[PlanarRotation, PlanarRotation]:
        """Returns the same rotation for the blocks and the action attention."""
        steps = self._steps(events, token.astype(jnp.float32))
        frequencies = inverse_frequencies(self.rotated, base=self.config.base)
        angles = selective_angles(steps, frequencies, events.segment, times=events.elapsed_seconds)
        turn = (angles, *sincos(angles))
        rotation = PlanarRotation(turn, turn)
        return rotation, rotation

    def _steps(self, events: Events, token: Float[Array, "B S D"]) -> Float[Array, "B S M R"]:
        """Returns how far each event turns all that follows, in positions."""
        by_head = token.reshape(*token.shape[:2], self.key_heads, -1)
        length = jnp.sqrt(jnp.square(by_head).sum(-1, keepdims=True) + _TINY)
        projected = (by_head / length).reshape(token.shape) @ self.down[...] @ self.up[...]
        mixed = causal_convolution(projected, self.kernel[...], events.segment, times=events.elapsed_seconds)
        steps = jax.nn.silu(mixed).reshape(*token.shape[:2], self.key_heads, -1) + jnp.exp(self.base_step[...])
        if self.gate_kernel is None:
            return steps
        kernel = self.gate_kernel[...]
        return steps * jax.nn.sigmoid(token @ kernel[:-1] + kernel[-1])[..., None]
