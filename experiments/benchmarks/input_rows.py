"""The input pipeline: a long CSV to packed batches, and the share of a training step spent waiting for data."""

import tempfile
from pathlib import Path

import jax
from benchmarks.input_pipeline import in_another_format, measure_pipeline, waiting_share, write_csv_log
from benchmarks.timing import Row
from benchmarks.workload import SMALL

from siren_rope_jax.batch import Batch
from siren_rope_jax.data.batches import BatchConfig, make_rows
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.session import make_session

_NAMES = {"iso": "CSV with ISO 8601 times", "jsonl": "JSON Lines"}


def rows(events: int, steps: int) -> list[Row]:
    """Measures both: the pipeline in its own process, the waiting at our default and the published small setting."""
    with tempfile.TemporaryDirectory() as folder:
        described = write_csv_log(Path(folder) / "long", events=events)
        cost = measure_pipeline(described)
        others = {form: measure_pipeline(in_another_format(described, form)) for form in ("iso", "jsonl")}
        short = write_csv_log(Path(folder) / "short", events=200_000)
        waiting = [
            _waiting(short, "default", TrainConfig(), steps),
            _waiting(
                short,
                SMALL.name,
                TrainConfig(
                    model=SMALL.model("siren"),
                    batches=BatchConfig(window=SMALL.length, row_length=SMALL.length, batch_size=SMALL.batch_size),
                ),
                steps,
            ),
        ]
    stages = ", ".join(f"{stage} {taken:.0f} s" for stage, taken in cost.seconds.items())
    name = f"{events:,} events, CSV to packed batches"
    return [
        Row.single("input, seconds", name, sum(cost.seconds.values()), target="<= 180", note=stages),
        Row.single(
            "input, peak GiB", name, cost.peak_gib, target="<= 4", note=f"{cost.events_per_second:,.0f} events/s"
        ),
        *(
            Row.single(
                "input, seconds",
                f"{events:,} events, {_NAMES[form]} to packed batches",
                sum(other.seconds.values()),
                note=f"reading takes {other.seconds['read'] / cost.seconds['read']:.2f} times as long as from CSV; "
                f"{other.peak_gib:.2f} GiB",
            )
            for form, other in others.items()
        ),
        *waiting,
    ]


def _waiting(log_toml: Path, name: str, config: TrainConfig, steps: int) -> Row:
    log = read_event_log(EventLogSpec.from_toml(log_toml))
    encoder, encoded = Encoder.fit_encode(log, config.inputs)
    packed = make_rows(encoded, log.period[encoded.log_index] == TRAIN, config.batches)
    session = make_session(encoder, config, steps=1000)
    state = session.model.initial_state()

    def step(batch: Batch) -> None:
        nonlocal state
        state, metrics = session.model.train_step(state, session.layout.put_batch(batch, len(batch.labels)))
        jax.block_until_ready((state, metrics))

    seconds, share = waiting_share(encoded, packed, config.batches, step, steps=max(steps, 20))
    note = f"{1000 * seconds:.1f} ms a batch"
    return Row.single("input, share of a step spent waiting", f"{name} setting", share, target="< 0.03", note=note)
