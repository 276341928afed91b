"""What TensorBoard is told: whole, readable when a checkpoint is, and never a reason to wait for ever."""

import resource
import struct

import numpy as np
import pytest
from one_sentence import raises_one_sentence
from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.run_log import RunLog

METRICS = {"loss": 0.5, "gradient_norm": 1.0, "task_losses": [0.2, 0.3]}
METRICS |= {"rotary/gate": 0.9, "rotary/scale": np.array([3.0, 3.1])}


def events_of(run):
    """The scalars of each file, {(name, step): value}, and the step from which it replaces older ones."""
    found = []
    for file in sorted((run / "tensorboard").iterdir(), key=lambda path: int(path.suffix[1:])):
        data, scalars, starts = file.read_bytes(), {}, []
        while data:
            (length,) = struct.unpack("<Q", data[:8])  # then its checksum, the event and the event's checksum
            event = Event.FromString(data[12 : 12 + length])
            scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            starts += [event.step] if event.HasField("session_log") else []
            data = data[16 + length :]
        found.append((scalars, starts))
    return found


def test_a_flushed_step_is_readable_while_training_goes_on(tmp_path):
    log = RunLog(tmp_path, first_step=1)
    log.add_step(METRICS, ("like", "dwell"), 1, learning_rate=0.1)
    log.add_validation(
        {"like": {"ne": 0.8, "auc": None}}, Judged("mean_ne", 0.8, maximise=False), 1, {"rotary/fast_share": 0.25}
    )
    log.flush()
    ((scalars, starts),) = events_of(tmp_path)
    assert starts == [1]
    expected = {"train/loss": 0.5, "train/gradient_norm": 1.0, "train/loss_like": 0.2, "train/loss_dwell": 0.3}
    expected |= {"train/learning_rate": 0.1, "rotary/gate_0": 0.9, "rotary/scale_0": 3.0, "rotary/scale_1": 3.1}
    expected |= {"validation/like/ne": 0.8, "validation/mean_ne": 0.8, "rotary/fast_share": 0.25}
    assert scalars == {(name, 1): pytest.approx(value) for name, value in expected.items()}
    log.close()


def test_a_run_resumed_within_the_second_keeps_what_was_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)  # a clock that was set back does the same
    for first in (1, 3):
        log = RunLog(tmp_path, first_step=first)
        log.add_step(METRICS, ("like", "dwell"), first)
        log.close()
    (old, _), (new, starts) = events_of(tmp_path)
    assert ("train/loss", 1) in old
    assert ("train/loss", 3) in new
    assert starts == [3]


def test_logging_to_a_full_disk_ends_in_one_sentence(tmp_path):
    log, limit = RunLog(tmp_path, first_step=1), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with raises_one_sentence(f"{tmp_path}/tensorboard cannot be written: File too large; fix this"):
            for step in range(1000):
                log.add_step(METRICS, ("like", "dwell"), step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    log.close()
