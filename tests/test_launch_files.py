"""The launch files are what their tools and tpu/topologies.py want; an error planted in each is found by its check."""

import os
import re
import subprocess
import sys
from pathlib import Path

import launch_checks
import pytest
import tyro
import yaml
from launch_checks import RETRIED, ROOT, read_yaml

from siren_rope_jax.commands import Train
from tpu.topologies import find_topology

TPU = ROOT / "tpu"
SHELL = ("supervise.sh", "queued_resource.sh", "slurm.sbatch")
CHECKS = {"jobset": launch_checks.check_jobset, "sky": launch_checks.check_sky}


def render(*arguments):
    """Returns what `python -m tpu.render` prints, or its complaint."""
    command = [sys.executable, "-m", "tpu.render", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def read(name):
    return (TPU / name).read_text("utf-8")


@pytest.mark.parametrize("kind", CHECKS)
def test_the_committed_file_is_sound_and_what_is_rendered_for_one_v5e_16_slice(kind):
    launch_checks.check_yaml(read(f"{kind}.yaml"))
    CHECKS[kind](read_yaml(kind))
    assert yaml.safe_load(render(kind, "--topology", "v5e:4x4").stdout) == read_yaml(kind)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v4:2x2x4", "v5e:16x16", "v5p:2x2x2", "v6e:2x4", "tpu7x:4x4x4"])
def test_a_jobset_for_another_slice_is_sound(topology):
    launch_checks.check_jobset(yaml.safe_load(render("jobset", "--topology", topology).stdout))


@pytest.mark.parametrize(
    ("topology", "slices", "hosts", "chips", "label"),
    [
        ("v5e:4x4", 2, 4, 4, "tpu-v5-lite-podslice"),
        ("v5p:2x2x2", 4, 2, 4, "tpu-v5p-slice"),
        ("v6e-8", 1, 1, 8, "tpu-v6e-slice"),
    ],
)
def test_every_slice_of_a_jobset_gets_its_hosts_and_all_chips_of_each(topology, slices, hosts, chips, label):
    document = yaml.safe_load(render("jobset", "--topology", topology, "--slices", str(slices)).stdout)
    (job,) = document["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"]) == (slices, hosts, hosts)
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["jobset", "--topology", "v5e:3x3"], "'v5e:3x3' is no TPU slice; among those that exist are v5e:2x4"),
        (["jobset", "--topology", "v5e:2x4", "--slices", "2"], "joins slices of several hosts only"),
        (["jobset", "--slices", "0"], "slices must be at least 1, but are 0"),
        (["sky", "--slices", "2"], "SkyPilot starts one slice, but 2 are wanted"),
        (["sky", "--topology", "tpu7x:2x2x2"], "TPU VMs, which tpu7x does not have"),
    ],
)
def test_what_cannot_run_is_not_rendered(arguments, complaint):
    finished = render(*arguments)
    assert finished.returncode == 2
    assert complaint in finished.stderr
    assert not finished.stdout


def change(document, path, value):
    *parents, last = path
    for key in parents:
        document = document[key]
    document[last] = value


JOB = ("spec", "replicatedJobs", 0, "template", "spec")
POD = (*JOB, "template", "spec")


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("jobset", ("spec", "failurePolicy", "maxRestart"), 20),
        ("jobset", ("spec", "failurePolicy", "rules", 0, "action"), "FailJob"),
        ("jobset", (*JOB, "backofLimit"), 0),
        ("jobset", (*JOB, "backoffLimit"), 3),
        ("jobset", (*JOB, "parallelism"), "4"),
        ("jobset", (*JOB, "completions"), 3),
        ("jobset", (*POD, "nodeSelector", "cloud.google.com/gke-tpu-topology"), "3x3"),
        ("jobset", (*POD, "nodeSelector", "cloud.google.com/gke-tpu-topology"), "4x8"),
        ("jobset", (*POD, "nodeSelector", "cloud.google.com/gke-tpu-accelerator"), "tpu-v5e-slice"),
        ("jobset", (*POD, "containers", 0, "resources", "limits"), {"google.com/tpu": 8}),
        ("jobset", (*POD, "containers", 0, "env", 0, "value"), "--xla_enable_async_all_gather=true"),
        ("jobset", (*JOB, "podFailurePolicy", "rules", 0, "onExitCodes", "values"), [2, 75, 134, 137, 143]),
        ("jobset", (*POD, "restartPolicy"), "OnFailure"),
        ("jobset", (*POD, "containers", 0, "resource"), {}),
        ("jobset", (*POD, "volumes", 0, "name"), "date"),
        ("sky", ("resource",), {}),
        ("sky", ("resources", "use_spott"), True),
        ("sky", ("resources", "accelerators"), "tpu-v5litepod-15"),
        ("sky", ("resources", "accelerators"), "tpu-v6e-16"),
        ("sky", ("resources", "accelerator_args", "runtime"), "v2-alpha-tpuv5-lite"),
        ("sky", ("file_mounts", "/data", "sourse"), "gs://x"),
        ("sky", ("run",), "cd $RUN && siren-rope train"),
    ],
)
def test_an_error_planted_in_a_yaml_file_is_found(kind, path, value):
    document = read_yaml(kind)
    change(document, path, value)
    with pytest.raises((AssertionError, ValueError)):
        CHECKS[kind](document)


@pytest.mark.parametrize("planted", ["a: 1\na: 2\n", "a:  1\n", "a: [1, 2\n"])
def test_an_error_planted_in_the_style_is_found(planted):
    with pytest.raises(AssertionError):
        launch_checks.check_yaml(planted)


@pytest.mark.parametrize("name", SHELL)
def test_a_script_is_sound_and_an_error_planted_in_it_is_found(name):
    launch_checks.check_shell(read(name))
    assert os.access(TPU / name, os.X_OK) or name.endswith(".sbatch")
    with pytest.raises(AssertionError, match="SC2086"):
        launch_checks.check_shell(read(name) + "\nrm -r $1/runs\n")


def test_the_dockerfile_is_sound_and_errors_planted_in_it_are_found():
    launch_checks.check_dockerfile(read("Dockerfile"))
    for old, new in [(":3.12-slim", ""), ("--no-cache-dir ", ""), ("COPY tpu", "COPY tpus"), ("WORKDIR /", "WORKDIR ")]:
        planted = read("Dockerfile").replace(old, new)
        assert planted != read("Dockerfile")
        with pytest.raises(AssertionError):
            launch_checks.check_dockerfile(planted)


def test_the_image_is_of_a_python_that_the_package_takes_and_installs_an_extra_that_it_has():
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'requires-python = ">=3.11"' in pyproject
    assert "FROM python:3.12-slim" in read("Dockerfile")
    assert "ARG EXTRA=tpu" in read("Dockerfile")
    assert '\ntpu = ["jax[tpu]"]' in pyproject


def test_all_files_start_again_after_the_same_exit_codes():
    cases = " | ".join(map(str, RETRIED))
    for name in ("supervise.sh", "slurm.sbatch"):
        assert f"  {cases}) ;;" in read(name).replace("\\\n", ""), name


def test_the_command_of_the_jobset_is_one_that_the_command_line_takes():
    (job,) = read_yaml("jobset")["spec"]["replicatedJobs"]
    program, command, *arguments = job["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert (program, command) == ("siren-rope", "train")
    assert tyro.cli(Train, args=arguments).out == Path("/data/runs/${NAME}")


def test_slurm_starts_one_task_per_gpu_and_lets_each_see_all_of_its_node():
    options = dict(
        line[8:].split("=", 1)
        for line in read("slurm.sbatch").splitlines()
        if line.startswith("#SBATCH --") and "=" in line
    )
    assert options["--ntasks-per-node"] == options["--gpus-per-node"]
    assert options["--signal"] == "TERM@300"  # without B:, which would ask the script alone
    assert not {"--gpus-per-task", "--gpu-bind"} & set(options)


def test_the_commands_of_the_readme_are_sound_name_files_that_exist_and_ask_for_the_hosts_of_the_slice():
    text = read("README.md")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 8
    launch_checks.check_shell("#!/usr/bin/env bash\n" + "".join(blocks))
    pools = re.findall(r"--machine-type=(ct\S+) --tpu-topology=(\S+) --num-nodes=(\d+)", text)
    slice_ = find_topology("v5e:4x4")
    assert pools == [(slice_.machine_type, slice_.shape, str(slice_.hosts))] * 2
    commands = "".join(blocks).replace(".venv-tpu/", "")
    modules = {f"{name}.py" for name in re.findall(r"-m tpu\.(\w+)", commands)}
    assert modules
    assert set(re.findall(r"\btpu/([\w.]+)", commands)) | modules <= set(os.listdir(TPU))


@pytest.mark.parametrize("planted", ["cd $NAME/x", "for slice in 0 1; do echo", "export A=$(date)"])
def test_an_error_planted_in_a_command_is_found(planted):
    with pytest.raises(AssertionError, match="SC"):
        launch_checks.check_shell(f"#!/usr/bin/env bash\nexport NAME=first\n{planted}\n")
