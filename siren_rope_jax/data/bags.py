"""Bags of values, such as the genres of an item, as 0/1 columns of the values that are common in training."""

import dataclasses
import functools

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int32, Integer, UInt64

from siren_rope_jax.data.feature_columns import BETWEEN
from siren_rope_jax.data.stable_hash import stable_hash

OTHER = ""  # stands for all values that have no column; no value is empty


@dataclasses.dataclass(frozen=True)
class Bag:
    """The values of each event in one column.

    Attributes:
      name: name of the feature.
      cells: the different cells, as `bag_column` writes them; null if without values.
      index: cell of each event.
    """

    name: str
    cells: pl.Series
    index: Int32[np.ndarray, " E"]

    @classmethod
    def of(cls, name: str, texts: pl.Series, index: Int32[np.ndarray, " E"] | slice) -> "Bag":
        """Makes the bag of a text for each event, or for each item or user, to be chosen by the index."""
        cells = texts.unique().sort()
        places = cells.to_frame("cell").with_row_index("place")
        joined = texts.to_frame("cell").join(places, on="cell", how="left", nulls_equal=True, maintain_order="left")
        return cls(name, cells, joined["place"].cast(pl.Int32).to_numpy()[index])

    def rows(self, order: Integer[np.ndarray, " N"]) -> "Bag":
        """Returns the bag of some events, in the given order."""
        return dataclasses.replace(self, index=self.index[order])

    @functools.cached_property
    def hashes(self) -> UInt64[np.ndarray, " E"]:
        """Stable hash of each event's values."""
        return stable_hash(self.cells, self.name)[self.index]

    def common_values(self, chosen: Bool[np.ndarray, " E"], *, min_count: int, most: int) -> tuple[str, ...]:
        """Returns the values to make columns of.

        Args:
          chosen: the events to count.
          min_count: least number of events with the value.
          most: largest number of values.

        Returns:
          The most frequent ones, in the order of the alphabet, and `OTHER` if enough events have other values.
        """
        events = np.bincount(self.index[chosen], minlength=len(self.cells))
        cells = {"cell": np.arange(len(self.cells)), "value": self.cells.str.split(BETWEEN), "events": events}
        values = pl.DataFrame(cells).explode("value").drop_nulls("value")
        counted = values.group_by("value").agg(pl.col("events").sum()).filter(pl.col("events") >= min_count)
        common = counted.sort("events", "value", descending=[True, False])["value"].head(most).sort().to_list()
        rare = values.filter(~pl.col("value").is_in(common)).unique("cell")["events"].sum()
        return (*common, OTHER) if rare >= min_count else tuple(common)

    def indicators(self, values: tuple[str, ...]) -> Float32[np.ndarray, "E V"]:
        """Returns 1 where an event has a value and 0 elsewhere, one column for each of the values."""
        place = {value: column for column, value in enumerate(values)}
        of_cells = np.zeros((len(self.cells), len(values)), np.float32)
        for row, cell in enumerate(self.cells):
            for value in [] if cell is None else cell.split(BETWEEN):
                if (column := place.get(value, place.get(OTHER))) is not None:
                    of_cells[row, column] = 1
        return of_cells[self.index]
