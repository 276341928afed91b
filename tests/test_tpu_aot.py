"""The train step compiles ahead of time for whole pods, fits them, and sends what it should between their chips.

Needs no TPU, but its compiler: `make test-tpu`. Each program is compiled by the command that a user gives.
"""

import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tpu

ROOT = Path(__file__).parents[1]
MIB, GIB = 2**20, 2**30

# 12 layers of 4 matrices 512 x 512 and 2 of 512 x 2048, which the step gathers, and whose gradients it reduces, in
# bfloat16; what else is trained is a sixth of that, and most of it the table.
LAYERS, WIDTH, LENGTH = 12, 512, 1024
ITEM_TABLE_BYTES = 16384 * 64 * 4
KERNEL_BYTES = 2 * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * 4 * WIDTH)
RECOMMENDER = (
    *("--spec.id-buckets", "16384", "--spec.context-features", "6", "--model.embedding-dim", "64"),
    *("--model.width", str(WIDTH), "--model.heads", "8", "--model.layers", str(LAYERS), "--model.dtype", "bfloat16"),
    *("--batches.window", str(LENGTH), "--batches.row-length", str(LENGTH)),
)
TABLE_ROWS, TABLE_WIDTH = 100_000_000, 64
TABLE = (
    *("--topology", "v5e:16x16", "--spec.id-buckets", str(TABLE_ROWS), "--model.embedding-dim", str(TABLE_WIDTH)),
    *("--model.layers", "1", "--batches.batch-size", "256"),
)


def compile_ahead(*flags):
    """Runs the command as a user does, without what conftest.py sets for tests that run what they compile."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "tpu.aot_compile", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Compiles for some flags, and returns the report and the bytes of its collectives by kind and network."""

    def read(*flags):
        file = tmp_path_factory.mktemp("aot") / "report.json"
        finished = compile_ahead(*flags, "--json", str(file))
        assert finished.returncode == 0, finished.stderr
        report = json.loads(file.read_text())
        sizes = collections.defaultdict(int)
        for collective in report["collectives"]:
            sizes[collective["kind"], collective["network"]] += collective["bytes"]
        return report, sizes

    return read


def check_recommender(report):
    assert report["needed"] < report["capacity"]
    assert report["kernels"] == 3 * (LAYERS + 1)  # forwards and two backwards, of each block and of the actions
    # All but the metrics takes the place of an argument.
    assert report["outputs"] - report["donated"] < 0.001 * report["outputs"]
    # Nothing is sent as a whole but matrices, and gradients where they are bundled.
    gathered = [each["bytes"] for each in report["collectives"] if each["kind"] == "all-gather"]
    assert max(gathered) <= ITEM_TABLE_BYTES


def test_fsdp_on_16_chips_gathers_parameters_and_never_reduces_their_gradients_whole(report):
    program, sizes = report(*RECOMMENDER, "--topology", "v5e:4x4", "--batches.batch-size", "64", "--mesh.fsdp")
    check_recommender(program)
    # The compiler turns part of both, the gathering and the scattering of sums, into rings that pass on parts while
    # they are multiplied: permutes.
    assert sizes.keys() <= {
        (kind, "ICI") for kind in ("all-gather", "reduce-scatter", "collective-permute", "all-reduce")
    }
    assert KERNEL_BYTES < sizes["all-gather", "ICI"] < 3 * KERNEL_BYTES
    # The table, of which each chip has looked up more rows than it has; norms, biases, the loss.
    assert sizes["all-reduce", "ICI"] < 1.25 * ITEM_TABLE_BYTES


def test_two_slices_share_gradients_in_shards_over_the_data_centre_network_and_nothing_else(report):
    flags = ("--topology", "v5p:2x2x1", "--slices", "2", "--batches.batch-size", "16", "--mesh.fsdp")
    program, sizes = report(*RECOMMENDER, *flags)
    check_recommender(program)
    assert {kind for kind, network in sizes if network == "DCN"} == {"all-reduce"}
    # Each of the 4 chips of a slice sends its quarter of the gradients.
    assert KERNEL_BYTES / 4 < sizes["all-reduce", "DCN"] < 1.5 * KERNEL_BYTES / 4
    # Within a slice as with one: parameters are gathered, forwards and backwards, gradients are scattered or reduced.
    assert KERNEL_BYTES < sizes["all-gather", "ICI"] < 3 * KERNEL_BYTES
    assert 0 < sizes["reduce-scatter", "ICI"] + sizes["all-reduce", "ICI"] < 1.5 * KERNEL_BYTES


def test_tensor_parallelism_on_256_chips_reduces_activations_and_gathers_no_parameter(report):
    flags = ("--topology", "v5e:16x16", "--batches.batch-size", "128", "--mesh.model", "4")
    program, sizes = report(*RECOMMENDER, *flags)
    check_recommender(program)
    assert {network for _, network in sizes} == {"ICI"}
    # Attention and feed-forward of each block end in a sum over the model axis, forwards and backwards.
    activation = 2 * LENGTH * WIDTH * 2
    assert sizes["all-reduce", "ICI"] > LAYERS * 4 * activation + KERNEL_BYTES / 4
    assert sizes["all-gather", "ICI"] < KERNEL_BYTES / 4


@pytest.mark.parametrize("model", [1, 4])
def test_a_table_of_100_million_rows_fits_256_chips_and_none_of_it_is_sent(report, model):
    program, _ = report(*TABLE, "--mesh.model", str(model))
    of_a_chip = TABLE_ROWS * TABLE_WIDTH * 4 // 256
    # Parameters and two moments; a gradient and an update of the same size come and go.
    assert 3 * of_a_chip < program["needed"] < 7 * of_a_chip < program["capacity"]
    # What is sent are the rows that are looked up, and their gradients.
    looked_up = 256 * 128 * TABLE_WIDTH * 4
    assert max(collective["bytes"] for collective in program["collectives"]) <= looked_up < of_a_chip


def test_a_table_that_every_chip_holds_is_refused_with_what_is_missing():
    finished = compile_ahead(*TABLE, "--mesh.no-shard-tables")
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    has, needs, missing = (float(number) for number in re.findall(r"([\d.]+) GiB", line)[:3])
    assert has == 15.75
    # At least the table, two moments and its gradient; at most another four like it.
    table = TABLE_ROWS * TABLE_WIDTH * 4 / GIB
    assert 4 * table < needs < 8 * table
    assert missing == pytest.approx(needs - has, abs=0.02)
    assert "--mesh.shard-tables" in line
