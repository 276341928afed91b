"""Logs whose events have no item."""

import numpy as np
import polars as pl
import pytest
from log_files import event_table, read, write

from siren_rope_jax.errors import InputError


def test_a_log_without_items_is_one_of_a_single_item(tmp_path):
    table = event_table(["ann", "bob"], ["same"])
    with_item = read([write(table, tmp_path / "log.csv")])
    frame = table.drop("item")
    without = read(
        [write(frame, tmp_path / "none.csv")],
        write(frame.tail(1).with_columns(pl.col("time") + 9_000), tmp_path / "new.csv"),
        log={"item": None},
    )
    for name in ("time_ms", "user", "item", "labels", "period"):
        np.testing.assert_array_equal(getattr(without, name)[:20], getattr(with_item, name), err_msg=name)
    assert without.new.sum() == 1
    # Equal rows may be several payments.
    payments = pl.concat([frame, frame, frame.with_columns(click=1 - pl.col("click"))])
    log = read([write(payments, tmp_path / "payments.csv")], log={"item": None})
    assert (len(log.time_ms), log.duplicates, log.contradictions) == (60, 0, 0)
    side = {"file": "log.csv", "join": "item", "key": "item"}
    wanting = (("for the side tables", {"side_table": [side]}), ("to draw", {"negatives": {"per_positive": 1}}))
    for said, section in wanting:
        with pytest.raises(InputError, match=f"item: this key is missing, expected a column .*{said}"):
            read([tmp_path / "none.csv"], log={"item": None}, **section)
