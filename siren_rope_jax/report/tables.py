"""Tables for the terminal."""

from typing import Any

from rich.table import Table


def metrics_table(metrics: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Lays out the content of `metrics.json`: one row for each period and task."""
    table = Table("period", "task", "NE", "AUC", "GAUC", "ECE", "log loss", "events", "positives")
    for period, tasks in metrics.items():
        for task, values in tasks.items():
            shown = [number(values[name]) for name in ("ne", "auc", "gauc", "ece", "log_loss")]
            table.add_row(period, task, *shown, f"{values['events']:,}", f"{values['positives']:,}")
    return table


def number(value: float | None) -> str:
    """Four decimals, or a dash for what is not defined."""
    return "-" if value is None else f"{value:.4f}"
