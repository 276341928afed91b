"""Size and form of the recommender and of everything that tells it about position and time."""

import dataclasses
import math
from typing import Any, Literal

from siren_rope_jax.ops.attention import Implementation
from siren_rope_jax.ops.frequencies import ScaledFrequencies, scaled_frequencies
from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Extends an axis beyond its trained range; names and meaning as in Hugging Face's `rope_parameters`."""

    rope_type: Literal["default", "linear", "ntk", "dynamic", "yarn", "longrope", "llama3"] = "default"
    """Method; default extends nothing."""
    factor: float | None = None
    """How many times longer the axis becomes."""
    original_max_position_embeddings: float | None = None
    """Trained length that yarn, longrope and llama3 start from; of the time axis, in days."""
    max_position_embeddings: float | None = None
    """Length of the axis; the training window or span if not given; of the time axis, in days."""
    seq_len: float | None = None
    """Length that is asked for, by which dynamic and longrope choose; of the time axis, in days."""
    attention_factor: float | None = None
    """yarn, longrope: factor of sine and cosine, in place of the method's own."""
    beta_fast: float | None = None
    """yarn: turns within the trained length above which a frequency is kept."""
    beta_slow: float | None = None
    """yarn: turns within the trained length below which a frequency is divided by the factor."""
    mscale: float | None = None
    """yarn: numerator of the attention factor."""
    mscale_all_dim: float | None = None
    """yarn: denominator of the attention factor."""
    truncate: bool | None = None
    """yarn: round the bounds between kept and divided frequencies to whole pairs."""
    short_factor: tuple[float, ...] = ()
    """longrope: divisor of each pair within the trained length."""
    long_factor: tuple[float, ...] = ()
    """longrope: divisor of each pair beyond it."""
    low_freq_factor: float | None = None
    """llama3: turns within the trained length below which a frequency is divided by the factor."""
    high_freq_factor: float | None = None
    """llama3: turns within the trained length above which a frequency is kept."""

    def __post_init__(self) -> None:
        given = [name for name, value in dataclasses.asdict(self).items() if value not in (None, (), "default")]
        if self.rope_type == "default" and given:
            raise ValueError(f"rope_type must name a method for {given[0]} to be of use, but is default")
        # The model's functions are compiled for any positions: none says at run time how long the axis becomes.
        reads_length = self.rope_type in ("dynamic", "longrope")
        if reads_length != (self.seq_len is not None):
            raise ValueError(
                f"seq_len must {'be' if reads_length else 'not be'} given with rope_type {self.rope_type}, "
                f"but is {self.seq_len}"
            )

    def frequencies(
        self, name: str, head_dim: int, base: float, trained: float, *, unit: float = 1.0
    ) -> ScaledFrequencies:
        """Computes the frequencies of an axis.

        Args:
          name: of the setting, for the message.
          head_dim: dimensions that are rotated.
          base: base of the frequencies.
          trained: length of the axis in training, in the units of the fields.
          unit: positions that one unit of the axis is worth (a day, on the time axis).

        Raises:
          ValueError: if the fields do not fit the method.
        """
        given: dict[str, Any] = {"max_position_embeddings": trained} | {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if value not in (None, ())
        }
        for length in given.keys() & {"original_max_position_embeddings", "max_position_embeddings", "seq_len"}:
            given[length] = unit * given[length]
        lengths = {key: given.pop(key, None) for key in ("max_position_embeddings", "seq_len")}
        try:
            return scaled_frequencies(head_dim, given | {"rope_theta": base}, **lengths)
        except ValueError as error:
            in_positions = "" if unit == 1 else f" (lengths in positions, of which a day is worth {unit})"
            raise ValueError(f"{name}{in_positions}: {error}") from None


# What each kind can be told to do; a number that another kind alone reads, such as its width, harms nobody.
_SHARED = {"partial", "learned_frequencies", "xpos_base", "content_bound", "scaling"}
_SWITCHES = {
    "none": set(),
    "ordinal": _SHARED,
    "time_order": _SHARED | {"time_scaling", "mixing", "learned_mixing"},
    "siren": _SHARED | {"time_scaling", "metadata", "per_head", "separate_action_network"},
    "lie": {"partial", "scaling"},
}


@dataclasses.dataclass(frozen=True)
class RotaryConfig:
    """Which angles rotate queries and keys."""

    kind: Literal["none", "ordinal", "time_order", "siren", "lie"] = "siren"
    """none, ordinal RoPE, TO-RoPE, SIREN-RoPE, or learned rotations of blocks (LieRE)."""
    base: float = 10_000.0
    """Base of the ordinal frequencies, the same for every kind."""
    partial: float = 1.0
    """Fraction of each head's features that turn; the others stay as they are."""
    learned_frequencies: bool = False
    """Learns the ordinal frequencies, from where the base puts them."""
    xpos_base: float | None = None
    """xPos: positions over which the decay of queries and keys acts (the source: 512); none if not given."""
    content_bound: float = 0.0
    """Largest angle, in radians, that a projection of the token itself adds; 0 adds none. Starts at ordinal RoPE."""
    scaling: ScalingConfig = dataclasses.field(default_factory=ScalingConfig)
    """Extends the positions beyond the trained window."""
    time_scaling: ScalingConfig = dataclasses.field(default_factory=ScalingConfig)
    """Extends the time axis beyond the training span, in days: any method with TO-RoPE, linear with SIREN-RoPE."""
    time_scale: float = 0.01
    """TO-RoPE, LieRE: positions that a day is worth."""
    mixing: Literal["early", "by_dim", "by_head"] = "early"
    """TO-RoPE: order and time on every pair, on pairs of their own, or on heads of their own."""
    time_share: float = 0.5
    """TO-RoPE by dimension or head: share of the pairs or heads that time gets."""
    learned_mixing: bool = False
    """TO-RoPE: learns the weights of order and time, of each pair or head, from where they stand."""
    time_inputs: tuple[Literal["day", "week", "span"], ...] = ("day", "week", "span")
    """SIREN-RoPE: time features of the angle network: time of day, time of week, place in the training span."""
    metadata: tuple[str, ...] = ()
    """SIREN-RoPE: id or dense columns that the angle network takes beside the time features, or in place of them."""
    width: int = 64
    """SIREN-RoPE: units of each hidden layer of the angle network."""
    hidden_layers: int = 2
    """SIREN-RoPE: hidden layers of each branch."""
    omega0: float = 10.0
    """SIREN-RoPE: frequency of the sine layers."""
    branches: tuple[Literal["sine", "relu"], ...] = ("sine", "relu")
    """SIREN-RoPE: branches of the angle network."""
    initial_scale: float = math.pi
    """SIREN-RoPE: start of the learned factor of each pair's angle."""
    per_head: bool = False
    """SIREN-RoPE: scale and gate of each key head of its own."""
    clamp_time: bool = True
    """SIREN-RoPE: hold the long-range time offset at its bounds outside the training span."""
    separate_action_network: bool = False
    """SIREN-RoPE: a second angle network for the final action attention, as in the authors' code."""
    block_size: int = 8
    """LieRE: features that turn together; even. 2 is planar RoPE with learned frequencies."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            base="(1, inf)",
            partial="(0, 1]",
            xpos_base="(0, inf)",
            content_bound="[0, inf)",
            time_scale="(-inf, inf)",
            time_share="(0, 1)",
            width="[1, inf)",
            hidden_layers="[1, inf)",
            omega0="(0, inf)",
            initial_scale="(-inf, inf)",
            block_size="[2, inf)",
        )
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(f'branches must be "sine", "relu" or both, but are {self.branches}')
        if len(set(self.time_inputs)) != len(self.time_inputs):
            raise ValueError(f"time_inputs must each be given once, but are {self.time_inputs}")
        if len(set(self.metadata)) != len(self.metadata):
            raise ValueError(f"metadata must each be given once, but are {self.metadata}")
        for name in sorted(_SWITCHES["time_order"] | _SWITCHES["siren"]):
            value = getattr(self, name)
            unset = value in (False, None, 0, (), "early", ScalingConfig()) or (name == "partial" and value == 1)
            if not unset and name not in _SWITCHES[self.kind]:
                raise ValueError(f"{name} is not read by kind {self.kind}, but is set")
        if self.kind == "siren" and not (self.time_inputs or self.metadata):
            raise ValueError("the angle network needs time_inputs, metadata or both, but has none")
        if self.kind == "siren" and self.time_scaling.rope_type not in ("default", "linear"):
            raise ValueError(
                "time_scaling.rope_type must be default or linear with SIREN-RoPE, whose time axis has no frequencies, "
                f"but is {self.time_scaling.rope_type}"
            )
        if self.kind == "siren" and self.time_scaling.rope_type != "default" and "span" not in self.time_inputs:
            raise ValueError(f"time_scaling extends the input span, which time_inputs {self.time_inputs} lack")

    def rotated(self, head_dim: int) -> int:
        """Returns how many features of a head turn, an even number.

        Raises:
          ValueError: if too little of a head is left to rotate.
        """
        rotated = 2 * int(self.partial * head_dim / 2)
        if rotated < 2:
            raise ValueError(f"partial must leave a pair of the {head_dim} features, but is {self.partial}")
        return rotated


@dataclasses.dataclass(frozen=True)
class BiasConfig:
    """What is added to the attention logits."""

    kind: Literal["none", "alibi", "t5", "hstu", "tisasrec"] = "none"
    """none, ALiBi, T5's relative positions, HSTU's relative positions and log-time, TiSASRec's intervals."""
    buckets: int = 32
    """T5: buckets of distance."""
    max_distance: int = 128
    """T5: distance from which on there is one bucket."""
    max_interval: int = 256
    """TiSASRec: largest interval, in multiples of the user's smallest gap so far."""

    def __post_init__(self) -> None:
        check_settings(self, buckets="[2, 65536]", max_distance="[2, 1000000]", max_interval="[1, 1000000]")
        if self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"max_distance must exceed half the buckets, {self.buckets // 2}, but is {self.max_distance}"
            )


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
    dropout: float = 0.1
    """Dropout of residual branches and of the head's input."""
    id_dropout: float = 0.1
    """Probability with which training hides an id."""
    attention_scale: float | None = None
    """Factor of the attention logits; 1/sqrt(head width) if not given (the authors: 0.025)."""
    attention: Implementation = "auto"
    """How attention is computed: all logits at once, a block of them at a time (memory linear in the length), a kernel
    for NVIDIA GPUs or TPUs, or what suits the device, the length and the other settings."""
    residual_scale: float = 1.0
    """Factor of each residual branch (the authors: 0.1)."""
    context_skip: bool = True
    """Lets what the head is told directly (history counters, features, calendar) act on the logits beside it too."""
    context_widths: tuple[int, ...] = (256, 128)
    """Hidden widths of the skip's network; () leaves the skip linear."""
    context_dropout: float | None = None
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
    dtype: Literal["float32", "bfloat16"] = "float32"
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
        if self.action_fusion == "interleaved" and (not self.layers or self.rotary.separate_action_network):
            raise ValueError(
                "action_fusion interleaved has no attention but that of the layers: layers must be at least 1 and "
                f"separate_action_network off, but are {self.layers} and {self.rotary.separate_action_network}"
            )
        if len(set(self.encodings)) != len(self.encodings):
            raise ValueError(f"encodings must each be given once, but are {self.encodings}")
