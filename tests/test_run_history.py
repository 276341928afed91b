"""What a run has logged is read back as TensorBoard shows it."""

import numpy as np
import pytest
from test_run_log import METRICS

from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.run_history import read_history
from siren_rope_jax.train.run_log import RunLog


def log_steps(run, first, last, loss):
    log = RunLog(run, first_step=first)
    for step in range(first, last + 1):
        log.add_step(METRICS | {"loss": loss}, ("like", "dwell"), step)
    log.close()


def test_every_number_is_read_back_by_name_and_ascending_step(tmp_path):
    log_steps(tmp_path, 1, 3, 0.5)
    log = RunLog(tmp_path, first_step=4)
    log.add_validation(
        {"a/b": {"ne": 0.8, "auc": None}}, Judged("mean_ne", 0.8, maximise=False), 3, {"rotary/fast_share": 0.25}
    )
    log.close()
    found = read_history(tmp_path)
    assert found["train/loss"].steps.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found["rotary/scale_1"].values, 3.1, rtol=1e-6)
    assert found["validation/a/b/ne"].values.tolist() == [pytest.approx(0.8)]
    assert "validation/a/b/auc" not in found
    assert found["rotary/fast_share"].values.tolist() == [0.25]


def test_steps_that_were_done_again_after_an_interruption_count_once(tmp_path):
    log_steps(tmp_path, 1, 12, 0.5)
    for number in range(11):  # more files than one digit counts
        log_steps(tmp_path, 8 - number // 2, 9, number)
    loss = read_history(tmp_path)["train/loss"]
    assert loss.steps.tolist() == list(range(1, 10))
    assert loss.values.tolist() == [0.5, 0.5, 10, 10, 10, 10, 10, 10, 10]


def test_a_file_that_ends_within_a_record_counts_up_to_there(tmp_path):
    log_steps(tmp_path, 1, 3, 0.5)
    (file,) = (tmp_path / "tensorboard").iterdir()
    whole = file.read_bytes()
    for cut in (1, 5, 30):
        file.write_bytes(whole[:-cut])
        steps = [series.steps.tolist() for series in read_history(tmp_path).values()]
        assert max(steps) == [1, 2, 3]
        assert min(map(len, steps)) >= 2


def test_a_run_without_event_files_has_no_history(tmp_path):
    assert read_history(tmp_path) == {}
