"""Base of all attention biases: what each is built for, and one call signature."""

import abc
from typing import Any, ClassVar, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.attention import RelativeEmbedding
from siren_rope_jax.ops.bias import Bias

Terms = tuple[Bias | None, RelativeEmbedding | None]


class BiasInputs(NamedTuple):
    """Sizes and inputs of the model that a bias is built for."""

    spec: InputSpec
    heads: int  # query heads
    head_dim: int
    width: int  # of what a layer attends from


class AttentionBias(nnx.Module):
    """Bias of one attention layer; each kind is one subclass with its settings, parameters and limits."""

    unbounded: ClassVar[frozenset[str]] = frozenset()
    """Inputs ("positions", "times") whose effect has no bound: beyond the trained range the model extrapolates."""
    reads_hidden: ClassVar[bool] = False
    """Whether what two events get depends on other events before the later one, seen or not."""

    def __init__(self, settings: Any, inputs: BiasInputs, rngs: nnx.Rngs):
        """Keeps settings and sizes for later calls.

        Args:
          settings: settings of this kind; None if it has none.
          inputs: sizes of the model and of its inputs.
          rngs: stream "params".
        """
        self.settings, self.heads = settings, inputs.heads

    @abc.abstractmethod
    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias and the relative embedding for `strictly_causal_attention`; either may be None.

        Args:
          events: packed rows.
          x: what the layer attends from.
          times: times that define what is visible; None if the order of the slots does.
        """


class NoBias(AttentionBias):
    """No bias: the logits depend on queries and keys alone."""

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns neither bias nor relative embedding."""
        return None, None
