"""Warnings, given once, about positions or times outside the range that a model was trained on."""

import dataclasses
import warnings

import jax
import numpy as np
from jaxtyping import Int

from siren_rope_jax.nn.bias import BIASES
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.encodings import ENCODINGS
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY


@dataclasses.dataclass(frozen=True)
class TrainedRange:
    """Trained range of positions and times, and which of them act on the model without bound."""

    config: ModelConfig
    spec: InputSpec
    _said: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)

    @property
    def unbounded(self) -> frozenset[str]:
        """Inputs ("positions", "times") that change the result beyond the trained range and have no scaling."""
        config, rotary = self.config, self.config.rotary
        encodings = (ENCODINGS[name].unbounded for name in config.encodings)
        of_bias = BIASES[config.bias.kind].unbounded
        return of_bias.union(rotary.source.unbounded(rotary, rotary.own), *encodings)

    def check_positions(self, positions: Int[jax.Array | np.ndarray, "..."]) -> None:
        """Warns, once, if ordinal positions lie beyond the training window."""
        if "positions" in self._said or "positions" not in self.unbounded or not positions.size:
            return
        last = int(np.asarray(positions).max())  # on the host: inside a jit, jnp would trace even constants
        if last >= self.spec.window:
            self._warn(
                "positions",
                f"positions reach {last}, but training went up to {self.spec.window - 1} and no scaling is set",
            )

    def check_times(self, elapsed: Int[jax.Array | np.ndarray, "..."]) -> None:
        """Warns, once, if times lie outside the training span by more than a day.

        Args:
          elapsed: seconds since the start of the training span.
        """
        if "times" in self._said or "times" not in self.unbounded or not elapsed.size:
            return
        seconds = np.asarray(elapsed)
        first, last = (float(x) / SECONDS_PER_DAY for x in (seconds.min(), seconds.max()))
        if first < -1 or last > self.spec.span_days + 1:
            self._warn(
                "times",
                f"times run from day {first:.0f} to day {last:.0f}, but training had {self.spec.span_days:.0f} days "
                "and nothing extends them",
            )

    def _warn(self, what: str, message: str) -> None:
        self._said.add(what)
        warnings.warn(f"{message}: the model extrapolates", stacklevel=4)
