"""Draws the three pictures of siren_rope_jax/ops/README.md.

Command: `python experiments/encodings.py [--out experiments/encodings]`.
Cost: half a minute on one CPU core.
Expected: score_by_distance.png (how much of a score a rotation of each base keeps as the distance grows),
angles_over_a_week.png (the angles of each source, one event an hour by day) and scaled_frequencies.png (the effect of
each extension method on each pair). Angle networks are untrained, drawn from seed 0.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure

from siren_rope_jax import ops

HEAD_DIM = 128
BASES = (1e4, 1e5, 1e6, 1e7)
HOURS = np.array([24 * day + hour for day in range(7) for hour in range(8, 23)])  # one event an hour, by day
FACTOR, TRAINED = 8.0, 4096
METHODS = {
    "linear": {},
    "ntk": {},
    "dynamic": {},
    "yarn": {"original_max_position_embeddings": TRAINED},
    "llama3": {"original_max_position_embeddings": TRAINED, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {
        "original_max_position_embeddings": TRAINED,
        "short_factor": [1.0] * (HEAD_DIM // 2),
        "long_factor": np.geomspace(1, 2 * FACTOR, HEAD_DIM // 2).tolist(),
    },
}


@dataclasses.dataclass(frozen=True)
class Encodings:
    """Draw the pictures of the encodings."""

    out: Path = Path("experiments/encodings")
    """Folder of the pictures."""


def draw_scores() -> Figure:
    """Draws the score of two equal unit vectors, one of them rotated by its distance, for each base."""
    distance = jnp.asarray(np.unique(np.geomspace(1, 1e5, 2_000).astype(int)))
    key = jnp.full((len(distance), 1, HEAD_DIM), HEAD_DIM**-0.5)
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for base in BASES:
        angles = ops.ordinal_angles(distance, ops.inverse_frequencies(HEAD_DIM, base=base))
        axes.semilogx(distance, (ops.apply_rotary(key, angles) * key).sum((1, 2)), label=f"base {base:.0e}")
    axes.set(xlabel="distance, positions", ylabel="score of equal vectors", xlim=(1, 1e5))
    axes.set(title=f"A larger base keeps scores up over longer distances (head dimension {HEAD_DIM})")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def draw_week() -> Figure:
    """Draws the angles of each source over a week of hourly events by day, one line for each pair."""
    pairs, days = 6, jnp.asarray(HOURS / 24, jnp.float32)
    frequencies, positions = ops.inverse_frequencies(2 * pairs), jnp.arange(len(HOURS))
    features = ops.calendar_features(
        jnp.asarray(HOURS // 24, jnp.int32), jnp.asarray(HOURS % 24 * 3600, jnp.int32), start_day=-11, span_days=29.0
    )
    weekend = jnp.asarray(HOURS // 24 % 7 >= 5, jnp.float32)[:, None]
    by_dim = jnp.arange(pairs) % 2
    token = jax.random.normal(jax.random.key(1), (len(HOURS), 8))

    def siren(inputs: jax.Array, branches: tuple[str, ...]) -> jax.Array:
        network = ops.siren_init(jax.random.key(0), inputs.shape[-1], pairs, branches=branches)
        return jnp.pi * ops.siren_apply(network, inputs)

    ordinal = ops.ordinal_angles(positions, frequencies)
    sources: dict[str, jax.Array] = {
        "ordinal, p θ": ordinal,
        "TO-RoPE, early fusion": ops.time_order_angles(positions, days, frequencies, time_scale=10.0),
        "TO-RoPE, split by dimension": ops.time_order_angles(
            positions, days, frequencies, position_scale=1.0 - by_dim, time_scale=10.0 * by_dim
        ),
        "SIREN, sine branch": siren(features, ("sine",)),
        "SIREN, ReLU branch": siren(features, ("relu",)),
        "SIREN-RoPE, both + 0.05 p θ": siren(features, ("sine", "relu")) + 0.05 * ordinal,
        "semantic (weekend or not)": siren(weekend, ("sine", "relu")),
        "content, bounded by π": ops.content_angles(token, jax.random.normal(jax.random.key(2), (8, pairs)) / 12),
    }
    figure, grid = plt.subplots(2, 4, figsize=(13, 5.2), layout="constrained", sharex=True)
    for axes, (name, angles) in zip(grid.flat, sources.items(), strict=True):
        axes.plot(HOURS / 24, angles, linewidth=1, marker=".", markersize=2)
        axes.set_title(name, fontsize="medium")
        axes.set(xlim=(0, 7), xticks=range(8))
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("angle, radians")
    for axes in grid[1]:
        axes.set_xlabel("day")
    figure.suptitle(f"Angles of {pairs} pairs over a week, one event an hour from 8 to 22 h; networks untrained")
    return figure


def draw_scaled() -> Figure:
    """Draws each method's frequencies over the unscaled ones."""
    plain = ops.inverse_frequencies(HEAD_DIM)
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for method, extra in METHODS.items():
        parameters = {"rope_type": method, "rope_theta": 1e4, "factor": FACTOR} | extra
        scaled = ops.scaled_frequencies(
            HEAD_DIM,
            parameters,
            max_position_embeddings=TRAINED,
            seq_len=FACTOR * TRAINED if method in ("dynamic", "longrope") else None,
        )
        label = method if scaled.attention_factor == 1 else f"{method}, sin and cos x {scaled.attention_factor:.2f}"
        axes.semilogy(scaled.frequencies / plain, label=label)
    axes.set(xlabel="rotary pair, fast to slow", ylabel="frequency over the unscaled one")
    axes.set(title=f"Extending {TRAINED:,} positions by {FACTOR:.0f} (longrope: an example's factors)")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "score_by_distance": draw_scores,
    "angles_over_a_week": draw_week,
    "scaled_frequencies": draw_scaled,
}


def main(encodings: Encodings) -> None:
    """Draws every picture."""
    encodings.out.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw()
        figure.savefig(encodings.out / f"{name}.png", dpi=110)
        plt.close(figure)
        print(encodings.out / f"{name}.png")


if __name__ == "__main__":
    main(tyro.cli(Encodings))
