"""Tables for the terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from siren_rope_jax.train.loop import four_decimals


def metrics_table(metrics: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Lays out the content of `metrics.json`: one row for each period and task."""
    table = Table("period", "task", "NE", "AUC", "GAUC", "ECE", "log loss", "events", "positives")
    for period, tasks in metrics.items():
        for task, values in tasks.items():
            shown = [four_decimals(values[name]) for name in ("ne", "auc", "gauc", "ece", "log_loss")]
            table.add_row(period, task, *shown, f"{values['events']:,}", f"{values['positives']:,}")
    return table


def make_console() -> Console:
    """Standard output; into a file or a pipe, where no terminal tells a width, wide enough for every table."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
