"""A strict reading of the manifests: keys given twice, unknown fields, wrong types and unknown words are told.

The tables hold what the manifests use, and a little more, of the published schemas: jobset.x-k8s.io/v1alpha2,
kueue.x-k8s.io/v1beta2 (v1beta1 is no longer served from Kueue 0.20 on), batch/v1 and core/v1 of Kubernetes.
"""

from dataclasses import dataclass
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; plain YAML lets the last one win."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Table:
    """Fields of an object and those that must be there."""

    fields: dict[str, Any]
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class MapOf:
    """Free keys, values of one type."""

    value: Any


def one_of(*words: str) -> frozenset[str]:
    return frozenset(words)


QUANTITY = (int, str)
METADATA = Table(
    {"name": str, "namespace": str, "labels": MapOf(str), "annotations": MapOf(str)}, ("name",)
)

ON_EXIT_CODES = Table(
    {"containerName": str, "operator": one_of("In", "NotIn"), "values": [int]},
    ("operator", "values"),
)
ON_POD_CONDITION = Table(
    {"type": str, "status": one_of("True", "False", "Unknown")}, ("type", "status")
)
POD_FAILURE_RULE = Table(
    {
        "action": one_of("FailJob", "FailIndex", "Ignore", "Count"),
        "onExitCodes": ON_EXIT_CODES,
        "onPodConditions": [ON_POD_CONDITION],
    },
    ("action",),
)
SECURITY = Table(
    {
        "runAsUser": int,
        "runAsGroup": int,
        "runAsNonRoot": bool,
        "fsGroup": int,
        "fsGroupChangePolicy": one_of("OnRootMismatch", "Always"),
    }
)
CONTAINER = Table(
    {
        "name": str,
        "image": str,
        "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
        "command": [str],
        "args": [str],
        "workingDir": str,
        "env": [Table({"name": str, "value": str}, ("name",))],
        "ports": [Table({"containerPort": int, "name": str}, ("containerPort",))],
        "resources": Table({"limits": MapOf(QUANTITY), "requests": MapOf(QUANTITY)}),
        "volumeMounts": [
            Table(
                {"name": str, "mountPath": str, "subPath": str, "readOnly": bool},
                ("name", "mountPath"),
            )
        ],
    },
    ("name", "image"),
)
VOLUME = Table(
    {
        "name": str,
        "persistentVolumeClaim": Table({"claimName": str, "readOnly": bool}, ("claimName",)),
        "emptyDir": Table({"medium": one_of("", "Memory"), "sizeLimit": QUANTITY}),
    },
    ("name",),
)
POD = Table(
    {
        "restartPolicy": one_of("Always", "OnFailure", "Never"),
        "terminationGracePeriodSeconds": int,
        "nodeSelector": MapOf(str),
        "securityContext": SECURITY,
        "serviceAccountName": str,
        "subdomain": str,
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    },
    ("restartPolicy", "containers"),
)
JOB = Table(
    {
        "parallelism": int,
        "completions": int,
        "completionMode": one_of("NonIndexed", "Indexed"),
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "podFailurePolicy": Table({"rules": [POD_FAILURE_RULE]}, ("rules",)),
        "template": Table({"metadata": METADATA, "spec": POD}, ("spec",)),
    },
    ("template",),
)
FAILURE_RULE = Table(
    {
        "name": str,
        "action": one_of(
            "FailJobSet",
            "RestartJobSet",
            "RestartJobSetAndIgnoreMaxRestarts",
            "RestartJob",
            "RestartJobAndIgnoreMaxRestarts",
        ),
        "onJobFailureReasons": [str],
        "onJobFailureMessagePatterns": [str],
        "targetReplicatedJobs": [str],
    },
    ("name", "action"),
)
JOBSET = Table(
    {
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
        "network": Table(
            {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool}
        ),
        "failurePolicy": Table(
            {
                "maxRestarts": int,
                "restartStrategy": one_of("Recreate", "BlockingRecreate", "InPlaceRestart"),
                "rules": [FAILURE_RULE],
            }
        ),
        "replicatedJobs": [
            Table(
                {"name": str, "replicas": int, "template": Table({"spec": JOB}, ("spec",))},
                ("name", "template"),
            )
        ],
    },
    ("replicatedJobs",),
)
RESOURCE_GROUP = Table(
    {
        "coveredResources": [str],
        "flavors": [
            Table(
                {
                    "name": str,
                    "resources": [
                        Table({"name": str, "nominalQuota": QUANTITY}, ("name", "nominalQuota"))
                    ],
                },
                ("name", "resources"),
            )
        ],
    },
    ("coveredResources", "flavors"),
)
CLUSTER_QUEUE = Table(
    {
        "namespaceSelector": Table({"matchLabels": MapOf(str)}),
        "queueingStrategy": one_of("StrictFIFO", "BestEffortFIFO"),
        "cohortName": str,
        "resourceGroups": [RESOURCE_GROUP],
    },
    ("namespaceSelector", "resourceGroups"),
)

_KUEUE = "kueue.x-k8s.io/v1beta2"
SPECS = {
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): JOBSET,
    (_KUEUE, "ResourceFlavor"): Table({"nodeLabels": MapOf(str)}),
    (_KUEUE, "ClusterQueue"): CLUSTER_QUEUE,
    (_KUEUE, "LocalQueue"): Table({"clusterQueue": str}, ("clusterQueue",)),
}


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML file.

    Raises:
      yaml.YAMLError: no YAML, or a key given twice.
    """
    return list(yaml.load_all(text, _Loader))


def faults(document: dict[str, Any]) -> list[str]:
    """What the cluster would refuse, each with its place."""
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind not in SPECS:
        return [f"apiVersion {kind[0]}, kind {kind[1]}: not known"]
    needed = ("apiVersion", "kind", "metadata", "spec")
    fields = {"apiVersion": str, "kind": str, "metadata": METADATA, "spec": SPECS[kind]}
    return _faults(document, Table(fields, needed), str(kind[1]))


def _faults(value: Any, schema: Any, place: str) -> list[str]:
    if isinstance(schema, Table | MapOf):
        return _faults_in_object(value, schema, place)
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{place} is no list with something in it"]
        return [f for i, v in enumerate(value) for f in _faults(v, schema[0], f"{place}[{i}]")]
    if isinstance(schema, frozenset):
        return [] if value in schema else [f"{place} is {value!r}, none of {sorted(schema)}"]
    fits = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
    return [] if fits else [f"{place} is {value!r} of a wrong type"]


def _faults_in_object(value: Any, schema: Table | MapOf, place: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{place} is {value!r}, no object"]
    if isinstance(schema, MapOf):
        return [f for k, v in value.items() for f in _faults(v, schema.value, f"{place}.{k}")]
    found = [f"{place}.{key} is missing" for key in schema.needed if key not in value]
    for key, inner in value.items():
        if key in schema.fields:
            found += _faults(inner, schema.fields[key], f"{place}.{key}")
        else:
            found.append(f"{place}.{key} is no field")
    return found
