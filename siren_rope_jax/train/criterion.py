"""Criterion for the best checkpoint and for early stopping."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from siren_rope_jax.data.toml_section import did_you_mean
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.ranking import RANKING
from siren_rope_jax.train.tasks import TASKS, Task, kind_of

_MEAN = "mean_"


class Judged(NamedTuple):
    """Result of a validation by the criterion."""

    metric: str
    value: float
    maximise: bool

    @property
    def cost(self) -> float:
        """Value to minimise."""
        return -self.value if self.maximise else self.value


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Metric of one task, "like.auc", or mean over all tasks of a kind, "mean_ne", and its direction.

    Attributes:
      name: name in settings and logs.
      maximise: whether more is better, as the metric defines.
    """

    name: str
    maximise: bool

    @property
    def title(self) -> str:
        """Name for display."""
        return title_of(self.name)

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over tasks, which leaves out those with too few events if others have enough."""
        return "." not in self.name

    def judge(self, metrics: Mapping[str, Mapping[str, Any]]) -> Judged | None:
        """Applies the criterion to the metrics of a validation; returns None if they do not define it."""
        task, _, metric = self.name.partition(".")
        value = metrics[task][metric] if metric else mean_of(metrics, self.name.removeprefix(_MEAN))
        return None if value is None else Judged(self.name, value, self.maximise)


def choose_criterion(best_by: str | None, tasks: Sequence[Task], *, grouped: bool = False) -> Criterion:
    """Returns the configured criterion: by default the mean NE, or without binary tasks the mean relative RMSE.

    Args:
      best_by: the setting.
      tasks: tasks of the log.
      grouped: whether the log has groups, and so the metrics within them.

    Raises:
      InputError: if the setting is not a metric of these tasks.
    """
    known: dict[str, bool] = {}
    of_tasks: list[str] = []
    for kind in TASKS.values():
        names = [task.name for task in tasks if type(task) is kind]
        there = {name: metric for name, metric in kind.metrics.items() if grouped or name not in RANKING}
        directed = {name: metric.maximise for name, metric in there.items() if metric.maximise is not None}
        if names:
            known[_MEAN + kind.compared] = False
            known |= {f"{task}.{name}": maximise for task in names for name, maximise in directed.items()}
            of_tasks.append(f"{', '.join(directed)} of {', '.join(names)}")
    best_by = best_by or next(iter(known))
    if best_by not in known:
        means = ", ".join(name for name in known if name.startswith(_MEAN) and "." not in name)
        raise InputError(
            f'best_by must be {means} or TASK.METRIC, of the metrics {"; ".join(of_tasks)}, but is "{best_by}"'
            f"{did_you_mean(best_by, known)}"
        )
    return Criterion(best_by, known[best_by])


def title_of(name: str) -> str:
    """Returns the name of a criterion for display, such as "mean NE" or "like AUC"."""
    task, _, metric = name.rpartition(".")
    metric = metric if task else metric.removeprefix(_MEAN)
    titles = (kind.metrics[metric].title for kind in TASKS.values() if metric in kind.metrics)
    return f"{task or 'mean'} {next(titles, metric)}"


def mean_of(metrics: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """Averages a metric over the tasks with enough events, or over all that define it; None if no task defines it."""
    defined = [values for values in metrics.values() if values.get(name) is not None]
    telling = [values for values in defined if kind_of(values).telling(values)]
    return float(np.mean([values[name] for values in telling or defined])) if defined else None
