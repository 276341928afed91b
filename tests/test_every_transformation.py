"""Every public op under every transformation of JAX: the numbers of float64, or refused in one sentence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformations

from siren_rope_jax import ops

HERE = Path(__file__).parent
README = (HERE.parent / "siren_rope_jax" / "ops" / "README.md").read_text("utf-8")
# They take no arrays that could be traced.
OTHERS = {"Bias", "OfSlots", "ScaledFrequencies", "alibi_slopes", "inverse_frequencies", "scaled_frequencies"}
OTHERS |= {"SirenParams", "siren_init", "split_unix_time", "time_scale_periods"}
IN_ATTENTION = {"strictly_causal_attention", "alibi_bias", "t5_bias", "hstu_bias", "RelativeEmbedding"}
# Of the long rows, only that of blocks is another program than the short one; the README has the command for all.
SHORT = [row for row in transformations.ROWS if "256" not in row or row.startswith("attention, chunked, biases")]


def computed(rows):
    """Some rows of the matrix, by a process whose CPU passes for four devices."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(HERE.parent)}
    program = [sys.executable, str(HERE / "transformations.py"), *rows]
    result = subprocess.run(program, check=True, env=os.environ | settings, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def claimed():
    """The matrix as ops/README.md prints it."""
    notes = dict(re.findall(r"^- ([a-z]): (.*)$", README, re.MULTILINE)) | {"=": "="}
    (head,) = re.findall(rf"^\| op \| ({' . '.join(transformations.COLUMNS)}) \|$", README, re.MULTILINE)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in README.splitlines() if line.startswith("| ")]
    return {
        name: {column: notes[mark] for column, mark in zip(head.split(" | "), marks, strict=True) if mark}
        for name, *marks in lines
        if name in transformations.ROWS
    }


@pytest.mark.slow
def test_the_table_of_the_readme_says_what_each_transformation_gives():
    of_readme = claimed()
    for row, found in computed(SHORT).items():
        assert found == of_readme[row], row


def test_every_cell_of_the_table_is_right_or_refused_in_a_sentence():
    table = claimed()
    assert set(table) == set(transformations.ROWS)
    for row, cells in table.items():
        for column, outcome in cells.items():
            assert outcome == "=" or (not outcome.startswith("off by") and len(outcome.split()) > 5), (row, column)


def test_the_table_holds_every_op_that_takes_arrays():
    in_rows = set(re.findall(r"\w+", " ".join(transformations.ROWS)))
    assert set(ops.__all__) <= in_rows | OTHERS | IN_ATTENTION
