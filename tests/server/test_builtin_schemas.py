"""The built-in kinds' schemas against the official client's models: no field missing, none made up."""

from typing import Any

import pytest

from hotvirt.server import builtin_schemas
from hotvirt.server.builtin_notation import read
from hotvirt.server.schema import compile_schema

MODELS = {
    ("v1", "Pod"): "V1Pod",
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "Node"): "V1Node",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "PersistentVolume"): "V1PersistentVolume",
    ("v1", "Secret"): "V1Secret",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "Service"): "V1Service",
    ("v1", "Event"): "CoreV1Event",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("v1", "LimitRange"): "V1LimitRange",
    ("events.k8s.io/v1", "Event"): "EventsV1Event",
    ("apps/v1", "ControllerRevision"): "V1ControllerRevision",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("batch/v1", "Job"): "V1Job",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "V1ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "V1ClusterRoleBinding",
    ("coordination.k8s.io/v1", "Lease"): "V1Lease",
    ("storage.k8s.io/v1", "StorageClass"): "V1StorageClass",
    ("scheduling.k8s.io/v1", "PriorityClass"): "V1PriorityClass",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("discovery.k8s.io/v1", "EndpointSlice"): "V1EndpointSlice",
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"): "V1ValidatingWebhookConfiguration",
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): "V1CustomResourceDefinition",
}
_SCALARS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "datetime": "string",
    "bytes": "string",
}


def differences(schema: dict[str, Any], type_name: str, path: str) -> list[str]:
    from kubernetes.client import models

    if schema.get("x-kubernetes-int-or-string") or ("type" not in schema):
        return []
    if schema["type"] == "object" and not schema.keys() & {"properties", "additionalProperties"}:
        return []  # kept as it is
    if type_name.startswith("List["):
        if schema["type"] != "array":
            return [f"{path} is a list"]
        return differences(schema["items"], type_name[5:-1], path + "[]")
    if type_name.startswith("Dict["):
        return [] if schema["type"] == "object" and "additionalProperties" in schema else [f"{path} is a map"]
    if type_name in _SCALARS:
        return [] if schema["type"] == _SCALARS[type_name] else [f"{path} is {type_name}"]
    if type_name == "object" or type_name == "V1ObjectMeta":
        return []
    model = getattr(models, type_name)
    fields = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    found = [f"{path}.{name} is made up" for name in schema["properties"].keys() - fields.keys()]
    if not schema.get("x-kubernetes-preserve-unknown-fields"):
        found += [f"{path}.{name} is missing" for name in fields.keys() - schema["properties"].keys()]
    for name in schema["properties"].keys() & fields.keys():
        found += differences(schema["properties"][name], fields[name], f"{path}.{name}")
    return found


@pytest.mark.parametrize(("api_version", "kind"), MODELS)
def test_the_fields_are_kubernetes_own(api_version: str, kind: str) -> None:
    schema = builtin_schemas.schema_for(api_version, kind)
    assert sorted(differences(schema, MODELS[api_version, kind], kind)) == []


def test_every_schema_compiles_and_describes_each_field() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> list[str]:
        found = [path] if not schema.get("description") else []
        for name, below in (schema.get("properties") or {}).items():
            found += undescribed(below, f"{path}.{name}")
        if (schema.get("items") or {}).get("properties"):
            found += [p for n, b in schema["items"]["properties"].items() for p in undescribed(b, f"{path}[].{n}")]
        return found

    for kind, schema in builtin_schemas._all().items():
        assert undescribed(schema, kind) == []
        compile_schema(schema)


def test_a_kind_without_description_keeps_everything() -> None:
    schema = compile_schema(builtin_schemas.schema_for("example.com/v1", "Whatever"))
    doc = {"apiVersion": "x/v1", "kind": "Whatever", "metadata": {"name": "a"}, "spec": {"x": [1]}}
    assert schema.prune(doc) == (doc, ())
    assert schema.validate(doc) == []


def test_typos_are_found_and_good_pods_pass() -> None:
    schema = compile_schema(builtin_schemas.schema_for("v1", "Pod"))
    pod: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "creationTimestamp": None},
        "spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                            "resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}],
        },
        "status": {},
    }  # fmt: skip
    kept, unknown = schema.prune(pod)
    assert unknown == ()
    assert schema.validate(schema.default(kept)) == []
    assert schema.default(kept)["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    pod["spec"]["containers"][0]["imagee"] = "x"
    assert schema.prune(pod)[1] == ("spec.containers[0].imagee",)


@pytest.mark.parametrize("text", ["A", "A obj\n  b what text", "A thing text"])
def test_the_notation_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        read(text)
