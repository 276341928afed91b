"""Compiles the train step of a run for TPUs that are not there, and reports what it would need and send.

    python -m tpu.aot_compile --topology v5e:16x16 --run runs/mine --mesh.fsdp
    python -m tpu.aot_compile --topology v5p:2x2x2 --slices 2 --log log.toml --model.width 512 --model.layers 12
    python -m tpu.aot_compile --topology v5e:16x16 --spec.id-buckets 100000000 --model.embedding-dim 64

The program is the one that `siren-rope train` compiles there, under the flags of xla_flags.txt. It needs only
the compiler, which the extra `tpu` brings. It exits with 2 if the run does not fit, and names changes that would.
"""

import argparse
import dataclasses
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import tyro
from jax.experimental import topologies

from siren_rope_jax.batch import abstract_batch
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.session import compile_run, input_spec
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.step import CompiledModel
from siren_rope_jax.train.tasks import Task, make_tasks
from tpu.compiled import Program, memory_wanted, read_program
from tpu.fitting import Share, share_of_device, what_would_fit
from tpu.program_tables import collectives_table, memory_table
from tpu.render import xla_flags
from tpu.topologies import Topology, find_topology

# Without these the compiler looks for a machine with TPUs; the last lets two processes compile at once.
NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that the model reads of an event, for a log that is not there yet."""

    id_names: tuple[str, ...] = ("item",)
    """Id columns, the item first."""
    id_buckets: tuple[int, ...] = (16_384,)
    """Rows of the table of each."""
    dense_names: tuple[str, ...] = ()
    """Numeric columns."""
    action_features: int = 2
    """Two for each action of the log."""
    context_features: int = 0
    """History counters."""
    span_days: float = 30.0
    """Days of the training span."""
    tasks: int = 1
    """Tasks that are predicted."""


@dataclasses.dataclass(frozen=True)
class AotCompile:
    """Compile the train step of a run for TPUs that are not there. The run is that of a folder (--run), of a log as
    `siren-rope train` would train on it (--log), or of columns that are given (--spec...); any setting can be changed.
    """

    topology: str
    """The slice, such as v5e:4x4 or v5litepod-16; `python -m tpu.topologies` lists them."""
    slices: int = 1
    """Number of slices."""
    run: Path | None = None
    """Folder that `siren-rope train` wrote; settings that are not given are read from it."""
    log: Path | None = None
    """TOML file that describes the log."""
    spec: Columns = dataclasses.field(default_factory=Columns)
    json: Path | None = None
    """File for the same numbers as JSON."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.slices < 1:
            raise ValueError(f"slices must be at least 1, but are {self.slices}")
        given = [self.run is not None, self.log is not None, self.spec != Columns()]
        if sum(given) > 1:
            raise ValueError("the columns must come from one of --run, --log and --spec, but several are given")

    def inputs(self) -> tuple[InputSpec, tuple[Task, ...]]:
        """Reads or makes the columns of the model, and its tasks."""
        if self.run is not None:
            return _of_encoder(read_run(self.run)[2], self.config)
        if self.log is not None:
            log = read_event_log(EventLogSpec.from_toml(self.log))
            return _of_encoder(fit_inputs(log, self.config.inputs)[0], self.config)
        columns = {name: value for name, value in dataclasses.asdict(self.spec).items() if name != "tasks"}
        tasks = make_tasks([OutcomeScale(f"task {index}") for index in range(self.spec.tasks)])
        return InputSpec(**columns, window=self.config.batches.window), tasks


def _of_encoder(encoder: Encoder, config: TrainConfig) -> tuple[InputSpec, tuple[Task, ...]]:
    return input_spec(encoder, config), make_tasks(encoder.tasks)


def compile_ahead(command: AotCompile) -> tuple[Program, dict[str, Any]]:
    """Compiles the train step.

    Returns:
      The program, and facts about it for `--json`.

    Raises:
      InputError: if a device has too little memory, with how much and what would fit; if the slice does not exist, the
        configuration does not fit it or the columns, or the run or the log cannot be read.
    """
    try:
        spec, tasks = command.inputs()
    except ValueError as error:
        raise InputError(str(error)) from error

    def prepare(config: TrainConfig, topology: Topology) -> tuple[Layout, CompiledModel]:
        slices = {"num_slices": command.slices} if command.slices > 1 else {}
        devices = topologies.get_topology_desc(**topology.description, **slices).devices  # type: ignore[arg-type]
        return compile_run(config, spec, tasks, devices=devices)

    try:
        topology = find_topology(command.topology)
        layout, model = prepare(command.config, topology)
    except ValueError as error:
        raise InputError(str(error)) from error
    batch = abstract_batch(spec, len(tasks), command.config.batches, sharding=layout.batch)
    start = time.monotonic()
    lowered = model.train_step.trace(model.abstract_state, batch).lower(lowering_platforms=("tpu",))  # type: ignore
    try:
        program = read_program(lowered.compile())
        needed = program.needed
    except jax.errors.JaxRuntimeError as error:
        program, needed = None, memory_wanted(str(error))
        if needed is None:
            raise
    capacity = topology.hbm_bytes_per_device
    if program is None or needed > capacity:

        def measure(config: TrainConfig, topology: Topology) -> Share:
            return share_of_device(config, *prepare(config, topology))

        fitting = what_would_fit(command.config, topology, needed, measure)
        raise InputError(
            f"a device of {topology.name} has {capacity / 2**30:.2f} GiB, but the step needs {needed / 2**30:.2f} GiB, "
            f"{(needed - capacity) / 2**30:.2f} GiB too many; by estimate it fits with "
            f"{', or '.join(fitting) or 'no single change of mesh, batch or slice'}"
        )
    return program, {
        "topology": topology.name,
        "slices": command.slices,
        "mesh": dict(layout.mesh.shape),
        "capacity": capacity,
        "needed": needed,
        "seconds": time.monotonic() - start,
    }


def parse(arguments: list[str]) -> AotCompile:
    """Reads the flags; they override the settings of a run that is named.

    Raises:
      InputError: if the folder is not that of a run.
      ValueError: if a setting is out of its bounds.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path)
    run = parser.parse_known_args(arguments)[0].run
    default: Any = AotCompile(tyro.MISSING, config=TrainConfig() if run is None else read_run(run)[1])
    return tyro.cli(AotCompile, args=arguments, default=default)


def main(arguments: list[str] | None = None) -> None:
    """Compiles and prints; exits with 2 for bad input and for what does not fit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if find_spec("libtpu") is None:
        _fail("the TPU compiler must be installed, but is not: pip install 'siren-rope-jax[tpu]'")
    # The compiler reads these when it is loaded, as soon as the first slice is described.
    for name, setting in (NO_TPU_HERE | {"LIBTPU_INIT_ARGS": xla_flags()}).items():
        os.environ.setdefault(name, setting)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read what was compiled without a device
    try:
        command = parse(arguments)
    except ValueError as error:  # a setting that its own dataclass refuses; tyro itself reports some of these
        _fail(str(error))
    try:
        program, about = compile_ahead(command)
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror or error}")
    console = make_console()
    console.print(memory_table(program, about))
    console.print(collectives_table(program.collectives))
    if command.json is not None:
        write_json(command.json, about | dataclasses.asdict(program))


def _fail(message: str) -> NoReturn:
    print(f"aot_compile.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
