"""Size and form of the recommender."""

import dataclasses
from typing import Literal

from siren_rope_jax.nn.bias import BiasConfig
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.ops.attention import Implementation
from siren_rope_jax.settings import check_settings, drifts


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Size and form of the recommender."""

    width: int = 64
    """Width of each event's representation, D."""
    heads: int = 4
    """Attention heads; the width of each is even."""
    key_heads: int | None = None
    """Heads of keys and values, each shared by neighbouring query heads; as many as heads if not given."""
    layers: int = 2
    """Transformer blocks before the action attention."""
    embedding_dim: int = 16
    """Width of each id's embedding."""
    action_widths: tuple[int, ...] = (64, 64)
    """Hidden widths of the network that embeds past actions."""
    head_widths: tuple[int, ...] = (128, 64)
    """Hidden widths of the network that predicts the tasks (the authors: 512 and 256)."""
    feed_forward: float = 4.0
    """Feed-forward width as a multiple of the model's."""
    dropout: float = drifts(0.1)
    """Dropout of residual branches and of the head's input."""
    id_dropout: float = drifts(0.1)
    """Probability with which training hides an id."""
    attention_scale: float | None = None
    """Factor of the attention logits; 1/sqrt(head width) if not given (the authors: 0.025)."""
    attention: Implementation = drifts("auto")
    """How attention is computed: all logits at once, a block of them at a time (memory linear in the length), a kernel
    for NVIDIA GPUs or TPUs, or what suits the device, the length and the other settings."""
    residual_scale: float = 1.0
    """Factor of each residual branch (the authors: 0.1)."""
    context_skip: bool = True
    """Lets what the head is told directly (history counters, features, calendar) act on the logits beside it too."""
    context_widths: tuple[int, ...] = (256, 128)
    """Hidden widths of the skip's network; () leaves the skip linear."""
    context_dropout: float | None = drifts(None)
    """Dropout of that network's inputs, of which most say little; as the size of the log asks if not given."""
    head_features: bool = True
    """Tells the head the dense columns of the event that is scored, and its id columns of few values (16, the item's
    aside) as indicators: embeddings of them, and what attention makes of these, take a long log to learn."""
    head_calendar: bool = True
    """Tells the head the hour and the weekday of the event that is scored, with any rotation: a rotation tells how two
    events relate, never when the one that is scored happens."""
    action_fusion: Literal["mixed_value", "late", "interleaved"] = "mixed_value"
    """How past actions come in: on the values of every block and an attention after them (the authors' code), by that
    attention alone, or as tokens between the events, [e1, a1, e2, a2, ...], without it (the paper)."""
    hide_ties: bool = True
    """Keeps events of one user that carry the same second from seeing each other; else they see outcomes too early."""
    dtype: Literal["float32", "bfloat16"] = drifts("float32")
    """Type of the activations; angles, softmax, logits and parameters stay float32."""
    encodings: tuple[Literal["calendar", "time2vec", "sinusoidal", "learned"], ...] = ()
    """What is told in the embedding, with any rotation: time features (the paper's second baseline) or Time2Vec as
    inputs; sinusoidal or learned positions, added."""
    rotary: RotaryConfig = dataclasses.field(default_factory=RotaryConfig)
    """Which angles rotate queries and keys."""
    bias: BiasConfig = dataclasses.field(default_factory=BiasConfig)
    """What is added to the attention logits."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            width="[1, inf)",
            heads="[1, inf)",
            key_heads="[1, inf)",
            layers="[0, inf)",
            embedding_dim="[1, inf)",
            action_widths="[1, inf)",
            head_widths="[1, inf)",
            context_widths="[1, inf)",
            feed_forward="(0, inf)",
            dropout="[0, 1)",
            context_dropout="[0, 1)",
            id_dropout="[0, 1)",
            attention_scale="(0, inf)",
            residual_scale="(-inf, inf)",
        )
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of twice the heads, but is {self.width} for {self.heads} heads")
        if self.heads % (self.key_heads or self.heads):
            raise ValueError(f"heads must be a multiple of key_heads, but are {self.heads} for {self.key_heads}")
        if round(self.feed_forward * self.width) < 1:
            raise ValueError(f"feed_forward must leave at least one unit, but is {self.feed_forward}")
        apart = self.rotary.source.turns_actions_apart(self.rotary.own)
        if self.action_fusion == "interleaved" and (not self.layers or apart):
            raise ValueError(
                "action_fusion interleaved has no attention but that of the layers: layers must be at least 1 and "
                f"separate_action_network off, but are {self.layers} and {apart}"
            )
        if len(set(self.encodings)) != len(self.encodings):
            raise ValueError(f"encodings must each be given once, but are {self.encodings}")
