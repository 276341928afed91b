"""Settings that extend an axis, of positions or of days, beyond its trained range."""

import dataclasses
from typing import Any, Literal

from siren_rope_jax.ops.frequencies import ScaledFrequencies, scaled_frequencies


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Extension of an axis beyond its trained range; names and meanings as in Hugging Face's `rope_parameters`."""

    rope_type: Literal["default", "linear", "ntk", "dynamic", "yarn", "longrope", "llama3"] = "default"
    """Method of scaling; default extends nothing."""
    factor: float | None = None
    """Ratio of the extended to the trained length."""
    original_max_position_embeddings: float | None = None
    """Trained length for yarn, longrope and llama3; in days on the time axis."""
    max_position_embeddings: float | None = None
    """Length of the axis, by default the training window or span; in days on the time axis."""
    seq_len: float | None = None
    """Length of the sequences to serve, for dynamic and longrope; in days on the time axis."""
    attention_factor: float | None = None
    """yarn, longrope: factor of sine and cosine, instead of the method's own."""
    beta_fast: float | None = None
    """yarn: rotations within the trained length above which a frequency is kept."""
    beta_slow: float | None = None
    """yarn: rotations within the trained length below which a frequency is divided by the factor."""
    mscale: float | None = None
    """yarn: numerator of the attention factor."""
    mscale_all_dim: float | None = None
    """yarn: denominator of the attention factor."""
    truncate: bool | None = None
    """yarn: whether the bounds between kept and divided frequencies are rounded to whole pairs."""
    short_factor: tuple[float, ...] = ()
    """longrope: divisor of each pair's frequency within the trained length."""
    long_factor: tuple[float, ...] = ()
    """longrope: divisor of each pair's frequency beyond the trained length."""
    low_freq_factor: float | None = None
    """llama3: rotations within the trained length below which a frequency is divided by the factor."""
    high_freq_factor: float | None = None
    """llama3: rotations within the trained length above which a frequency is kept."""

    def __post_init__(self) -> None:
        given = [name for name, value in dataclasses.asdict(self).items() if value not in (None, (), "default")]
        if self.rope_type == "default" and given:
            raise ValueError(f"rope_type must name a method if {given[0]} is given, but is default")
        # The model is compiled for any positions, so the length that these methods read must be a setting.
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
          name: path of the settings, for the message.
          head_dim: number of rotated features.
          base: base of the frequencies.
          trained: length of the axis in training, in the unit of the fields.
          unit: positions per unit of the axis (per day, on the time axis).

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
            scaled = scaled_frequencies(head_dim, given | {"rope_theta": base}, **lengths)
            # Of a file of somebody else a warning is enough, of a setting it is not.
            if scaled.unread:
                raise ValueError(
                    f"rope_parameters of rope_type {self.rope_type} must not have the key {scaled.unread[0]}"
                )
            return scaled
        except ValueError as error:
            in_positions = "" if unit == 1 else f" (lengths in positions, {unit} per day)"
            raise ValueError(f"{name}{in_positions}: {error}") from None
