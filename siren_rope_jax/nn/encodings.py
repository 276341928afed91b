"""Encodings of position and time for the embedding, as modules with one call signature: events -> vectors."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.encodings import sinusoidal_encoding, time2vec

TIME2VEC_FEATURES = 32


class Encoding(nnx.Module):
    """Encoding of each event's position or time as a vector."""

    added: ClassVar[bool] = False
    """Whether the vector is added to the token after its first layer; otherwise it is an input of that layer."""
    unbounded: ClassVar[frozenset[str]] = frozenset()
    """Inputs ("positions", "times") whose effect has no bound: beyond the trained range the model extrapolates."""

    @abc.abstractmethod
    def __init__(self, spec: InputSpec, width: int, *, base: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws the parameters.

        Args:
          spec: calendar span and window of the training data.
          width: width of the vectors.
          base: base of the position frequencies.
          dtype: type of the computation.
          rngs: stream "params".
        """

    @abc.abstractmethod
    def __call__(self, events: Events) -> Float[Array, "B S D"]:
        """Returns the vectors."""


class CalendarEncoding(Encoding):
    """The paper's second baseline: five time features as inputs beside the item's. Source: Cheng, Sun, Lu 2026."""

    def __init__(self, spec: InputSpec, width: int, *, base: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws the projection of the features."""
        self.spec = spec
        self.projection = nnx.Linear(5, width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, events: Events) -> Float[Array, "B S D"]:
        """Returns the projected features."""
        return self.projection(self.spec.time_features(events.day, events.second))


class Time2VecEncoding(Encoding):
    """Days since the start of training, and learned sinusoids of them, as inputs beside the item's features.

    Source: Kazemi et al. 2019.
    """

    unbounded = frozenset({"times"})

    def __init__(self, spec: InputSpec, width: int, *, base: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws the projection and the phases; periods run from six hours to the training span."""
        spans = max(spec.span_days, 1.0)
        periods = np.geomspace(0.25, spans, TIME2VEC_FEATURES - 1)
        self.frequencies = nnx.Param(jnp.asarray(np.r_[1 / spans, 2 * np.pi / periods], jnp.float32))
        phases = jax.random.uniform(rngs.params(), (TIME2VEC_FEATURES - 1,), jnp.float32, -np.pi, np.pi)
        self.phases = nnx.Param(jnp.concatenate([jnp.zeros(1), phases]))
        self.projection = nnx.Linear(TIME2VEC_FEATURES, width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, events: Events) -> Float[Array, "B S D"]:
        """Returns the projected features."""
        days = elapsed_days(events.elapsed_seconds)
        return self.projection(time2vec(days, self.frequencies[...], self.phases[...]))


class SinusoidalEncoding(Encoding):
    """Sinusoids of the position, added. Source: Vaswani et al. 2017."""

    added = True
    unbounded = frozenset({"positions"})

    def __init__(self, spec: InputSpec, width: int, *, base: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Keeps width and base; nothing is learned."""
        self.width, self.base = width, base

    def __call__(self, events: Events) -> Float32[Array, "B S D"]:
        """Returns the sinusoids."""
        return sinusoidal_encoding(events.position, self.width, base=self.base)


class LearnedEncoding(Encoding):
    """One learned vector per position, added. Source: Gehring et al. 2017."""

    added = True
    unbounded = frozenset({"positions"})

    def __init__(self, spec: InputSpec, width: int, *, base: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws one vector for each position of the training window."""
        init = nnx.initializers.normal(0.02)
        self.table = nnx.Embed(spec.window, width, embedding_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, events: Events) -> Float[Array, "B S D"]:
        """Returns the vectors; positions beyond the window get the last one, and `TrainedRange` warns."""
        return self.table(jnp.minimum(events.position, self.table.num_embeddings - 1))


ENCODINGS: dict[str, type[Encoding]] = {
    "calendar": CalendarEncoding,
    "time2vec": Time2VecEncoding,
    "sinusoidal": SinusoidalEncoding,
    "learned": LearnedEncoding,
}
