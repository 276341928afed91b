"""tpu/queued_resource.sh and tpu/slurm.sbatch, run with stand-ins for gcloud, docker, srun and scontrol."""

import os
import subprocess

import pytest
from launch_checks import ROOT

CALLS = "calls"


@pytest.fixture
def run(tmp_path):
    """Runs a script where each stand-in notes its arguments, one call a line, and then does what its body says."""

    def run_script(script, *arguments, stand_ins, **environment):
        for name, body in stand_ins.items():
            file = tmp_path / name
            file.write_text(f'#!/usr/bin/env bash\n(printf "%q " {name} "$@"; echo) >>"$HERE/{CALLS}"\n{body}\n')
            file.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path)} | environment
        command = ["bash", ROOT / "tpu" / script, *arguments]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        notes = tmp_path / CALLS
        return finished, notes.read_text().splitlines() if notes.exists() else []

    return run_script


QUEUE = {"PROJECT": "p", "ZONE": "z", "NAME": "first", "NFS": "10.0.0.2:/share", "IMAGE": "registry.test/p/image:1"}


def test_one_slice_is_asked_for_with_the_software_of_its_generation(run):
    finished, (call,) = run(
        "queued_resource.sh", "create", stand_ins={"gcloud": ""}, **QUEUE, ACCELERATOR_TYPE="v6e-16"
    )
    assert finished.returncode == 0
    queued = "gcloud compute tpus queued-resources create first --project=p --zone=z "
    assert call == queued + "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --node-id=first "


def test_several_slices_are_asked_for_as_one_group_on_spot_machines(run):
    settings = QUEUE | {"ACCELERATOR_TYPE": "v5litepod-16", "SLICES": "2", "SPOT": "1"}
    _, (call,) = run("queued_resource.sh", "create", stand_ins={"gcloud": ""}, **settings)
    assert "--node-count=2 --node-prefix=first --spot" in call
    assert "--node-id" not in call


@pytest.mark.parametrize(
    ("kind", "complaint"), [("v5litepod-12", "v5litepod-12' is no TPU slice"), ("tpu7x-16", "queue has no tpu7x-16")]
)
def test_slices_that_the_queue_does_not_have_are_refused_before_anything_is_asked_for(run, kind, complaint):
    finished, calls = run("queued_resource.sh", "create", stand_ins={"gcloud": ""}, **QUEUE, ACCELERATOR_TYPE=kind)
    assert finished.returncode not in (0, 75)
    assert complaint in finished.stderr
    assert calls == []


@pytest.mark.parametrize(("last", "code"), [("ACTIVE", 0), ("FAILED", 75), ("SUSPENDED", 75)])
def test_waiting_ends_when_the_slices_are_there_or_will_not_come(run, last, code):
    body = f'(($(wc -l <"$HERE/{CALLS}") < 3)) && echo WAITING_FOR_RESOURCES || echo {last}'
    finished, calls = run("queued_resource.sh", "wait", stand_ins={"gcloud": body}, **QUEUE, POLL_SECONDS="0.01")
    assert finished.returncode == code
    assert len(calls) == 3


def test_every_host_of_every_slice_runs_the_command_supervised_in_the_image_with_the_shared_folder(run):
    remote = 'for argument; do [[ $argument != --command=* ]] || bash -c "${argument#--command=}"; done'
    stand_ins = {"gcloud": remote, "sudo": ""}
    command = ["siren-rope", "train", "/data/a log.toml", "--out", "/data/runs/first"]
    finished, calls = run("queued_resource.sh", "run", *command, stand_ins=stand_ins, **QUEUE)
    assert finished.returncode == 0
    assert calls[0].startswith(
        "gcloud compute tpus queued-resources ssh first --project=p --zone=z --node=all --worker=all"
    )
    started = calls[-1]
    assert started.startswith("sudo docker run --detach --init --name train --privileged --network host")
    assert "LIBTPU_INIT_ARGS=--xla_" in started
    assert "device=:/share" in started
    assert "addr=10.0.0.2" in started
    after_image = started.split("registry.test/p/image:1 ")[1]
    assert (
        after_image == r"tpu/supervise.sh /data/runs/first siren-rope train /data/a\ log.toml --out /data/runs/first "
    )


@pytest.mark.parametrize("arguments", [[], ["start"]])
def test_a_wrong_call_names_the_right_ones(run, arguments):
    finished, calls = run("queued_resource.sh", *arguments, stand_ins={"gcloud": ""}, **QUEUE)
    assert finished.returncode == 64
    assert "create, wait, run, logs, status, stop or delete" in finished.stderr
    assert calls == []


@pytest.mark.parametrize("code", [75, 134, 137, 143])
def test_a_job_that_was_stopped_or_lost_a_node_goes_back_into_the_queue(run, code):
    stand_ins = {"srun": f"exit {code}", "scontrol": ""}
    _, calls = run("slurm.sbatch", "siren-rope", "train", stand_ins=stand_ins, SLURM_JOB_ID="42")
    assert calls[0].split()[-2:] == ["siren-rope", "train"]
    assert calls[1:] == ["scontrol requeue 42 "]


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_job_that_is_done_wrong_or_diverged_does_not(run, code):
    stand_ins = {"srun": f"exit {code}", "scontrol": ""}
    finished, calls = run("slurm.sbatch", "siren-rope", stand_ins=stand_ins, SLURM_JOB_ID="42")
    assert finished.returncode == code
    assert len(calls) == 1


def test_a_job_that_comes_back_too_often_ends(run):
    stand_ins = {"srun": "exit 137", "scontrol": ""}
    settings = {"SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": "3", "RESTARTS": "3"}
    finished, calls = run("slurm.sbatch", "siren-rope", stand_ins=stand_ins, **settings)
    assert finished.returncode == 69
    assert len(calls) == 1
    assert "gave up: ended with 137 after 3 restarts" in finished.stderr
