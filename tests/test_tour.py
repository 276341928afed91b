"""The notebook runs from its first cell to its last, on a short training."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "tour.ipynb"


def _cells(kind):
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_the_tour_has_ten_cells_and_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert len(cells) == 10
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_tour_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, *others = _cells("code")
    shortened = first.replace("STEPS = 400", "STEPS = 10")
    assert shortened != first
    with matplotlib.rc_context({"backend": "Agg"}):
        scope: dict[str, Any] = {"__name__": "__main__"}
        for source in (shortened, *others):
            exec(source, scope)
    assert scope["kernel"].shape == (15 * 24,)
    assert np.isfinite(scope["kernel"]).all()
    assert "half a day apart" in capsys.readouterr().out
    assert (tmp_path / "runs" / "tour-10" / "run" / "metrics.json").exists()
