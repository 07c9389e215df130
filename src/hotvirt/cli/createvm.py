"""`create vm`: the options, and the VM they describe. `Building` is one VM under construction; it asks no API."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hotvirt.cli import createvolumes
from hotvirt.cli.connection import connection_options, from_root
from hotvirt.cli.createvolumes import Volumes
from hotvirt.cli.params import (
    Params,
    check_quantity,
    exclusive,
    print_manifest,
    random_suffix,
    split_prefix,
    was_given,
)
from hotvirt.cli.verbs import Verb

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

STRATEGIES = ("Always", "Manual", "Halted", "Once", "RerunOnFailure")
CLOUD_INIT = {"nocloud": "cloudInitNoCloud", "configdrive": "cloudInitConfigDrive"}
SEED = "cloudinitdisk"
HEADER = "#cloud-config"
DEFAULT_MEMORY = "512Mi"


def _sizes(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    from hotvirt.cli.completion import size_names

    return size_names(ctx, str(param.name), incomplete)


_OPTIONS: Sequence[Callable[..., Any]] = (
    click.option("--name", metavar="NAME", help="Default: a generated one."),
    click.option("--run-strategy", type=click.Choice(STRATEGIES, case_sensitive=False), default="Always",
                 show_default=True, help="When it is to run."),
    click.option("--termination-grace-period", type=click.IntRange(min=0), default=180, show_default=True,
                 metavar="SECONDS", help="How long its guest may take to shut down."),
    click.option("--memory", default=DEFAULT_MEMORY, show_default=True, metavar="SIZE", help="Memory of the guest."),
    click.option("--instancetype", metavar="[KIND/]NAME", shell_complete=_sizes,
                 help="Its instancetype, instead of --memory."),
    click.option("--infer-instancetype/--no-infer-instancetype", default=True, help="Take the instancetype that the "
                 "first boot disk's claim names (default: where it names one)."),
    click.option("--infer-instancetype-from", metavar="VOLUME", help="... that this volume's claim names."),
    click.option("--preference", metavar="[KIND/]NAME", shell_complete=_sizes, help="Its preference."),
    click.option("--infer-preference/--no-infer-preference", default=True, help="Take the preference that the first "
                 "boot disk's claim names (default: where it names one)."),
    click.option("--infer-preference-from", metavar="VOLUME", help="... that this volume's claim names."),
    click.option("--volume-containerdisk", multiple=True, metavar="src:IMAGE[,name:..][,bootorder:..]",
                 help="A disk from an image; repeatable, as the following are."),
    click.option("--volume-pvc", multiple=True, metavar="src:CLAIM[,name:..][,bootorder:..]", help="A claim."),
    click.option("--volume-import", multiple=True, metavar="type:TYPE,...",
                 help=f"A disk that is imported first. TYPE is {', '.join(createvolumes.IMPORTS)}."),
    click.option("--volume-sysprep", metavar="src:NAME[,type:configmap|secret]", help="Windows' answer file."),
    click.option("--user", default="", help="The user that cloud-init sets up."),
    click.option("--password-file", type=click.Path(path_type=Path), help="File with that user's password."),
    click.option("--ssh-key", multiple=True, metavar="KEY", help="A public key to log in with; repeatable."),
    click.option("--ga-manage-ssh", is_flag=True, help="Let the guest's agent manage keys where SELinux would not."),
    click.option("--access-cred", multiple=True, metavar="src:SECRET[,type:..][,method:..][,user:..]",
                 help="Keys (type:ssh) or passwords (type:password) from a secret; repeatable."),
    click.option("--cloud-init", type=click.Choice([*CLOUD_INIT, "none"], case_sensitive=False), default="nocloud",
                 show_default=True, help="How cloud-init gets its data."),
    click.option("--cloud-init-user-data", metavar="BASE64", help="Its user data, ready made."),
    click.option("--cloud-init-network-data", metavar="BASE64", help="Its network data."),
    click.option("--volume-datasource", multiple=True, hidden=True),
    click.option("--volume-clone-pvc", multiple=True, hidden=True),
    click.option("--volume-blank", multiple=True, hidden=True),
)  # fmt: skip


def _all(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(cls=Verb)
@_all
@connection_options
@click.pass_context
def vm(ctx: click.Context, /, **given: Any) -> None:
    """Print the manifest of a VM.

    Without a boot order, disks are tried in this order: images, claims, then what is imported.

    \b
    Examples:
      hotvirt create vm --name=web --memory=1Gi --volume-containerdisk=src:hotvirt/debian:12
      hotvirt create vm --name=web --instancetype=small --volume-pvc=src:web-root --run-strategy=Halted
      hotvirt create vm --volume-pvc=src:web-root --user=jdoe --ssh-key="$(cat ~/.ssh/id_ed25519.pub)"
      hotvirt create vm --volume-import=type:http,url:https://example.org/disk.qcow2,size:10Gi
    """
    exclusive(ctx, "memory", "instancetype", "infer-instancetype", "infer-instancetype-from")
    exclusive(ctx, "preference", "infer-preference", "infer-preference-from")
    for option in ("user", "password-file", "ssh-key", "ga-manage-ssh"):
        exclusive(ctx, "cloud-init-user-data", option)
    given["namespace"] = given["namespace"] or from_root("namespace")
    print_manifest(build(given, lambda option: was_given(ctx, option)))


def build(given: dict[str, Any], is_given: Callable[[str], bool]) -> dict[str, Any]:
    """The VM for the options; `is_given` tells a person's word from a default."""
    name = given["name"] or f"vm-{random_suffix()}"
    strategy = next(each for each in STRATEGIES if each.lower() == given["run_strategy"].lower())
    inner: dict[str, Any] = {
        "domain": {"devices": {}, "memory": {"guest": check_quantity("memory", given["memory"])}},
        "terminationGracePeriodSeconds": given["termination_grace_period"],
    }
    spec: dict[str, Any] = {"runStrategy": strategy, "template": {"metadata": {}, "spec": inner}}
    if given["instancetype"]:
        spec["instancetype"] = _matcher("instancetype", given["instancetype"])
        del inner["domain"]["memory"]
    if given["preference"]:
        spec["preference"] = _matcher("preference", given["preference"])
    volumes = createvolumes.collect(name, given)
    seed = CloudInit(given, is_given)
    if credentials := [seed.credential(text) for text in given["access_cred"]]:
        inner["accessCredentials"] = credentials
    if source := seed.source():
        volumes.add("cloud-init", SEED, source)
    _infer(spec, volumes, given, is_given)
    if volumes.has_built_in() and "preference" not in spec:  # a preference says which bus its guest works best with
        volumes.on_virtio()
    if volumes.volumes:
        inner["volumes"] = volumes.volumes
    if volumes.disks:
        inner["domain"]["devices"]["disks"] = volumes.disks
    if volumes.templates:
        spec["dataVolumeTemplates"] = volumes.templates
    metadata = {"name": name, **({"namespace": given["namespace"]} if given["namespace"] else {})}
    return {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": metadata, "spec": spec}


class CloudInit:
    """What cloud-init is to do, from the options that tell of users and keys."""

    def __init__(self, given: dict[str, Any], is_given: Callable[[str], bool]) -> None:
        self._given, self._is_given = given, is_given
        self.kind = given["cloud_init"].lower()
        self._is_chosen = is_given("cloud-init")
        self._agent_manages_ssh = given["ga_manage_ssh"]
        self._asked = any(is_given(f"{each}") for each in (
            "user", "password-file", "ssh-key", "ga-manage-ssh", "cloud-init", "cloud-init-user-data",
            "cloud-init-network-data",
        ))  # fmt: skip

    def credential(self, text: str) -> dict[str, Any]:
        """One of the VM's accessCredentials; it may decide what cloud-init is needed."""
        params = Params("access-cred", text, ("type", "src", "method", "user"))
        secret = {"secret": {"secretName": params.own("secret")}}
        if params.choice("type", ("ssh", "password"), default="ssh") == "password":
            params.choice("method", ("ga",), default="ga")
            if params.get("user"):
                raise params.wrong("a password's user is the key of the secret's data; leave out user")
            return {"userPassword": {"source": secret, "propagationMethod": {"qemuGuestAgent": {}}}}
        method = params.choice("method", ("ga", *CLOUD_INIT), default="ga")
        propagation = self._by_agent(params) if method == "ga" else self._by_seed(params, method)
        return {"sshPublicKey": {"source": secret, "propagationMethod": propagation}}

    def source(self) -> dict[str, Any] | None:
        """Of the seed volume; None where none is needed."""
        if self._is_given("password-file"):
            click.echo("warning: --password-file: the password can be read by whoever can read the VM", err=True)
        if not self._asked or self.kind == "none":
            return None
        content: dict[str, str] = {}
        if data := self._given["cloud_init_network_data"]:
            content["networkDataBase64"] = data
        if data := self._given["cloud_init_user_data"]:
            content["userDataBase64"] = data
        else:
            content["userData"] = self.user_data()
        if not self._is_chosen and content == {"userData": HEADER}:
            return None
        return {CLOUD_INIT[self.kind]: content}

    def user_data(self) -> str:
        lines = [HEADER]
        if user := self._given["user"]:
            lines.append(f"user: {user}")
        if password := self._password():
            lines += [f"password: {password}", "chpasswd: { expire: False }"]
        if keys := [key.strip() for word in self._given["ssh_key"] for key in word.split(",")]:
            if not all(keys):
                why = "it is empty, and nobody could log in with that; to make a key: ssh-keygen"
                raise click.BadParameter(why, param_hint="--ssh-key")
            lines += ["ssh_authorized_keys:", *(f"  - {key}" for key in keys)]
        if self._agent_manages_ssh:
            lines += ["runcmd:", "  - [ setsebool, -P, 'virt_qemu_ga_manage_ssh', 'on' ]"]
        return "\n".join(lines)

    def _password(self) -> str:
        file: Path | None = self._given["password_file"]
        if file is None:
            return ""
        try:
            return file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{file} can't be read: {error}", param_hint="--password-file") from error

    def _by_agent(self, params: Params) -> dict[str, Any]:
        user = params.get("user") or self._given["user"]
        if not user:
            raise params.wrong("keys that the guest's agent sets need a user; add user:NAME, or give --user")
        if not self._is_given("ga-manage-ssh"):
            self._agent_manages_ssh = self._asked = True
        return {"qemuGuestAgent": {"users": [user]}}

    def _by_seed(self, params: Params, method: str) -> dict[str, Any]:
        if params.get("user"):
            raise params.wrong(f"with method:{method} the user is that of --user; leave out user")
        if self._is_chosen and self.kind != method:
            raise params.wrong(f"method:{method} does not go with --cloud-init={self.kind}; make both the same")
        self.kind, self._is_chosen, self._asked = method, True, True
        return {"noCloud": {}} if method == "nocloud" else {"configDrive": {}}


def _matcher(what: str, text: str) -> dict[str, str]:
    kind, name = split_prefix(what, text)
    kinds = (f"virtualmachine{what}", f"virtualmachinecluster{what}")
    if kind and kind.lower() not in kinds:
        raise click.BadParameter(f"{kind!r} is not one of {', '.join(kinds)}", param_hint=f"--{what}")
    return {"name": name, **({"kind": kind.lower()} if kind else {})}


def _infer(spec: dict[str, Any], volumes: Volumes, given: dict[str, Any], is_given: Callable[[str], bool]) -> None:
    """Has the instancetype and the preference found out from a volume, where nothing else says them. Asked for, that
    must be possible; by default it is done where it is."""
    for what in ("instancetype", "preference"):
        named, wanted = given[f"infer_{what}_from"], given[f"infer_{what}"]
        asked = bool(named) or (is_given(f"infer-{what}") and wanted)
        by_hand = given[what] or (what == "instancetype" and is_given("memory"))
        if by_hand or not (wanted or asked):
            continue
        why_not = volumes.why_not_inferable(named)
        if why_not and asked:
            raise click.BadParameter(why_not, param_hint=f"--infer-{what}")
        if why_not:
            continue
        spec[what] = {"inferFromVolume": named or volumes.first()}
        if not asked:
            spec[what]["inferFromVolumeFailurePolicy"] = "Ignore"
        elif what == "instancetype":
            del spec["template"]["spec"]["domain"]["memory"]
