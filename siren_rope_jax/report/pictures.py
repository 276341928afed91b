"""Pictures of learned rotations."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.base import RotarySource
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.report.rotation import mean_cosine, middle_week, time_angles

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def draw_mean_cosine(path: Path, rotary: RotarySource, spec: InputSpec, *, days: int = 15) -> None:
    """Draws the mean cosine of the learned angle difference against the lag between two events.

    Args:
      path: PNG file.
      rotary: trained without metadata.
      spec: calendar span of the training data.
      days: largest lag.
    """
    lags = np.arange(days * 24)
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    axes.plot(lags / 24, mean_cosine(rotary, spec, lags), color="tab:blue")
    for day in range(0, days, 7):
        axes.axvline(day, color="tab:orange", linewidth=1)
    axes.set(xlabel="lag between two events, days (orange: whole weeks)", ylabel="mean cos(angle difference)")
    axes.set(
        xlim=(0, days), xticks=range(days + 1), title="What the rotation has learned: events a day or a week apart"
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_week(path: Path, rotary: RotarySource, spec: InputSpec) -> None:
    """Draws the learned angle of each rotary pair over a week in the middle of the training span.

    Args:
      path: PNG file.
      rotary: trained without metadata.
      spec: calendar span of the training data.
    """
    seconds = middle_week(spec)
    angles, days = time_angles(rotary, spec, seconds), (seconds - seconds[0]) / SECONDS_PER_DAY
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for pair, angle in enumerate(angles.T):
        axes.plot(days, angle - angle.mean(), label=f"pair {pair}", linewidth=1.2)
    axes.set(ylabel="angle, radians (mean removed)", xlim=(0, 7), title="Learned angles over a week")
    axes.set_xticks(np.arange(7) + 0.5, _DAYS)
    axes.set_xticks(np.arange(8), [""] * 8, minor=True)
    axes.grid(alpha=0.3, which="minor")
    if angles.shape[1] <= 16:
        axes.legend(fontsize="x-small", ncols=2, loc="upper right")
    figure.savefig(path, dpi=130)
    plt.close(figure)
