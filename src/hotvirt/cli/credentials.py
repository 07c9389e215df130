"""credentials: SSH keys and passwords that a VM's guest gets from Secrets, through its agent.

Secrets are changed by merge patches under the version that was read, so that two people's keys are both kept.
"""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import Target, connected, machine, only_vm
from hotvirt.cli.verbs import Verbs
from hotvirt.kube.client import Document
from hotvirt.kube.resources import SECRETS, VMIS, VMS


@click.group(cls=Verbs)
def credentials() -> None:
    """Give a VM's guest SSH keys and passwords, kept in Secrets.

    \b
    Examples:
      hotvirt credentials add-ssh-key web --user=root --file=~/.ssh/id_ed25519.pub
      hotvirt credentials remove-ssh-key web --user=root --file=~/.ssh/id_ed25519.pub
      hotvirt credentials set-password web --user=root --password=...
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--force", is_flag=True, help="Also for a secret that the VM does not own, or a VM that runs."),
        click.option("--secret", metavar="NAME", help="Which secret, when the user has several."),
        click.option("-u", "--user", required=True, help="The user in the guest."),
    ):
        command = option(command)
    return command


def _key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--value", metavar="KEY", help="The public key itself."),
        click.option("-f", "--file", type=click.Path(path_type=Path), help="A file that holds the public key."),
    ):
        command = option(command)
    return command


@credentials.command("add-ssh-key")
@machine
@_options
@_key_options
@click.option("--create-secret", is_flag=True, help="Make a new secret, and let the VM have it from its next start.")
@click.option("--update-secret", is_flag=True, help="Only add to a secret that the VM has.")
@connected
def add_ssh_key(
    api: Api, machine: Target, *, user: str, secret: str | None, force: bool, file: Path | None, value: str | None,
    create_secret: bool, update_secret: bool,
) -> None:  # fmt: skip
    """Let the holder of a key log in as a user of the guest.

    \b
    Examples:
      hotvirt credentials add-ssh-key web --user=root --file=~/.ssh/id_ed25519.pub
      hotvirt credentials add-ssh-key web --user=root --value='ssh-ed25519 AAAA...' --create-secret --force
    """
    if create_secret and update_secret:
        raise click.UsageError("--create-secret and --update-secret exclude each other; give one or none")
    key = _key(file, value)
    vm = api.get(VMS, only_vm(machine, "have credentials"), api.namespace)
    having = ssh_secrets(vm, user)
    if create_secret or (not having and not update_secret):
        _create(api, vm, user, key, force=force)
        return
    if not having:
        raise CliError(f"the VM has no secret for user {user}; leave out --update-secret to make one")
    chosen = api.get(SECRETS, _choose(secret, having), api.namespace)
    name = chosen["metadata"]["name"]
    if any(_is_key(line, key) for data in _contents(chosen).values() for line in data.splitlines()):
        click.echo(f'Secret "{name}" already contains this SSH key.')
        return
    _demand_owner(chosen, vm, force=force)
    _store(api, chosen, {f"ssh-key-{secrets.token_hex(3)}": key})
    click.echo(f'Successfully added the key to secret "{name}"')


@credentials.command("remove-ssh-key")
@machine
@_options
@_key_options
@connected
def remove_ssh_key(
    api: Api, machine: Target, *, user: str, secret: str | None, force: bool, file: Path | None, value: str | None
) -> None:
    """Take a key away from a user of the guest.

    \b
    Example:
      hotvirt credentials remove-ssh-key web --user=root --file=~/.ssh/id_ed25519.pub
    """
    key = _key(file, value)
    vm = api.get(VMS, only_vm(machine, "have credentials"), api.namespace)
    having = ssh_secrets(vm, user)
    if not having:
        click.echo(f"No secrets associated with user {user}")
        return
    for name in [_choose(secret, having)] if secret else having:
        if (found := api.find(SECRETS, name, api.namespace)) is None:
            continue
        _demand_owner(found, vm, force=force)
        if changed := without_key(_contents(found), key):
            _store(api, found, changed)
            click.echo(f'Removed the key from secret "{name}"')


@credentials.command("set-password")
@machine
@_options
@click.option("-p", "--password", required=True, help="The new password.")
@connected
def set_password(api: Api, machine: Target, *, user: str, secret: str | None, force: bool, password: str) -> None:
    """Set the password of a user of the guest, in the secret that the VM's accessCredentials name.

    \b
    Example:
      hotvirt credentials set-password web --user=root --password=...
    """
    vm = api.get(VMS, only_vm(machine, "have credentials"), api.namespace)
    having = _secrets(vm, "userPassword", lambda method: "qemuGuestAgent" in method)
    if not having:
        raise CliError(
            f"VM {machine.name} has no secret for passwords; give it one in spec.template.spec.accessCredentials: "
            "userPassword.source.secret.secretName, with propagationMethod.qemuGuestAgent: {}"
        )
    found = api.get(SECRETS, _choose(secret, having), api.namespace)
    _demand_owner(found, vm, force=force)
    _store(api, found, {user: password})
    click.echo(f'Successfully set password in secret "{found["metadata"]["name"]}"')


def ssh_secrets(vm: Document, user: str) -> list[str]:
    """Those with keys that the agent is to give to `user`."""
    return _secrets(
        vm, "sshPublicKey", lambda method: user in ((method.get("qemuGuestAgent") or {}).get("users") or ())
    )


def without_key(contents: dict[str, str], key: str) -> dict[str, str | None]:
    """What changes in a secret when a key is taken out; None is an entry with nothing left."""
    changed: dict[str, str | None] = {}
    for name, text in contents.items():
        kept = [line for line in text.splitlines() if line.strip() and not _is_key(line, key)]
        if kept != [line for line in text.splitlines() if line.strip()]:
            changed[name] = "\n".join(kept) or None
    return changed


def _secrets(vm: Document, kind: str, suits: Callable[[Document], bool]) -> list[str]:
    found = []
    for credential in (vm["spec"]["template"]["spec"]).get("accessCredentials") or ():
        given = credential.get(kind) or {}
        name = ((given.get("source") or {}).get("secret") or {}).get("secretName")
        if name and suits(given.get("propagationMethod") or {}):
            found.append(str(name))
    return found


def _create(api: Api, vm: Document, user: str, key: str, *, force: bool) -> None:
    name = vm["metadata"]["name"]
    if not force and api.find(VMIS, name, api.namespace) is not None:
        raise CliError(
            f"VM {name} runs, and would get a new secret only at its next start; if that will do, add --force"
        )
    owner = {
        "apiVersion": VMS.api_version, "kind": VMS.kind, "name": name, "uid": vm["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    made = api.request("POST", SECRETS.path(api.namespace), body={
        "apiVersion": "v1", "kind": SECRETS.kind,
        "metadata": {"generateName": f"{name}-ssh-key-", "ownerReferences": [owner]},
        "data": {f"ssh-key-{secrets.token_hex(3)}": _encoded(key)},
    })  # fmt: skip
    secret = made["metadata"]["name"]
    credential = {"sshPublicKey": {
        "source": {"secret": {"secretName": secret}}, "propagationMethod": {"qemuGuestAgent": {"users": [user]}},
    }}  # fmt: skip
    before = vm["spec"]["template"]["spec"].get("accessCredentials") or []
    patch = {
        "metadata": {"resourceVersion": vm["metadata"]["resourceVersion"]},
        "spec": {"template": {"spec": {"accessCredentials": [*before, credential]}}},
    }
    api.patch(VMS, name, patch, api.namespace)
    click.echo(f'Successfully added the key to secret "{secret}"')


def _key(file: Path | None, value: str | None) -> str:
    if (file is None) == (value is None):
        raise click.UsageError("give the public key once: --file=FILE, or --value=KEY")
    if file is None:
        return str(value).strip()
    try:
        return file.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read a public key from {file}: {error}") from error


def _choose(wanted: str | None, having: list[str]) -> str:
    if wanted is None and len(having) == 1:
        return having[0]
    if wanted is None:
        raise CliError(f"there are several secrets: {', '.join(having)}; say which: --secret=NAME")
    if wanted not in having:
        raise CliError(f"secret {wanted} is not one that the VM uses for this user; it uses: {', '.join(having)}")
    return wanted


def _demand_owner(secret: Document, vm: Document, *, force: bool) -> None:
    """Others may use a secret that the VM does not own."""
    uid = vm["metadata"]["uid"]
    if force or any(owner.get("uid") == uid for owner in secret["metadata"].get("ownerReferences") or ()):
        return
    name = secret["metadata"]["name"]
    raise CliError(f"secret {name} is not the VM's own, so others may use it; to change it all the same, add --force")


def _contents(secret: Document) -> dict[str, str]:
    return {name: base64.b64decode(data).decode(errors="replace") for name, data in (secret.get("data") or {}).items()}


def _store(api: Api, secret: Document, changed: dict[str, str] | dict[str, str | None]) -> None:
    data = {name: None if text is None else _encoded(text) for name, text in changed.items()}
    metadata = secret["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "data": data}
    api.patch(SECRETS, metadata["name"], patch, api.namespace)


def _is_key(line: str, key: str) -> bool:
    """Of one line of authorized keys; a comment behind the key makes no other key of it."""
    return line.split()[:2] == key.split()[:2]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
