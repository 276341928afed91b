"""Columns of the recommender's inputs, and the embedding of each event into one feature vector."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Key

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.ops.calendar import CALENDAR_COLUMNS, calendar_features

_FEW_VALUES = 16


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Names and sizes of the columns of `Events`, and the time span of the training data."""

    id_names: tuple[str, ...] = ()
    id_buckets: tuple[int, ...] = ()
    dense_names: tuple[str, ...] = ()
    action_features: int = 1
    context_features: int = 0
    start_day: int = 0
    calendar: bool = True  # whether times tell hour and weekday; if not, these features are 0
    span_days: float = 1.0
    window: int = 64  # events in the longest training sequence
    context_transform: ColumnTransform | None = None  # of counters, dense columns, ...; None leaves them as they are

    def __post_init__(self) -> None:
        if len(self.id_names) != len(self.id_buckets):
            raise ValueError(f"id_buckets must hold one size for each of {self.id_names}, but are {self.id_buckets}")
        if min(self.id_buckets, default=1) < 1:
            raise ValueError(f"id_buckets must each be at least 1, but are {self.id_buckets}")
        if not self.id_names and not self.dense_names:
            raise ValueError("id_names and dense_names must hold at least one column, but are empty")

    def time_features(
        self, day: Int[Array, "*batch"], second: Int[Array, "*batch"], *, span_factor: float = 1.0, clamp: bool = True
    ) -> Float32[Array, "*batch 5"]:
        """Computes the features of `ops.calendar_features` over the training span, extended by a factor."""
        span = self.span_days * span_factor
        features = calendar_features(day, second, start_day=self.start_day, span_days=span, clamp=clamp)
        return features if self.calendar else features * np.isin(np.arange(5), CALENDAR_COLUMNS["span"])

    @property
    def narrow(self) -> tuple[int, ...]:
        """Indices of the id columns with few values, except the item's."""
        return tuple(k for k, rows in enumerate(self.id_buckets) if k and 1 < rows <= 1 + _FEW_VALUES)


class InputFeatures(nnx.Module):
    """Concatenates the embeddings of the id columns and the dense columns of each event."""

    def __init__(
        self, spec: InputSpec, *, embedding_dim: int, id_dropout: float, dense_bins: bool = False, rngs: nnx.Rngs
    ):
        """Draws one table per id column.

        Args:
          spec: the columns.
          embedding_dim: width of each id's embedding.
          id_dropout: probability that training replaces an id by "unknown", so that the embedding of "unknown" is
            trained for ids that first appear later.
          dense_bins: whether dense columns pass the spec's transform, if one is fitted: bins of their own show at once
            where a number matters, such as between an appointment today and one tomorrow.
          rngs: stream "params".
        """
        self.tables = nnx.List(
            nnx.Embed(buckets, embedding_dim, embedding_init=nnx.initializers.normal(0.1), rngs=rngs)
            for buckets in spec.id_buckets
        )
        self.spec = spec
        self.id_dropout = id_dropout
        fitted, first = spec.context_transform if dense_bins else None, spec.context_features
        self.transform = fitted and fitted.of(range(first, first + len(spec.dense_names)))
        numbers = len(spec.dense_names) if self.transform is None else self.transform.out_features
        self.out_features = embedding_dim * len(spec.id_names) + numbers

    def __call__(self, events: Events, *, dropout_key: Key[Array, ""] | None = None) -> Float[Array, "B S F"]:
        """Embeds the events.

        Args:
          events: packed rows.
          dropout_key: key of the dropout, in training only.

        Returns:
          Features; `columns` gives the indices of each named column.
        """
        ids = events.ids
        if dropout_key is not None and self.id_dropout > 0:
            ids = jnp.where(jax.random.bernoulli(dropout_key, self.id_dropout, ids.shape), 0, ids)
        embedded = [table(ids[..., column]) for column, table in enumerate(self.tables)]
        dense = events.dense if self.transform is None else self.transform(events.dense)
        return jnp.concatenate([*embedded, dense], axis=-1)

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Returns the indices of the named id or dense columns in the feature vector.

        Raises:
          ValueError: if a name is neither an id nor a dense column.
        """
        embedding_dim = self.tables[0].features if self.spec.id_names else 0
        indices: list[int] = []
        for name in names:
            if name in self.spec.id_names:
                start = self.spec.id_names.index(name) * embedding_dim
                indices.extend(range(start, start + embedding_dim))
            elif name in self.spec.dense_names:
                indices.append(len(self.spec.id_names) * embedding_dim + self.spec.dense_names.index(name))
            else:
                known = ", ".join(self.spec.id_names + self.spec.dense_names)
                raise ValueError(f"metadata must be columns of the input, which are {known}, but {name!r} is not one")
        return indices
