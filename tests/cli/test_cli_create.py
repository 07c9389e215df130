"""`create`: the manifest for the options, as virtctl's documentation describes them, and what is refused."""

import base64

import pytest
import yaml

IMAGE = "--volume-containerdisk=src:hotvirt/debian:12"


@pytest.fixture
def made(run, api):
    def make(*words):
        code, out, err = run("create", *words)
        assert code == 0, err
        assert api.asked == [], "create asks no API"
        return yaml.safe_load(out)

    return make


def inner(vm):
    return vm["spec"]["template"]["spec"]


def test_a_vm_by_default(made):
    vm = made("vm")
    assert vm["metadata"]["name"].startswith("vm-")
    assert vm["spec"]["runStrategy"] == "Always"
    assert inner(vm) == {
        "domain": {"devices": {}, "memory": {"guest": "512Mi"}},
        "terminationGracePeriodSeconds": 180,
    }


def test_a_vm_with_a_bit_of_everything(made):
    vm = made(
        "vm", "--name=web", "-n", "prod", "--run-strategy=halted", "--memory=1Gi", "--termination-grace-period=5",
        "--volume-containerdisk=src:example/image",
        "--volume-pvc=src:data,bootorder:2,name:disk", "--volume-import=type:blank,size:1Gi,name:empty",
        "--volume-sysprep=src:answers,type:secret",
    )  # fmt: skip
    assert vm["metadata"] == {"name": "web", "namespace": "prod"}
    assert vm["spec"]["runStrategy"] == "Halted"
    assert inner(vm)["domain"]["devices"]["disks"] == [{"name": "disk", "bootOrder": 2}]
    assert inner(vm)["volumes"] == [
        {"name": "web-containerdisk-0", "containerDisk": {"image": "example/image"}},
        {"name": "disk", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "empty", "dataVolume": {"name": "empty"}},
        {"name": "sysprepdisk", "sysprep": {"secret": {"name": "answers"}}},
    ]
    storage = {"resources": {"requests": {"storage": "1Gi"}}}
    assert vm["spec"]["dataVolumeTemplates"] == [
        {"metadata": {"name": "empty"}, "spec": {"source": {"blank": {}}, "storage": storage}}
    ]


def test_images_that_hotvirt_builds_are_on_virtio_as_their_kernel_knows_no_sata(made):
    vm = made("vm", "--name=web", IMAGE + ",bootorder:1", "--user=ada")
    assert inner(vm)["domain"]["devices"]["disks"] == [
        {"name": "web-containerdisk-0", "bootOrder": 1, "disk": {"bus": "virtio"}},
        {"name": "cloudinitdisk", "disk": {"bus": "virtio"}},
    ]
    assert inner(made("vm", IMAGE, "--preference=linux"))["domain"]["devices"] == {}


@pytest.mark.parametrize(
    ("params", "spec"),
    [
        ("type:http,url:https://a/b.qcow2,extraheaders:x;y", {"source": {"http": {
            "url": "https://a/b.qcow2", "extraHeaders": ["x", "y"]}}}),
        ("type:registry,url:docker://a/b:c,pullmethod:node", {"source": {"registry": {
            "url": "docker://a/b:c", "pullMethod": "node"}}}),
        ("type:s3,url:s3://a,secretref:s", {"source": {"s3": {"url": "s3://a", "secretRef": "s"}}}),
        ("type:gcs,url:gs://a", {"source": {"gcs": {"url": "gs://a"}}}),
        ("type:imageio,url:https://a,diskid:1", {"source": {"imageio": {"url": "https://a", "diskId": "1"}}}),
        ("type:pvc,src:ns/data", {"source": {"pvc": {"namespace": "ns", "name": "data"}}}),
        ("type:snapshot,src:ns/data", {"source": {"snapshot": {"namespace": "ns", "name": "data"}}}),
        ("type:ds,src:data", {"sourceRef": {"kind": "DataSource", "name": "data"}}),
    ],
)  # fmt: skip
def test_every_source_of_an_import(made, params, spec):
    templates = made("vm", f"--volume-import={params},size:2Gi,name:disk")["spec"]["dataVolumeTemplates"]
    assert templates == [
        {"metadata": {"name": "disk"}, "spec": {**spec, "storage": {"resources": {"requests": {"storage": "2Gi"}}}}}
    ]


def test_instance_type_and_preference(made):
    vm = made("vm", "--instancetype=virtualmachineinstancetype/small", "--preference=linux", IMAGE)
    assert vm["spec"]["instancetype"] == {"kind": "virtualmachineinstancetype", "name": "small"}
    assert vm["spec"]["preference"] == {"name": "linux"}
    assert "memory" not in inner(vm)["domain"]


@pytest.mark.parametrize(
    ("words", "instancetype", "has_memory"),
    [
        (["--volume-pvc=src:data"], {"inferFromVolume": "data", "inferFromVolumeFailurePolicy": "Ignore"}, True),
        (["--volume-pvc=src:data", "--infer-instancetype"], {"inferFromVolume": "data"}, False),
        (["--volume-pvc=src:data", "--infer-instancetype=false"], None, True),
        (["--volume-pvc=src:data", "--memory=1Gi"], None, True),
        ([IMAGE, "--volume-pvc=src:data", "--infer-instancetype-from=data"], {"inferFromVolume": "data"}, False),
        ([IMAGE], None, True),
    ],
)
def test_what_is_inferred_from_a_volume(made, words, instancetype, has_memory):
    vm = made("vm", *words)
    assert vm["spec"].get("instancetype") == instancetype
    assert ("memory" in inner(vm)["domain"]) is has_memory


def test_cloud_init_for_a_user(made, tmp_path):
    (tmp_path / "password").write_text("secret\n")
    vm = made("vm", "--user=ada", f"--password-file={tmp_path}/password", "--ssh-key=ssh-rsa A", "--ssh-key=ssh-rsa B")
    [seed] = inner(vm)["volumes"]
    text = seed["cloudInitNoCloud"]["userData"]
    assert seed["name"] == "cloudinitdisk"
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {
        "user": "ada", "password": "secret", "chpasswd": {"expire": False},
        "ssh_authorized_keys": ["ssh-rsa A", "ssh-rsa B"],
    }  # fmt: skip


def test_cloud_init_ready_made(made):
    data = base64.b64encode(b"#cloud-config").decode()
    vm = made("vm", "--cloud-init=configdrive", f"--cloud-init-user-data={data}", f"--cloud-init-network-data={data}")
    source = {"userDataBase64": data, "networkDataBase64": data}
    assert inner(vm)["volumes"] == [{"name": "cloudinitdisk", "cloudInitConfigDrive": source}]
    assert "volumes" not in inner(made("vm", "--cloud-init=none", "--user=ada"))


@pytest.mark.parametrize(
    ("params", "credential"),
    [
        ("src:keys,user:ada", {"sshPublicKey": {"propagationMethod": {"qemuGuestAgent": {"users": ["ada"]}}}}),
        ("type:ssh,src:keys,method:nocloud", {"sshPublicKey": {"propagationMethod": {"noCloud": {}}}}),
        ("src:keys,method:configdrive", {"sshPublicKey": {"propagationMethod": {"configDrive": {}}}}),
        ("type:password,src:keys", {"userPassword": {"propagationMethod": {"qemuGuestAgent": {}}}}),
    ],
)
def test_access_credentials(made, params, credential):
    [found] = inner(made("vm", f"--access-cred={params}"))["accessCredentials"]
    [given] = found.values()
    assert given.pop("source") == {"secret": {"secretName": "keys"}}
    assert found == credential


def test_older_options_are_their_newer_form(made, run):
    old = made("vm", "--name=a", "--volume-blank=name:x,size:1Gi")
    assert old == made("vm", "--name=a", "--volume-import=type:blank,name:x,size:1Gi")
    assert "--volume-import=type:blank" in run("create", "vm", "--volume-blank=name:x,size:1Gi")[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--memory=lots"], "2Gi"),
        (["--memory=1Gi", "--instancetype=small"], "exclude each other"),
        (["--run-strategy=Sometimes"], "rerunonfailure"),
        (["--instancetype=pod/small"], "virtualmachineinstancetype"),
        (["--volume-pvc=data"], "NAME:VALUE"),
        (["--volume-pvc=source:data"], "it takes src, name, bootorder"),
        (["--volume-containerdisk=hotvirt/debian:12"], "write src:hotvirt/debian:12"),
        (["--volume-pvc=name:data"], "needs src"),
        (["--volume-pvc=src:ns/data"], "write src:data"),
        (["--volume-pvc=src:data", "--volume-pvc=src:data"], "another name"),
        (["--volume-pvc=src:a,bootorder:1", "--volume-pvc=src:b,bootorder:1"], "bootorder:1 is a's already"),
        (["--volume-pvc=src:a,bootorder:0"], "from 1 up"),
        (["--volume-pvc=src:a,name:A_b"], "cannot name a volume"),
        (["--volume-import=type:floppy,size:1Gi"], "blank"),
        (["--volume-import=type:blank"], "needs size"),
        (["--volume-import=type:pvc,src:data"], "src:NAMESPACE/data"),
        (["--volume-import=type:http,size:1Gi"], "needs url"),
        (["--volume-import=type:blank,size:1Gi,url:x"], "'url' is none of its parameters"),
        (["--volume-import=type:registry,size:1Gi"], "one of url and imagestream"),
        (["--access-cred=src:keys"], "add user:NAME"),
        (["--access-cred=type:password,src:keys,user:a"], "leave out user"),
        (["--access-cred=src:k,method:configdrive", "--cloud-init=nocloud"], "make both the same"),
        (["--cloud-init-user-data=eA==", "--user=ada"], "exclude each other"),
        (["--infer-instancetype"], "no volume to infer from"),
        ([IMAGE, "--infer-preference"], "is no claim"),
        (["--password-file=/nowhere"], "can't be read"),
        (["--user=ada", "--ssh-key="], "ssh-keygen"),
    ],
)
def test_what_is_refused(run, words, says):
    code, out, err = run("create", "vm", *words)
    assert (code, out) == (2, "")
    assert says in err


def test_instance_types(made, run):
    made_type = made("instancetype", "--cpu=2", "--memory=1Gi", "--gpu=name:a,devicename:b", "--iothreadspolicy=auto")
    assert made_type["kind"] == "VirtualMachineClusterInstancetype"
    assert made_type["spec"] == {
        "cpu": {"guest": 2}, "memory": {"guest": "1Gi"}, "gpus": [{"name": "a", "deviceName": "b"}],
        "ioThreadsPolicy": "auto",
    }  # fmt: skip
    assert made("instancetype", "--cpu=1", "--memory=1Gi", "-n", "prod")["kind"] == "VirtualMachineInstancetype"
    assert "--cpu" in run("create", "instancetype", "--memory=1Gi")[2]


def test_preferences(made):
    preference = made("preference", "--namespaced", "--name=p", "--cpu-topology=cores", "--machine-type=q35",
                      "--volume-storage-class=fast")  # fmt: skip
    assert (preference["kind"], preference["metadata"]) == ("VirtualMachinePreference", {"name": "p"})
    assert preference["spec"] == {
        "cpu": {"preferredCPUTopology": "cores"}, "machine": {"preferredMachineType": "q35"},
        "volumes": {"preferredStorageClassName": "fast"},
    }  # fmt: skip
    assert made("preference")["metadata"]["name"].startswith("clusterpreference-")


def test_clones(made, run):
    clone = made("clone", "--source-name=a", "--source-type=VMSnapshot", "--target-name=b", "--label-filter=*",
                 "--template-label-filter=!x", "--new-mac-address=default:02-00", "--new-smbios-serial=s")  # fmt: skip
    assert clone["spec"] == {
        "source": {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "a"},
        "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "b"},
        "labelFilters": ["*"], "template": {"labelFilters": ["!x"]}, "newMacAddresses": {"default": "02-00"},
        "newSMBiosSerial": "s",
    }  # fmt: skip
    assert "is not vm" in run("create", "clone", "--source-name=a", "--target-type=snapshot")[2]
