"""What is said of a program compiled ahead of time, and what is found that would fit; without the TPU compiler."""

import collections
import dataclasses
from pathlib import Path

import jax
import pytest
from one_sentence import raises_one_sentence
from small_logs import encode, small_log

from siren_rope_jax.batch import abstract_batch
from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.run_folder import open_run
from siren_rope_jax.train.run_lock import lock_run
from siren_rope_jax.train.session import compile_run, input_spec
from siren_rope_jax.train.sharding import MeshConfig
from siren_rope_jax.train.tasks import BinaryTask, make_tasks, tasks_of
from tpu import aot_compile
from tpu.aot_compile import AotCompile, Columns, parse
from tpu.compiled import Collective, Program, find_collectives, memory_wanted, shape_bytes
from tpu.fitting import Share, share_of_device, what_would_fit
from tpu.program_tables import collectives_table, memory_table
from tpu.topologies import find_topology

# As the TPU compiler writes them (jax 0.10.2), shortened.
PROGRAM = """\
HloModule jit_train_step, is_scheduled=true

%fused_computation.7 (param_0: bf16[512,128]) -> (bf16[512,2048], u32[]) {
  %all-gather.34 = bf16[512,2048]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=43, dimensions={1}
}

%async_collective_fusion.800 (param_0: bf16[512,128]) -> (bf16[512,2048], u32[]) {
  %all-gather.18 = bf16[512,2048]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0), channel_id=43, dimensions={1}
}

%all-reduce-scatter.3 (param_0: f32[64,64]) -> f32[8,64] {
  %all-reduce.9 = f32[64,64]{1,0:T(8,128)} all-reduce(%param_0), channel_id=9, to_apply=%add
  ROOT %dynamic-slice.1 = f32[8,64]{1,0:T(8,128)} dynamic-slice(%all-reduce.9, %offset, %zero)
}

ENTRY %main (param_0: f32[8]) -> f32[8] {
  %all-reduce.141 = (f32[16384,64]{0,1:T(8,128)}, /*index=1*/pred[1024]{0}) all-reduce(%a, %b), channel_id=22
  %collective-permute-start.360 = (bf16[8,64]{1,0}, bf16[8,64]{1,0}, u32[]{:S(2)}, u32[]) \
collective-permute-start(%c), channel_id=337, source_target_pairs={{0,1},{1,0}}
  %collective-permute-done.360 = bf16[8,64]{1,0} collective-permute-done(%collective-permute-start.360)
  %send.1 = (bf16[32,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%d, %after-all.1), channel_id=22, \
is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:7}", \
_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (bf16[32,8,128]{2,1,0}, u32[], token[]) recv(%after-all), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""
PROGRAM_COLLECTIVES = {
    ("all-gather", "ICI"): [512 * 2048 * 2],
    ("reduce-scatter", "ICI"): [64 * 64 * 4],
    ("all-reduce", "ICI"): [16384 * 64 * 4 + 1024],
    ("collective-permute", "ICI"): [8 * 64 * 2],
    ("all-reduce", "DCN"): [32 * 8 * 128 * 2],
}


def test_each_collective_is_counted_once_with_its_bytes_and_its_network():
    found = collections.defaultdict(list)
    for collective in find_collectives(PROGRAM):
        found[collective.kind, collective.network].append(collective.bytes)
    assert found == PROGRAM_COLLECTIVES


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[]", 4), ("bf16[3,5]{1,0}", 30), ("pred[7]", 7), ("(s8[2], f8e4m3fn[3], u32[0])", 5), ("s4[10]", 5)],
)
def test_bytes_are_those_of_the_type(shape, size):
    assert shape_bytes(shape) == size


def test_the_memory_that_the_compiler_wanted_is_read_off_its_message():
    for message, wanted in (
        ("HLO temporaries (19.04G) exceeds available HBM (15.75G).", 19.04),
        ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.", 20.5),
    ):
        assert memory_wanted(f"RESOURCE_EXHAUSTED: {message}") == pytest.approx(wanted * 2**30)
    assert memory_wanted("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.") is None


def test_the_shapes_compiled_for_are_those_that_training_is_given():
    encoder, encoded = encode(small_log([16] * 16))
    shape = BatchConfig(window=16, row_length=16, batch_size=8)
    batch = batches(encoded, make_rows(encoded, encoded.user >= 0, shape, seed=0), shape, seed=0)[0]
    spec = input_spec(encoder, TrainConfig(batches=shape))
    abstract = abstract_batch(spec, len(encoder.task_names), shape)
    assert abstract == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


@pytest.mark.slow
def test_a_run_and_its_log_give_the_same_inputs_and_flags_change_the_settings_of_the_run(tmp_path):
    toml = write_simulated_log(simulate(SimulatorConfig(users=60)), tmp_path / "feed")
    log = read_event_log(EventLogSpec.from_toml(toml))
    config = TrainConfig(model=ModelConfig(width=32), inputs=InputConfig(item_buckets=8))
    with lock_run(tmp_path / "run"):
        open_run(tmp_path / "run", log, fit_inputs(log, config.inputs)[0], config)
    from_run = parse(["--topology", "v5e:4x4", "--run", str(tmp_path / "run"), "--mesh.fsdp"])
    assert from_run.config == dataclasses.replace(config, mesh=MeshConfig(fsdp=True))
    from_log = parse(["--topology", "v5e:4x4", "--log", str(toml), "--inputs.item-buckets", "8"])
    spec, tasks = from_run.inputs()
    assert (spec, tasks) == from_log.inputs()
    assert (spec.id_buckets[0], spec.window) == (8, config.batches.window)
    assert tasks == tasks_of(log)


def test_columns_can_be_given_for_a_log_that_is_not_there():
    flags = ["--topology", "v5e:4x4", "--spec.id-names", "item", "tab", "--spec.id-buckets", "100000000", "9"]
    command = parse([*flags, "--spec.tasks", "3", "--batches.window", "32"])
    spec, tasks = command.inputs()
    assert spec == InputSpec(("item", "tab"), (100_000_000, 9), action_features=2, span_days=30, window=32)
    assert [type(task) for task in tasks] == [BinaryTask] * 3


GIB = 2**30
ROWS_OF_8 = TrainConfig(batches=BatchConfig(batch_size=64), mesh=MeshConfig())


def shares(parameters):
    """Of so many GiB of parameters, which FSDP and the model axis divide, and of 8 of tables, which are divided."""

    def measure(config, topology):
        mesh = config.mesh
        data = topology.devices // mesh.model
        if config.batches.batch_size % data or mesh.model > 4:
            raise ValueError("cannot be divided so")
        own = parameters * GIB // mesh.model // (data if mesh.fsdp else 1)
        return Share(own + 8 * GIB // topology.devices, config.batches.batch_size / data)

    return measure


def test_the_smallest_change_of_each_kind_that_makes_room_is_named():
    # 12 GiB of parameters, 1 of tables and 8 rows of 1 GiB on each of 8 devices, which have 15.75.
    assert what_would_fit(ROWS_OF_8, find_topology("v5e:2x4"), 21 * GIB, shares(12)) == [
        "--mesh.fsdp (10.5 GiB)",
        "--batches.batch-size 16 (15.0 GiB)",
        "--topology v5e:4x8 (14.2 GiB)",
    ]


def test_nothing_is_named_where_nothing_makes_room():
    assert what_would_fit(ROWS_OF_8, find_topology("v5e:2x4"), 9000 * GIB, shares(9000)) == []


@pytest.mark.slow
def test_a_devices_share_is_its_state_a_gradient_an_update_and_its_rows():
    config = TrainConfig(batches=BatchConfig(batch_size=6), mesh=MeshConfig())
    tasks = make_tasks([OutcomeScale("like")])
    layout, model = compile_run(config, InputSpec(("item",), (64,)), tasks, devices=jax.devices()[:1])
    state = jax.eval_shape(model.initial_state)
    sizes = [sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) for tree in (state, state.params)]
    assert share_of_device(config, layout, model) == (sizes[0] + 2 * sizes[1], 6)


COLLECTIVES = (
    Collective("all-gather", "ICI", 2**20),
    Collective("all-reduce", "DCN", 3 * 2**20),
    Collective("all-gather", "ICI", 5 * 2**20),
)
SMALL = Program(
    arguments=4 * GIB,
    temporaries=3 * GIB,
    outputs=4 * GIB,
    donated=3 * GIB,
    code=GIB,
    peak=6 * GIB,
    flops=1.5e12,
    kernels=39,
    collectives=COLLECTIVES,
)


def rows_of(table):
    cells = zip(*(column.cells for column in table.columns), strict=True)
    return [tuple(str(cell).strip() for cell in row) for row in cells]


def test_the_report_says_what_a_step_needs_and_sends():
    about = {
        "topology": "v5e:4x4",
        "slices": 2,
        "mesh": {"data": 16, "model": 1},
        "capacity": 14 * GIB,
        "seconds": 61.0,
    }
    table = dict(rows_of(memory_table(SMALL, about)))
    assert table["memory that is needed"] == "7.000 GiB (50%)"
    assert table["outputs"] == "4.000 GiB, of which 3.000 GiB in donated arguments"
    assert table["Pallas kernels"] == "39"
    assert rows_of(collectives_table(COLLECTIVES)) == [
        ("all-gather", "ICI", "2", "6.00", "5.00"),
        ("all-reduce", "DCN", "1", "3.00", "3.00"),
    ]


def test_columns_from_two_places_or_no_slice_are_refused():
    with raises_one_sentence("the columns must come from one of --run, --log and --spec"):
        AotCompile("v5e:4x4", log=Path("log.toml"), spec=Columns(tasks=2))
    with raises_one_sentence("slices must be at least 1", "0"):
        AotCompile("v5e:4x4", slices=0)


def test_without_the_compiler_the_extra_that_brings_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr(aot_compile, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stopped:
        aot_compile.main(["--topology", "v5e:4x4"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'siren-rope-jax[tpu]'")
