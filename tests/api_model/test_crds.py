"""What hotvirt installs is what an API server takes, and shows KubeVirt's columns."""

from pathlib import Path

import pytest
import yaml

from hotvirt.api import crds, explain, instancetype, schemas, validation, validation_sets
from hotvirt.server import crd as server_crd
from hotvirt.server.schema import compile_schema

CRDS = {each["spec"]["names"]["kind"]: each for each in crds.crds()}
EXAMPLES = Path(__file__).parents[2] / "examples"


def version(kind, name=None):
    """By name, or the one that is stored."""
    return next(v for v in CRDS[kind]["spec"]["versions"] if v["name"] == name or (name is None and v["storage"]))


def columns(kind):
    found = version(kind).get("additionalPrinterColumns", ())
    return [(c["name"], c["type"], c["jsonPath"], c.get("priority", 0)) for c in found]


@pytest.fixture(scope="module")
def vm_schema():
    return compile_schema(version("VirtualMachine")["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("kind", CRDS)
def test_the_server_takes_it(kind):
    assert server_crd.check(CRDS[kind]) == []


def test_each_is_made_once_and_shares_nothing_that_differs():
    assert crds.crds() is crds.crds()
    assert CRDS.keys() == NAMES.keys()


SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.labelSelector",
}
V1, POOL, SIZE = ("kubevirt.io", ["v1", "v1alpha3"]), ("pool.kubevirt.io", ["v1beta1", "v1alpha1"]), (
    "instancetype.kubevirt.io", ["v1beta1"])  # fmt: skip
SNAP = ("snapshot.kubevirt.io", ["v1beta1", "v1alpha1"])
NAMES = {
    "VirtualMachine": (V1, "virtualmachines", ["vm", "vms"], {"status": {}}),
    "VirtualMachineInstance": (V1, "virtualmachineinstances", ["vmi", "vmis"], None),
    "KubeVirt": (V1, "kubevirts", ["kv", "kvs"], {"status": {}}),
    "VirtualMachineInstanceReplicaSet": (
        V1, "virtualmachineinstancereplicasets", ["vmirs", "vmirss"], {"status": {}, "scale": SCALE}),
    "VirtualMachinePool": (POOL, "virtualmachinepools", ["vmpool", "vmpools"], {"status": {}, "scale": SCALE}),
    "VirtualMachineInstanceMigration": (V1, "virtualmachineinstancemigrations", ["vmim", "vmims"], {"status": {}}),
    "MigrationPolicy": (("migrations.kubevirt.io", ["v1alpha1"]), "migrationpolicies", [], {"status": {}}),
    "VirtualMachineInstancetype": (
        SIZE, "virtualmachineinstancetypes", ["vminstancetype", "vminstancetypes", "vmf", "vmfs"], None),
    "VirtualMachineClusterInstancetype": (
        SIZE, "virtualmachineclusterinstancetypes",
        ["vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"], None),
    "VirtualMachinePreference": (SIZE, "virtualmachinepreferences", ["vmpref", "vmprefs", "vmp", "vmps"], None),
    "VirtualMachineClusterPreference": (SIZE, "virtualmachineclusterpreferences", ["vmcp", "vmcps"], None),
    "VirtualMachineSnapshot": (SNAP, "virtualmachinesnapshots", ["vmsnapshot", "vmsnapshots"], {"status": {}}),
    "VirtualMachineSnapshotContent": (
        SNAP, "virtualmachinesnapshotcontents", ["vmsnapshotcontent", "vmsnapshotcontents"], {"status": {}}),
    "VirtualMachineRestore": (SNAP, "virtualmachinerestores", ["vmrestore", "vmrestores"], {"status": {}}),
    "VirtualMachineClone": (
        ("clone.kubevirt.io", ["v1beta1", "v1alpha1"]), "virtualmachineclones", ["vmclone", "vmclones"],
        {"status": {}}),
    "VirtualMachineExport": (
        ("export.kubevirt.io", ["v1", "v1beta1"]), "virtualmachineexports", ["vmexport", "vmexports"],
        {"status": {}}),
    **{
        kind: (("cdi.kubevirt.io", ["v1beta1"]), f"{kind.lower()}s", short, {"status": {}})
        for kind, short in (
            ("DataVolume", ["dv", "dvs"]), ("DataSource", ["das"]), ("StorageProfile", []), ("CDI", ["cdi", "cdis"]),
            ("CDIConfig", []),
        )
    },
    **{
        kind: (("cdi.kubevirt.io", ["v1beta1"]), f"{kind.lower()}s", [], None)
        for kind in ("VolumeImportSource", "VolumeUploadSource", "VolumeCloneSource")
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CRDS)
def test_names_and_subresources_are_kubevirts(kind):
    (group, versions), plural, short_names, subresources = NAMES[kind]
    spec = CRDS[kind]["spec"]
    cluster = "Cluster" in kind or kind in ("MigrationPolicy", "StorageProfile", "CDI", "CDIConfig")
    assert (spec["names"]["plural"], spec["names"]["shortNames"]) == (plural, short_names)
    assert (spec["scope"], spec["names"].get("categories")) == (
        ("Cluster", None) if cluster else ("Namespaced", ["all"])
    )
    assert CRDS[kind]["metadata"]["name"] == f"{plural}.{group}"
    assert [each["name"] for each in spec["versions"]] == versions
    assert [each.get("subresources") for each in spec["versions"]] == [subresources] * len(versions)


@pytest.mark.parametrize("kind", CRDS)
def test_the_new_version_is_stored_and_the_old_one_warns(kind):
    group, (new, *older) = NAMES[kind][0]
    assert version(kind)["name"] == new
    assert version(kind).get("deprecated") is None
    for name in older:
        old = version(kind, name)
        assert (old["served"], old["storage"], old["deprecated"]) == (True, False, True)
        assert old["deprecationWarning"] == f"{group}/{name} {kind} is deprecated: use {group}/{new}"


def test_columns_are_kubevirts():
    age = ("Age", "date", ".metadata.creationTimestamp", 0)
    ready = ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0)
    found = columns("VirtualMachine")
    assert found[:3] == [age, ("Status", "string", ".status.printableStatus", 0), ready]
    assert [(name, priority) for name, _, _, priority in found[3:]] == [("Memory", 1), ("CPUs", 1), ("Pending", 1)], (
        "ours come after KubeVirt's, and with -o wide alone"
    )
    assert columns("VirtualMachineInstance") == [
        age,
        ("Phase", "string", ".status.phase", 0),
        ("IP", "string", ".status.interfaces[0].ipAddress", 0),
        ("NodeName", "string", ".status.nodeName", 0),
        ready,
        ("Live-Migratable", "string", ".status.conditions[?(@.type=='LiveMigratable')].status", 1),
        ("Paused", "string", ".status.conditions[?(@.type=='Paused')].status", 1),
    ]
    assert columns("KubeVirt") == [age, ("Phase", "string", ".status.phase", 0)]
    assert (
        columns("VirtualMachinePool")
        == columns("VirtualMachineInstanceReplicaSet")
        == [
            ("Desired", "integer", ".spec.replicas", 0),
            ("Current", "integer", ".status.replicas", 0),
            ("Ready", "integer", ".status.readyReplicas", 0),
            age,
        ]
    )
    assert columns("VirtualMachineInstancetype") == []  # which shows the name and the age


def descriptions(schema):
    """Every description of a schema, by path."""
    waiting = [("", schema)]
    while waiting:
        path, here = waiting.pop()
        if "description" in here:
            yield path, here["description"]
        for name, below in here.get("properties", {}).items():
            waiting.append((f"{path}.{name}", below))
        if "items" in here:
            waiting.append((f"{path}[]", here["items"]))


@pytest.mark.parametrize("kind", CRDS)
def test_explain_has_our_words_and_none_are_empty(kind):
    found = dict(descriptions(version(kind)["schema"]["openAPIV3Schema"]))
    assert found[".spec"] == explain.WORDS[f"{kind}.spec"]
    assert found.get(".status") == explain.WORDS.get(f"{kind}.status")
    assert [path for path, words in found.items() if not words] == []


def test_words_reach_the_field_they_are_about():
    found = dict(descriptions(version("VirtualMachine")["schema"]["openAPIV3Schema"]))
    assert found[".spec.template.spec.domain.cpu.sockets"] == explain.WORDS["CPU.sockets"]
    assert found[".spec.template.spec.domain.devices.disks[].disk.bus"] == explain.WORDS["DiskTarget.bus"]


def test_explain_says_what_becomes_of_what_is_not_acted_on():
    found = dict(descriptions(version("VirtualMachine")["schema"]["openAPIV3Schema"]))
    known = found[".spec.template.spec.networks[].multus.default"]
    assert known == "Not supported by hotvirt yet: the pod network stays the default one: leave default out."
    assert found[".spec.template.spec.domain.devices.autoattachSerialConsole"] == "Accepted without effect: always so."
    spec = {path: words for path, words in found.items() if path.startswith(".spec.template.spec.domain.devices.disks")}
    assert len(spec) == 1 + sum(
        len(schemas.fields(f)) for f in (
            "Disk", "DiskTarget", "CDRomTarget", "LunTarget", "BlockSize", "FeatureState", "CustomBlockSize",
        )
    )  # fmt: skip


def vm(**spec):
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web"},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}, **spec},
    }  # fmt: skip


def test_an_unknown_field_is_pruned_and_named(vm_schema):
    pruned, unknown = vm_schema.prune(vm(template={"spec": {"domain": {"devices": {}, "memroy": {"guest": "1Gi"}}}}))
    assert unknown == ("spec.template.spec.domain.memroy",)
    assert pruned == vm()


TYPES = {
    "text for a number": ({"cpu": {"sockets": "two"}}, "spec.template.spec.domain.cpu.sockets"),
    "a number for a switch": (
        {"devices": {"autoattachMemBalloon": 1}}, "spec.template.spec.domain.devices.autoattachMemBalloon"),
    "an object for a quantity": ({"memory": {"guest": {}}}, "spec.template.spec.domain.memory.guest"),
    "a list for an object": ({"cpu": []}, "spec.template.spec.domain.cpu"),
    "an object for a list": ({"devices": {"disks": {}}}, "spec.template.spec.domain.devices.disks"),
    "a disk without its name": ({"devices": {"disks": [{}]}}, "spec.template.spec.domain.devices.disks[0].name"),
    "a fraction for a whole number": ({"cpu": {"cores": 1.5}}, "spec.template.spec.domain.cpu.cores"),
}  # fmt: skip


@pytest.mark.parametrize(("domain", "field"), TYPES.values(), ids=TYPES)
def test_types_are_the_schemas_to_check(vm_schema, domain, field):
    found = vm_schema.validate(vm(template={"spec": {"domain": {"devices": {}, **domain}}}))
    assert [cause.field for cause in found] == [field]


@pytest.mark.parametrize("amount", ["1Gi", 1073741824])
def test_a_quantity_is_text_or_a_number(vm_schema, amount):
    assert vm_schema.validate(vm(template={"spec": {"domain": {"devices": {}, "memory": {"guest": amount}}}})) == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_accepted_without_a_word(file):
    documents = list(yaml.safe_load_all(file.read_text()))
    named = {each["metadata"]["name"]: each for each in documents}
    for document in documents:
        if document["kind"] in CRDS:
            schema = compile_schema(version(document["kind"])["schema"]["openAPIV3Schema"])
            assert schema.prune(document)[1] == ()
            assert schema.validate(document) == []
        if document["kind"] == "VirtualMachine":
            spec = document["spec"]
            sizes = [named.get((spec.get(what) or {}).get("name")) for what in ("instancetype", "preference")]
            assert validation.virtual_machine(instancetype.expand(document, *sizes)) == validation.Checked()
        if document["kind"] == "VirtualMachinePool":
            assert validation_sets.pool(document, None) == validation.Checked()
        if document["kind"] == "VirtualMachineInstanceReplicaSet":
            assert validation_sets.replica_set(document) == validation.Checked()


NOTATIONS = {
    "string": schemas.Kind("string"),
    "string!": schemas.Kind("string", required=True),
    "[Disk]#name!": schemas.Kind("Disk", "list", required=True, keys=("name",)),
    "[string]#set": schemas.Kind("string", "list", keys=("set",)),
    "{quantity}": schemas.Kind("quantity", "map"),
    "string|A|B": schemas.Kind("string", values=("A", "B")),
    "[core.X]#a,b": schemas.Kind("core.X", "list", keys=("a", "b")),
}


@pytest.mark.parametrize(("notation", "kind"), NOTATIONS.items(), ids=NOTATIONS)
def test_notation(notation, kind):
    assert schemas.read(notation) == kind


FITS = {
    "nothing": ({}, True),
    "null is not said": ({"domain": None, "volumes": None}, True),
    "unknown fields do no harm": ({"nonsense": [1]}, True),
    "a string for an object": ({"domain": "x"}, False),
    "an object for a list": ({"volumes": {}}, False),
    "null in a list": ({"volumes": [None]}, False),
    "text in a list of objects": ({"volumes": ["x"]}, False),
    "a switch for a number": ({"domain": {"cpu": {"sockets": True}}}, False),
    "a number for a switch": ({"domain": {"devices": {"autoattachMemBalloon": 1}}}, False),
    "a number for a quantity": ({"domain": {"memory": {"guest": 5}}}, True),
    "a list for a quantity": ({"domain": {"memory": {"guest": []}}}, False),
    "a null in a map": ({"domain": {"resources": {"requests": {"memory": None}}}}, False),
}


@pytest.mark.parametrize(("spec", "fits"), FITS.values(), ids=FITS)
def test_fits_tells_whether_a_document_can_be_read_without_a_look_at_each_type(spec, fits):
    assert schemas.fits(spec, "VirtualMachineInstanceSpec") is fits
