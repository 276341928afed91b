"""Outcomes that compare a cell with a number, a text or several of them."""

import json

import numpy as np
import polars as pl
import pytest
from log_files import event_table, read, refusal, write

from siren_rope_jax.data.schema import EventLogSpec


@pytest.mark.parametrize(
    ("comparison", "cells", "expected"),
    [
        ({"at_most": 2}, [1, 2, 2.5, None], [1, 1, 0, None]),
        ({"at_least": 2, "at_most": 3}, [1, 2, 3, 3.5], [0, 1, 1, 0]),
        ({"equals": 3}, [3, 3.0, 4, None], [1, 1, 0, None]),
        ({"in": [3, 5.5]}, [3, 4, 5.5, None], [1, 0, 1, None]),
        ({"equals": "buy"}, ["buy", " buy ", "Buy", None], [1, 1, 0, None]),
        ({"in": ["buy", "cart"]}, ["buy", "view", "cart", "NULL"], [1, 0, 1, None]),
        ({"equals": "3"}, ["3", "3.0", "4", None], [1, 0, 0, None]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_outcome_is_one_where_the_cell_compares_as_asked_and_unobserved_where_it_is_empty(
    comparison, cells, expected, kind, tmp_path
):
    table = event_table(["a", "b"], ["i"], cell=[None if cell is None else str(cell) for cell in cells])
    if kind == "parquet" and not any(isinstance(cell, str) for cell in cells):
        table = table.with_columns(pl.col("cell").cast(pl.Float64))
    file = write(table, tmp_path / f"log.{kind}")
    log = read([file], tasks={"click": "click", "compared": {"column": "cell", **comparison}})
    np.testing.assert_array_equal(log.labels[:4, 1], np.array(expected, np.float32))
    assert EventLogSpec.from_dict(json.loads(json.dumps(log.spec.to_dict())), tmp_path, "again") == log.spec


def test_a_cell_that_is_no_number_is_refused_where_it_is_compared_with_one(tmp_path):
    file = write(event_table(["a", "b"], ["i"], cell=["3", "view"]), tmp_path / "log.csv")
    for comparison in ({"equals": 3}, {"at_most": 3}, {"in": [3, 4]}):
        message = refusal([file], tasks={"compared": {"column": "cell", **comparison}})
        assert "log.csv: line 3, column \"cell\": expected a number or an empty cell, found 'view'" in message
