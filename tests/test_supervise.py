"""tpu/supervise.sh, with real processes that end, are killed and make progress as trainings do."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "tpu" / "supervise.sh"
# Takes its turns from a file, one line of shell per start, and notes each start.
COMMAND = """
start=$(wc -l <"$RUN/starts")
echo started >>"$RUN/starts"
eval "$(sed -n "$((start + 1))p" "$RUN/turns")"
"""


@pytest.fixture
def supervise(tmp_path):
    """Starts the script on a list of turns; give the result to `end`."""
    (tmp_path / "starts").touch()
    (tmp_path / "checkpoints").mkdir()

    def start(*turns, retries=3, base=0.001, longest=0.01):
        (tmp_path / "turns").write_text("\n".join(turns) + "\n")
        environment = os.environ | {
            "RUN": str(tmp_path),
            "SUPERVISE_RETRIES": str(retries),
            "SUPERVISE_BASE_SECONDS": str(base),
            "SUPERVISE_LONGEST_SECONDS": str(longest),
        }
        command = [str(SCRIPT), str(tmp_path), "bash", "-c", COMMAND]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def end(process):
    """Exit code and what was said."""
    _, said = process.communicate()
    return process.returncode, said


def starts(folder):
    return len((folder / "starts").read_text().splitlines())


def wait_for(condition):
    deadline = time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_success_bad_input_divergence_bugs_and_a_persons_interruption_are_not_tried_again(supervise, tmp_path, code):
    assert end(supervise(f"exit {code}", "exit 0"))[0] == code
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("turn", ["exit 75", "exit 134", "exit 143", "kill -KILL $$", "kill -ABRT $$", "kill -TERM $$"])
def test_lost_aborted_killed_and_preempted_trainings_start_again(supervise, tmp_path, turn):
    code, said = end(supervise(turn, turn, "exit 0"))
    assert code == 0
    assert starts(tmp_path) == 3
    assert "start 2 of at most 3 without progress" in said


def test_the_code_of_bad_input_after_a_restart_is_passed_on(supervise, tmp_path):
    assert end(supervise("exit 137", "exit 2"))[0] == 2
    assert starts(tmp_path) == 2


def test_without_progress_it_gives_up_with_a_code_of_its_own(supervise, tmp_path):
    (tmp_path / "checkpoints" / "40").mkdir()
    code, said = end(supervise(*["exit 134"] * 9, retries=2))
    assert code == 69
    assert starts(tmp_path) == 3
    assert "gave up: ended with 134" in said
    assert "step 40" in said


@pytest.mark.parametrize("folder", ["checkpoints", "seed-0/checkpoints"])
def test_a_newer_checkpoint_gives_all_retries_back(supervise, tmp_path, folder):
    stuck, newer = "exit 75", f'mkdir -p "$RUN/{folder}/%d"; exit 75'
    assert end(supervise(stuck, stuck, newer % 9, stuck, newer % 10, stuck, "exit 0", retries=2))[0] == 0
    assert starts(tmp_path) == 7


def test_a_checkpoint_that_is_not_finished_or_older_is_no_progress(supervise, tmp_path):
    (tmp_path / "checkpoints" / "40").mkdir()
    turns = [f'mkdir "$RUN/checkpoints/{name}"; exit 75' for name in ("50.incomplete", "8", "best", "x9")]
    assert end(supervise(*turns, "exit 0", retries=2))[0] == 69
    assert starts(tmp_path) == 3


def test_the_pauses_double_up_to_the_longest_and_differ_between_hosts(supervise):
    def pauses():
        said = end(supervise(*["exit 75"] * 5, "exit 0", retries=5, base=0.02, longest=0.1))[1]
        return [float(line.split(" in ")[1].split()[0]) for line in said.splitlines() if " follows in " in line]

    one, other = pauses(), pauses()
    assert one != other
    for pause, upper in zip(one, [0.02, 0.04, 0.08, 0.1, 0.1], strict=True):
        assert upper / 2 - 0.001 <= pause <= upper


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_reaches_the_training_which_ends_in_peace_and_stays_ended(supervise, tmp_path, name):
    number = signal.Signals[f"SIG{name}"]
    saved = f"sleep 0.3; touch $RUN/saved; exit {128 + number}"
    turn = f"trap '{saved}' {name}; touch $RUN/ready; while :; do sleep 0.05; done"
    process = supervise(turn, "exit 0")
    wait_for((tmp_path / "ready").exists)
    process.send_signal(number)
    assert end(process)[0] == 128 + number
    assert (tmp_path / "saved").exists()
    assert starts(tmp_path) == 1


def test_a_second_signal_reaches_the_training_too(supervise, tmp_path):
    turn = "trap 'trap - TERM; touch $RUN/first' TERM; touch $RUN/ready; while :; do sleep 0.05; done"
    process = supervise(turn, "exit 0")
    for sign in ("ready", "first"):
        wait_for((tmp_path / sign).exists)
        process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143
    assert starts(tmp_path) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_pause_ends_it_without_another_start(supervise, tmp_path, number, code):
    process = supervise("exit 75", "exit 0", base=600, longest=600)
    assert "follows in" in process.stderr.readline()
    process.send_signal(number)
    assert end(process)[0] == code
    assert starts(tmp_path) == 1


def test_a_wrong_call_is_told_from_a_wrong_training():
    finished = subprocess.run([SCRIPT, "run"], capture_output=True, text=True, check=False)
    assert finished.returncode == 64
    assert "a command are needed" in finished.stderr
