"""What Deployments and the like say where nobody said anything."""

from hotvirt.server import workloads


def test_what_is_said_stays() -> None:
    container = {"name": "c", "image": "i:1", "imagePullPolicy": "Never"}
    spec = {"replicas": 0, "strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [container]}}}
    made = workloads.complete({"kind": "Deployment", "spec": spec}, workloads.USUAL["apps/deployments"])["spec"]
    assert (made["replicas"], made["strategy"], made["revisionHistoryLimit"]) == (0, {"type": "Recreate"}, 10)
    inner = made["template"]["spec"]
    assert (inner["dnsPolicy"], inner["containers"][0]["imagePullPolicy"]) == ("ClusterFirst", "Never")
    assert "serviceAccountName" not in inner
    assert spec["template"] == {"spec": {"containers": [container]}}, "what was sent is not written into"


def test_what_makes_no_sense_is_left_to_validation() -> None:
    assert workloads.complete({"spec": []}, workloads.USUAL["batch/cronjobs"]) == {"spec": []}
    spec = workloads.complete({"spec": {"template": 5}}, workloads.USUAL["apps/replicasets"])["spec"]
    assert spec == {"template": 5, "replicas": 1}
