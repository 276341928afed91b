"""Pictures of a grid, from its cards."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from experiments.evidence.results import Results, passing


def draw_forest(path: Path, found: Mapping[str, Results], base: str) -> None:
    """Draws each variant's difference in NE to the base, with its interval, a panel for each log.

    Args:
      path: PNG file.
      found: log -> results.
      base: variant that the others are compared with.
    """
    variants = list(dict.fromkeys(name for results in found.values() for name in results.cards if name != base))
    size = (2.3 + 2.1 * len(found), 0.9 + 0.24 * len(variants))
    figure, panels = plt.subplots(1, len(found), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for axes, (log, results) in zip(panels[0], found.items(), strict=True):
        differences = results.differences(base)
        passed = passing(differences)
        for name, one in differences.items():
            color = "tab:gray" if not passed[name] else "tab:blue" if one.value < 0 else "tab:red"
            at = variants.index(name)
            axes.plot([one.low, one.high], [at, at], color=color, linewidth=1.6)
            axes.plot(one.value, at, "o", color=color, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        middle = [abs(one.value) for one in differences.values()]
        half = 1.4 * max([*middle, *(min(one.high - one.low, 4 * max(middle)) / 2 for one in differences.values())])
        axes.set(title=log, xlim=(-half, half), yticks=range(len(variants)))
        axes.set_yticklabels(variants)
        axes.tick_params(axis="x", labelsize=7, rotation=45)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    figure.supxlabel(f"normalized entropy less {base} (left is better; colored: passes Holm's procedure)", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_captured(path: Path, found: Mapping[str, Results], base: str, nothing: str) -> None:
    """Draws the share of the gap to the oracle that each variant closes on each simulated log, as a heat map.

    Args:
      path: PNG file.
      found: log -> results, with an oracle.
      base: variant from which the gap is measured.
      nothing: the log on which there is nothing to find: its gap is small, and its shares mean nothing.
    """
    logs = [log for log in found if log != nothing]
    variants = list(dict.fromkeys(name for log in logs for name in found[log].cards if name != base))
    shares = np.full((len(variants), len(logs)), np.nan)
    for j, log in enumerate(logs):
        for i, name in enumerate(variants):
            if one := found[log].captured(name, base):
                shares[i, j] = np.mean(one)
    size = (2.6 + 1.0 * len(logs), 1.2 + 0.3 * len(variants))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    image = axes.imshow(shares, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for i, j in np.argwhere(np.isfinite(shares)):
        dark = abs(shares[i, j]) > 0.6
        axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", color="white" if dark else "black", fontsize=8)
    axes.set_xticks(range(len(logs)), [log.removeprefix("planted ") for log in logs])
    axes.set_yticks(range(len(variants)), variants)
    figure.colorbar(image, label=f"share of the gap from {base} to the oracle")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_rotation(path: Path, found: Mapping[str, Results], variants: tuple[str, ...]) -> None:
    """Draws what the angle networks have learned: mean cosine against the lag, and the gate during training.

    Args:
      path: PNG file.
      found: log -> results.
      variants: those with an angle network.
    """
    figure, panels = plt.subplots(
        len(variants), 2, figsize=(9, 2.7 * len(variants)), layout="constrained", squeeze=False
    )
    for row, name in zip(panels, variants, strict=True):
        for number, (log, results) in enumerate(found.items()):
            for seed, card in results.cards.get(name, {}).items():
                style = {"color": f"C{number}", "linewidth": 1, "alpha": 0.7, "label": log if seed == 0 else None}
                if card["mean_cosine"]:
                    cosine = np.array(card["mean_cosine"])
                    row[0].plot(np.arange(len(cosine)) / 24, cosine, **style)
                gate = np.array(card["curves"].get("gate", [])).reshape(-1, 2)
                row[1].plot(gate[:, 0] / max(card["steps"], 1), gate[:, 1], **style)
        row[0].set(title=name, ylabel="mean cos(angle difference)", xticks=range(0, 15), ylim=(-0.2, 1.02))
        row[1].set(title=name, ylabel="gate of the ordinal angle")
        for axes in row:
            axes.grid(alpha=0.3)
    panels[-1][0].set_xlabel("lag between two events, days")
    panels[-1][1].set_xlabel("share of the training")
    panels[0][1].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
