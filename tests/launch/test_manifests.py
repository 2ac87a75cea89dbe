"""The Kubernetes manifests as `submit.sh` fills them in: strict fields, and that their parts agree with one another."""

import math
import re
import subprocess
from unittest import mock

import pytest
import yaml
from launch_files import LAUNCH, manifest
from manifest_schema import documents, faults

from delrec_jax import cli
from delrec_jax.config import default_config, from_config, leaf_keys
from delrec_jax.errors import Preempted, UserError

TPU_CASES = [{}, {"TOPOLOGY": "8x8"}, {"TOPOLOGY": "2x4", "CHIPS": "8"}]
GPU_CASES = [{}, {"NODES": "5", "GPUS": "4"}, {"NODES": "1"}]
CASES = [("tpu", case) for case in TPU_CASES] + [("gpu", case) for case in GPU_CASES]


class Filled:
    """One filled-in JobSet, its parts at hand."""

    def __init__(self, kind: str, case: dict[str, str], text: str | None = None):
        [self.jobset] = documents(text or manifest(kind, **case))
        self.spec = self.jobset["spec"]
        [self.replicated] = self.spec["replicatedJobs"]
        self.job = self.replicated["template"]["spec"]
        self.pod = self.job["template"]["spec"]
        [self.container] = self.pod["containers"]

    @property
    def config(self) -> dict[str, str]:
        pairs = [a.removeprefix("--config.").split("=", 1) for a in self.container["args"]]
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and "--" not in pair[0]}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1].values())}")
def filled(request):
    return Filled(*request.param)


@pytest.fixture(params=TPU_CASES, ids=lambda case: "-".join(case.values()))
def tpu(request):
    return Filled("tpu", request.param)


@pytest.fixture(params=GPU_CASES, ids=lambda case: "-".join(case.values()))
def gpu(request):
    return Filled("gpu", request.param)


@pytest.fixture(scope="module")
def queue():
    found = documents((LAUNCH / "gke/queue.yaml").read_text())
    assert [fault for document in found for fault in faults(document)] == []
    return {(d["kind"], d["metadata"]["name"]): d["spec"] for d in found}


def test_every_field_is_known(filled):
    assert faults(filled.jobset) == []


def test_nothing_is_left_to_fill_in(filled):
    assert "${" not in yaml.safe_dump(filled.jobset)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("backoffLimit: 0", "backofLimit: 0", "backofLimit is no field"),
        ("backoffLimit: 0", 'backoffLimit: "0"', "backoffLimit is '0' of a wrong type"),
        ("maxRestarts: 3", "maxRestarts: true", "maxRestarts is True of a wrong type"),
        ("restartPolicy: Never", "restartPolicy: never", "restartPolicy is 'never', none of"),
        ("claimName:", "claim:", "persistentVolumeClaim.claimName is missing"),
        ("v1alpha2", "v1alpha1", "v1alpha1, kind JobSet: not known"),
        ("values: [2, 75]", "values: []", "values is no list"),
        ("limits: {", "limits: [{", "YAML"),
        ("  name: ", "  name: first\n  name: ", "YAML"),
    ],
)
def test_the_reading_is_strict(right, wrong, told):
    text = manifest("gpu")
    assert right in text
    try:
        [document] = documents(text.replace(right, wrong, 1))
        found = faults(document)
    except yaml.YAMLError:
        found = ["YAML"]
    assert any(told in fault for fault in found)


def test_arguments_after_the_kind_reach_delrec(tmp_path):
    odd = ["--config.lm.weights=it's", '--config.data.path=a "b": {c} # $HOME &', "--update"]
    needed = {"NAME": "n", "IMAGE": "i", "CLAIM": "c", "CONFIG": "f.py", "WORKDIR": "/runs/w"}
    command = [str(LAUNCH / "gke/submit.sh"), "gpu", *odd]
    environment = {"PATH": "/usr/bin:/bin", "PRINT": "1", **needed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    args = Filled("gpu", {}, done.stdout).container["args"]
    assert args[:3] == ["run", "--config=f.py", "--workdir=/runs/w"]
    assert args[-3:] == odd


def test_one_pod_a_host_all_at_once(filled):
    assert filled.job["completions"] == filled.job["parallelism"] >= 1
    assert filled.job["completionMode"] == "Indexed"
    assert filled.replicated["replicas"] == 1


def test_the_hosts_chips_make_up_the_slice(tpu):
    sides = tpu.pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = int(tpu.container["resources"]["limits"]["google.com/tpu"])
    assert chips * tpu.job["completions"] == math.prod(map(int, sides))
    several = tpu.job["completions"] > 1
    assert tpu.config["distributed.start"] == ("on" if several else "off")


def test_the_processes_find_pod_0(gpu):
    assert gpu.config["distributed.start"] == "on"
    assert gpu.config["distributed.num_processes"] == str(gpu.job["completions"])
    assert gpu.config["distributed.process_id"] == "$(JOB_COMPLETION_INDEX)"
    host, port = gpu.config["distributed.coordinator"].split(":")
    network = gpu.spec["network"]
    pod = f"{gpu.jobset['metadata']['name']}-{gpu.replicated['name']}-0-0"
    assert network["enableDNSHostnames"]
    assert host == f"{pod}.{network['subdomain']}"
    assert 1024 < int(port) < 65536


def test_the_config_takes_what_the_pods_pass(filled):
    settings = default_config()
    known = leaf_keys(settings.to_dict())
    assert set(filled.config) <= set(known)
    given = {k: v.replace("$(JOB_COMPLETION_INDEX)", "0") for k, v in filled.config.items()}
    settings.update_from_flattened_dict({k: int(v) if v.isdigit() else v for k, v in given.items()})
    assert from_config(settings).distributed.start == filled.config["distributed.start"]


def exit_code_of(error: BaseException) -> int:
    """What `delrec` ends with when this happens."""
    with (
        mock.patch.object(cli, "_dispatch", side_effect=error),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main(["run"])
    return ended.value.code


def what_jobset_does(filled: Filled, code: int, disrupted: bool = False) -> str:
    """The action after a pod ended so, by the rules of batch/v1 and JobSet and their message formats."""
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(filled.job["podFailurePolicy"]["rules"]):
        codes = rule.get("onExitCodes", {"values": []})
        about = ""
        if code in codes["values"]:
            about = f"Container {codes['containerName']} for pod default/x-0 failed with exit code {code}"
        elif disrupted and any(
            c["type"] == "DisruptionTarget" for c in rule.get("onPodConditions", [])
        ):
            about = "Pod default/x-0 has condition DisruptionTarget"
        if about:
            assert rule["action"] == "FailJob"
            reason, message = "PodFailurePolicy", f"{about} matching FailJob rule at index {index}"
            break
    for rule in filled.spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_what_follows_an_exit_code(kind):
    filled = Filled(kind, {})
    again = "RestartJobSetAndIgnoreMaxRestarts"
    assert what_jobset_does(filled, exit_code_of(UserError("a mistake"))) == "FailJobSet"
    assert what_jobset_does(filled, exit_code_of(Preempted("saved"))) == again
    assert what_jobset_does(filled, 75, disrupted=True) == again
    assert what_jobset_does(filled, 137, disrupted=True) == again
    for crash in (1, 69, 134, 137, 139, 255):
        assert what_jobset_does(filled, crash) == "RestartJobSet"
    assert filled.job["backoffLimit"] == 0  # any lost pod ends the Job, and JobSet decides
    assert filled.spec["failurePolicy"]["maxRestarts"] > 0


def test_the_pod_failure_policy_may_be_used(filled):
    """Kubernetes refuses it with another restartPolicy, for 0, and for containers that are not there."""
    assert filled.pod["restartPolicy"] == "Never"
    for rule in filled.job["podFailurePolicy"]["rules"]:
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == filled.container["name"]
            assert 0 not in rule["onExitCodes"]["values"]


def test_a_restart_meets_no_old_pod_and_sigterm_leaves_time_to_save(filled):
    assert filled.spec["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    assert filled.pod["terminationGracePeriodSeconds"] >= 120


def test_both_kinds_fail_alike():
    tpu, gpu = Filled("tpu", {}), Filled("gpu", {})
    assert tpu.spec["failurePolicy"] == gpu.spec["failurePolicy"]
    assert tpu.job["podFailurePolicy"] == gpu.job["podFailurePolicy"]


def test_the_workdir_is_on_the_shared_volume(filled):
    mounts = {mount["name"]: mount["mountPath"] for mount in filled.container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in filled.pod["volumes"]}
    [shared] = [v["name"] for v in filled.pod["volumes"] if "persistentVolumeClaim" in v]
    [workdir] = [a for a in filled.container["args"] if a.startswith("--workdir=")]
    assert workdir.removeprefix("--workdir=").startswith(mounts[shared] + "/")


def test_a_missing_accelerator_is_an_error_of_jax(filled):
    env = {entry["name"]: entry["value"] for entry in filled.container["env"]}
    [resource] = filled.container["resources"]["limits"]
    platform = {"google.com/tpu": "tpu,cpu", "nvidia.com/gpu": "cuda,cpu"}[resource]
    assert env["JAX_PLATFORMS"] == platform


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_the_queue_admits_what_is_submitted(queue, kind):
    filled = Filled(kind, {})
    name = filled.jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    cluster_queue = queue["ClusterQueue", queue["LocalQueue", name]["clusterQueue"]]
    [(resource, amount)] = filled.container["resources"]["limits"].items()
    groups = cluster_queue["resourceGroups"]
    [group] = [g for g in groups if resource in g["coveredResources"]]
    [flavor] = group["flavors"]
    [quota] = flavor["resources"]
    assert quota["name"] == resource
    assert quota["nominalQuota"] >= int(amount) * filled.job["completions"]
    labels = queue["ResourceFlavor", flavor["name"]]["nodeLabels"]
    assert labels.items() <= filled.pod["nodeSelector"].items()
