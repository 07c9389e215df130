"""The launcher pod's manifest, whole, and what it asks for in the cases that differ."""

import pytest

from hotvirt.controllers import launcherpod
from hotvirt.controllers.launcherpod import Settings

MIB = 1 << 20


def test_the_manifest(make):
    vmi = make.vmi(
        "web",
        volumes=[
            {"name": "root", "persistentVolumeClaim": {"claimName": "web-root"}},
            {"name": "late", "persistentVolumeClaim": {"claimName": "late", "hotpluggable": True}},
        ],
        nodeSelector={"disk": "fast"}, tolerations=[{"key": "a", "operator": "Exists"}],
    )  # fmt: skip
    vmi["metadata"]["labels"] = {"app": "web", "kubevirt.io/vm": "web"}
    vmi["metadata"]["annotations"] = {
        "team": "shop", "kubectl.kubernetes.io/last-applied-configuration": "{}", "hotvirt.io/start-revision": "r",
    }  # fmt: skip
    assert launcherpod.render(vmi, Settings()) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": launcherpod.name(vmi),
            "namespace": "default",
            "labels": {
                "app": "web", "kubevirt.io/vm": "web", "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "u-1",
                "vm.kubevirt.io/name": "web", "vmi.kubevirt.io/id": "web",
            },
            "annotations": {
                "team": "shop", "kubectl.kubernetes.io/default-container": "compute",
                "kubevirt.io/domain": "web", "kubevirt.io/memory-overhead-bytes": str(108 * MIB),
            },
            "ownerReferences": [
                {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "web", "uid": "u-1",
                 "controller": True, "blockOwnerDeletion": True}
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": "kubevirt.io/virtual-machine-unpaused"}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 60,
            "nodeSelector": {"kubevirt.io/schedulable": "true", "disk": "fast"},
            "hostname": "web",
            "containers": [
                {
                    "name": "compute",
                    "image": "hotvirt/launcher",
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": {"cpu": "100m", "memory": "1132Mi"}},
                    "volumeMounts": [{"name": "root", "mountPath": "/var/run/kubevirt-private/vmi-disks/root"}],
                }
            ],
            "initContainers": [
                {
                    "name": "guest-console-log",
                    "image": "hotvirt/launcher",
                    "imagePullPolicy": "IfNotPresent",
                    "restartPolicy": "Always",
                    "resources": {"requests": {"cpu": "0", "memory": "0"}},
                }
            ],
            "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "web-root"}}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
        },
    }  # fmt: skip


LOGGED = {
    "silent": (None, {}, True),
    "asked for": (True, {"virtualMachineOptions": {"disableSerialConsoleLog": {}}}, True),
    "declined": (False, {}, False),
    "nowhere": (None, {"virtualMachineOptions": {"disableSerialConsoleLog": {}}}, False),
}


@pytest.mark.parametrize(("asked", "configuration", "expected"), LOGGED.values(), ids=LOGGED)
def test_what_the_guest_prints_has_a_container_to_ask_for_it(asked, configuration, expected, make):
    vmi = make.vmi("web", domain={"devices": {"logSerialConsole": asked}})
    settings = Settings.of({"spec": {"configuration": configuration}})
    assert ("initContainers" in launcherpod.render(vmi, settings)["spec"]) is expected


def test_the_pod_is_called_as_its_guest_is(make):
    assert launcherpod.render(make.vmi("web.prod"), Settings())["spec"]["hostname"] == "web"
    assert launcherpod.render(make.vmi("web.prod", hostname="shop"), Settings())["spec"]["hostname"] == "shop"


def test_ports_of_the_interfaces_are_the_pods(make):
    ports = [{"name": "http", "port": 80}, {"port": 53, "protocol": "udp"}, {"name": "again", "port": 80}]
    vmi = make.vmi(domain={"devices": {"interfaces": [{"name": "default", "ports": ports}]}})
    [container] = launcherpod.render(vmi, launcherpod.Settings())["spec"]["containers"]
    assert container["ports"] == [
        {"name": "http", "containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"},
    ]  # fmt: skip


def test_the_name_is_the_same_for_the_same_instance_and_another_for_the_next(make):
    assert launcherpod.name(make.vmi(uid="a")) == launcherpod.name(make.vmi(uid="a"))
    assert launcherpod.name(make.vmi(uid="a")) != launcherpod.name(make.vmi(uid="b"))
    assert launcherpod.name(make.vmi(uid="a")).startswith("virt-launcher-web-")


@pytest.mark.parametrize(
    ("domain", "settings", "requests", "limits"),
    [
        ({"memory": {"guest": "1Gi"}, "cpu": {"sockets": 2, "cores": 2}}, Settings(),
         {"cpu": "400m", "memory": "1138Mi"}, None),
        ({"memory": {"guest": "1Gi"}, "devices": {"autoattachGraphicsDevice": False}}, Settings(),
         {"cpu": "100m", "memory": "1116Mi"}, None),
        ({"memory": {"guest": "1Gi"}, "firmware": {"kernelBoot": {"container": {"image": "hotvirt/tiny"}}}}, Settings(),
         {"cpu": "100m", "memory": "1228Mi"}, None),
        ({"memory": {"guest": "1Gi"}}, Settings(memory_overcommit=200, cpu_allocation_ratio=5),
         {"cpu": "200m", "memory": "620Mi"}, None),
        ({"memory": {"guest": "1Gi"}, "resources": {"requests": {"memory": "256Mi", "cpu": "2"},
                                                    "limits": {"memory": "1Gi", "cpu": "4", "example.com/gpu": 1}}},
         Settings(), {"cpu": "2", "memory": "370Mi"}, {"cpu": "4", "memory": "1138Mi", "example.com/gpu": "1"}),
        ({"memory": {"guest": "1Gi"}, "resources": {"overcommitGuestOverhead": True}}, Settings(),
         {"cpu": "100m", "memory": "1Gi"}, None),
        ({"memory": {"guest": "1Gi"}, "cpu": {"sockets": 3, "dedicatedCpuPlacement": True}}, Settings(),
         {"cpu": "3", "memory": "1136Mi"}, None),
        ({"memory": {"guest": "1Gi"},
          "cpu": {"sockets": 3, "dedicatedCpuPlacement": True, "isolateEmulatorThread": True},
          "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}},
         Settings(), {"cpu": "4", "memory": "1136Mi"}, {"cpu": "4"}),
    ],
    ids=["vcpus", "headless", "kernel", "overcommit", "explicit", "no-overhead", "dedicated", "isolated"],
)  # fmt: skip
def test_what_the_pod_asks_for(domain, settings, requests, limits):
    resources = launcherpod.resources({"domain": domain}, settings)
    assert resources["requests"] == requests
    assert resources.get("limits") == limits


def growing(make, guest, *, current=None):
    vmi = make.vmi(domain={"memory": {"guest": "1Gi"}, "cpu": {"sockets": 1}})
    pod = launcherpod.render(vmi, Settings())
    vmi["spec"]["domain"]["memory"]["guest"] = guest
    if current:
        vmi["status"] = {"memory": {"guestCurrent": current}}
    return launcherpod.resize(vmi, pod, Settings())


def test_the_pod_follows_the_instance_up_at_once_and_down_only_with_the_guest(make):
    assert growing(make, "1024Mi") is None
    assert growing(make, "2Gi")[1]["value"]["requests"] == {"cpu": "100m", "memory": "2158Mi"}
    assert growing(make, "512Mi")[1]["value"]["requests"]["memory"] == "619Mi"
    assert growing(make, "512Mi", current="768Mi")[1]["value"]["requests"]["memory"] == "875Mi"


def test_settings_come_from_the_kubevirt_object():
    kubevirt = {"spec": {"configuration": {"developerConfiguration": {"memoryOvercommit": 150}}}}
    assert Settings.of(kubevirt) == Settings(memory_overcommit=150)
    assert Settings.of(None) == Settings()
