"""Checks of launch files, each of which raises what says what is wrong.

What no linter knows is checked here: the envelope of a JobSet (kubernetes-validate knows the jobs in it), and the keys
of a SkyPilot task where SkyPilot, which is too heavy to be a dependency, is not installed.
"""

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
import yamllint.config
import yamllint.linter

from tpu.render import xla_flags
from tpu.topologies import TOPOLOGIES, find_topology

ROOT = Path(__file__).parents[1]
RETRIED = [75, 134, 137, 143]
_BIN = Path(sys.executable).parent
_YAML_STYLE = yamllint.config.YamlLintConfig(
    "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"
)
_SKY_KEYS = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "setup", "run"}
_SKY_RESOURCES = {
    "cloud",
    "accelerators",
    "accelerator_args",
    "use_spot",
    "region",
    "zone",
    "disk_size",
    "job_recovery",
}


def _only(mapping, known, where):
    assert set(mapping) <= set(known), f"{where} has no {', '.join(sorted(set(mapping) - set(known)))}"


def check_yaml(text):
    """One document, in the style of the others."""
    problems = [f"{problem.line}: {problem.message}" for problem in yamllint.linter.run(text, _YAML_STYLE)]
    assert not problems, problems


def check_jobset(document):
    """A JobSet whose jobs Kubernetes takes, and that starts all again or ends, never one pod alone."""
    _only(document, ("apiVersion", "kind", "metadata", "spec"), "a JobSet")
    assert document["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert document["kind"] == "JobSet"
    spec = document["spec"]
    _only(spec, ("failurePolicy", "replicatedJobs", "successPolicy", "network", "ttlSecondsAfterFinished"), "its spec")
    policy = spec["failurePolicy"]
    _only(policy, ("maxRestarts", "rules"), "its failurePolicy")
    assert policy["maxRestarts"] >= 10  # preemptions count too
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    annotations = document["metadata"]["annotations"]
    assert annotations == {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    for job in spec["replicatedJobs"]:
        _only(job, ("name", "replicas", "template"), "a replicated job")
        wrapped = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        try:
            kubernetes_validate.validate(copy.deepcopy(wrapped), "1.34", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{'.'.join(map(str, error.path))}: {error.message}") from error
        _check_job(job["template"]["spec"])


def _check_job(spec):
    assert spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    retried = {"containerName": container["name"], "operator": "NotIn", "values": RETRIED}
    assert rule == {"action": "FailJob", "onExitCodes": retried}
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 300
    label, shape = (pod["nodeSelector"][f"cloud.google.com/gke-tpu-{key}"] for key in ("accelerator", "topology"))
    slices = [one for one in TOPOLOGIES.values() if (one.generation.gke_accelerator, one.shape) == (label, shape)]
    assert slices, f"{label} has no slice {shape}"
    assert (spec["parallelism"], spec["completions"]) == (slices[0].hosts,) * 2
    assert container["resources"]["limits"] == {"google.com/tpu": slices[0].chips_per_host}
    assert container["env"] == [{"name": "LIBTPU_INIT_ARGS", "value": xla_flags()}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def check_sky(document):
    """A task that SkyPilot reads; without SkyPilot, one with keys that it knows."""
    _only(document, _SKY_KEYS, "a task")
    _only(document["resources"], _SKY_RESOURCES, "resources")
    _only(document["resources"]["accelerator_args"], ("runtime_version",), "accelerator_args")
    topology = find_topology(document["resources"]["accelerators"].removeprefix("tpu-"))
    assert document["resources"]["accelerator_args"]["runtime_version"] == topology.generation.runtime
    for place, mount in document["file_mounts"].items():
        _only(mount, ("name", "source", "store", "mode"), f"the mount {place}")
    for script in ("setup", "run"):
        check_shell(f"#!/usr/bin/env bash\n{document[script]}")
    if importlib.util.find_spec("sky"):
        import sky  # pyright: ignore[reportMissingImports]

        given = [(name, name.lower()) for name, value in document["envs"].items() if value is None]
        sky.Task.from_yaml_config(copy.deepcopy(document), env_overrides=given)


def check_shell(text):
    """A script in which shellcheck finds nothing to say."""
    _lint([_BIN / "shellcheck", "--norc", "-"], text)


def check_dockerfile(text):
    """A Dockerfile in which hadolint finds nothing to say, and that copies what there is."""
    _lint([_BIN / "hadolint", "--no-color", "-"], text)
    for line in text.splitlines():
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), f"{source} is not there to be copied"


def _lint(command, text):
    finished = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def read_yaml(kind):
    """The launch file as committed, parsed."""
    return yaml.safe_load((ROOT / "tpu" / f"{kind}.yaml").read_text("utf-8"))
