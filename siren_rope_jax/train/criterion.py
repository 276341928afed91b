"""The one number by which the best checkpoint is chosen and training stops early."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from siren_rope_jax.data.toml_section import did_you_mean
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.tasks import TASKS, Task, kind_of

_MEAN = "mean_"


class Judged(NamedTuple):
    """What a validation came to."""

    metric: str
    value: float
    maximise: bool

    @property
    def cost(self) -> float:
        """Less is better."""
        return -self.value if self.maximise else self.value


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A metric of one task, "like.auc", or the mean over all tasks of a kind, "mean_ne", and its direction.

    Attributes:
      name: in settings and logs.
      maximise: whether more is better, which the metric itself says.
    """

    name: str
    maximise: bool

    @property
    def title(self) -> str:
        """Name for people."""
        return title_of(self.name)

    def judge(self, metrics: Mapping[str, Mapping[str, Any]]) -> Judged | None:
        """Judges the metrics of a validation; None if they do not define it."""
        task, _, metric = self.name.partition(".")
        value = metrics[task][metric] if metric else mean_of(metrics, self.name.removeprefix(_MEAN))
        return None if value is None else Judged(self.name, value, self.maximise)


def choose_criterion(best_by: str | None, tasks: Sequence[Task]) -> Criterion:
    """Returns the criterion that a setting names: by default the mean NE, and without binary tasks that of numbers.

    Args:
      best_by: the setting.
      tasks: of the log.

    Raises:
      InputError: if it names none of the metrics of these tasks.
    """
    known: dict[str, bool] = {}
    of_tasks: list[str] = []
    for kind in TASKS.values():
        names = [task.name for task in tasks if type(task) is kind]
        directed = {name: metric.maximise for name, metric in kind.metrics.items() if metric.maximise is not None}
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
    """Returns the name of a criterion for people, such as "mean NE" or "like AUC"."""
    task, _, metric = name.rpartition(".")
    metric = metric if task else metric.removeprefix(_MEAN)
    titles = (kind.metrics[metric].title for kind in TASKS.values() if metric in kind.metrics)
    return f"{task or 'mean'} {next(titles, metric)}"


def mean_of(metrics: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """Averages a metric over the tasks for which it means something, if any has events enough; None if none has it."""
    defined = [values for values in metrics.values() if values.get(name) is not None]
    telling = [values for values in defined if kind_of(values).telling(values)]
    return float(np.mean([values[name] for values in telling or defined])) if defined else None
