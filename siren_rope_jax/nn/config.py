"""Size and form of the recommender."""

import dataclasses
from typing import Literal

from siren_rope_jax.nn.bias import BIASES, BiasConfig
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.ops.attention import Implementation
from siren_rope_jax.settings import check_settings, drifts


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Size and form of the recommender."""

    width: int = 64
    """Width of each event's representation, D."""
    heads: int = 4
    """Number of attention heads; each must have an even width."""
    key_heads: int | None = None
    """Number of key and value heads, each shared by neighbouring query heads; as many as heads if not given."""
    layers: int = 2
    """Number of transformer blocks before the action attention."""
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
    """Probability that training replaces an id by "unknown"."""
    attention_scale: float | None = None
    """Factor of the attention logits; 1/sqrt(head width) if not given (the authors: 0.025)."""
    attention: Implementation = drifts("auto")
    """Implementation of attention: plain (all logits at once), chunked (a block at a time, memory linear in the
    length), cudnn (NVIDIA GPUs), splash (TPUs), or auto (chosen by device, length and other settings)."""
    residual_scale: float = 1.0
    """Factor of each residual branch (the authors: 0.1)."""
    context_skip: bool = True
    """Whether a skip connection leads from the head's context (history counters, features, calendar) to the logits."""
    context_widths: tuple[int, ...] = (256, 128)
    """Hidden widths of the skip's network; () leaves the skip linear."""
    context_dropout: float | None = drifts(None)
    """Dropout of the skip network's inputs, most of which carry little information; by the size of the log if not
    given."""
    head_features: bool = True
    """Whether the head reads the dense columns of the scored event, and its id columns of at most 16 values (except the
    item) as indicators: learning the same from embeddings and attention takes a long log."""
    dense_bins: bool = False
    """Whether an event's features hold its dense columns in quantile bins, fitted in training, as the head's context
    does. Numbers then weigh more beside ids at the start, from which attention by ids learns late or not at all."""
    head_calendar: bool = True
    """Whether the head reads the hour and the weekday of the scored event, with any rotation: a rotation encodes how
    two events relate, never when the scored one happens."""
    action_fusion: Literal["mixed_value", "late", "interleaved"] = "mixed_value"
    """Input of past actions: mixed_value adds them to the values of every block and attends to them after the blocks
    (the authors' code), late only attends to them after the blocks, and interleaved makes them tokens between the
    events, [e1, a1, e2, a2, ...] (the paper)."""
    hide_ties: bool = True
    """Whether events of one user in the same second are hidden from each other; otherwise they see outcomes too
    early."""
    hide_within: int = 0
    """Seconds before an event within which earlier ones are hidden from it, for a service that hears of them late;
    positions and the counters of the history still count them."""
    nope_every: int | None = None
    """Every this many blocks, one does not rotate (NoPE; Llama 4: 4); all rotate if not given."""
    temperature: Literal["fixed", "log_length", "learned_log_length"] = "fixed"
    """Factor of the attention logits by the events seen, n, over the training window, S: log_length is ln n / ln S, and
    learned_log_length times a learned number of each head (SSMax)."""
    dtype: Literal["float32", "bfloat16"] = drifts("float32")
    """Type of the activations; angles, softmax, logits and parameters stay float32."""
    encodings: tuple[Literal["calendar", "time2vec", "sinusoidal", "learned"], ...] = ()
    """Encodings of time and position in the embedding, with any rotation: calendar features (the paper's second
    baseline) or Time2Vec as inputs; sinusoidal or learned positions, added."""
    rotary: RotaryConfig = dataclasses.field(default_factory=RotaryConfig)
    """Rotation of queries and keys."""
    bias: BiasConfig = dataclasses.field(default_factory=BiasConfig)
    """Bias of the attention logits."""

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
            hide_within=f"[0, {2**31 - 1}]",
            nope_every="[1, inf)",
        )
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of twice the heads, but is {self.width} for {self.heads} heads")
        if self.heads % (self.key_heads or self.heads):
            raise ValueError(f"heads must be a multiple of key_heads, but are {self.heads} for {self.key_heads}")
        if round(self.feed_forward * self.width) < 1:
            raise ValueError(f"feed_forward must leave at least one unit, but is {self.feed_forward}")
        reads_base = self.rotary.source.reads_base(self.rotary.own) or "sinusoidal" in self.encodings
        if not reads_base and self.rotary.base != RotaryConfig.base:
            raise ValueError(
                f"rotary.base must be left at {RotaryConfig.base} with rotary.kind {self.rotary.kind}, which reads no "
                f"position, and without the encoding sinusoidal, but is {self.rotary.base}"
            )
        if self.hide_within and (not self.hide_ties or self.action_fusion == "interleaved"):
            raise ValueError(
                "hide_within must be given with hide_ties and without action_fusion interleaved, but is "
                f"{self.hide_within} with {self.hide_ties} and {self.action_fusion}"
            )
        for name, kind, reads_hidden in (
            ("rotary", self.rotary.kind, self.rotary.source.reads_hidden),
            ("bias", self.bias.kind, BIASES[self.bias.kind].reads_hidden),
        ):
            if self.hide_within and reads_hidden:
                raise ValueError(
                    f"hide_within must be 0 with {name}.kind {kind}, which depends on hidden events too, but is "
                    f"{self.hide_within}"
                )
        if self.nope_every is not None and (self.nope_every > self.layers or self.rotary.kind == "none"):
            raise ValueError(
                f"nope_every must be at most the {self.layers} layers, and given with a rotation, but is "
                f"{self.nope_every} with rotary.kind {self.rotary.kind}"
            )
        if self.nope_every == 1 and self.action_fusion == "interleaved":
            raise ValueError(
                "nope_every must be at least 2 with action_fusion interleaved, or no attention is left that rotates, "
                "but is 1"
            )
        if self.rotary.source.widens and self.bias.kind == "tisasrec":
            raise ValueError(
                f"bias.kind must not be tisasrec with rotary.kind {self.rotary.kind}, whose queries and keys are wider"
            )
        apart = self.rotary.source.turns_actions_apart(self.rotary.own)
        if self.action_fusion == "interleaved" and (not self.layers or apart):
            raise ValueError(
                "layers must be at least 1 and separate_action_network off with action_fusion interleaved, whose only "
                f"attention is that of the layers, but are {self.layers} and {apart}"
            )
        if len(set(self.encodings)) != len(self.encodings):
            raise ValueError(f"encodings must each be given once, but are {self.encodings}")
