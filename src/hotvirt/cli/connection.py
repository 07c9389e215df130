"""Which API commands talk to, and as whom: the options that every command has, before its name or after it.

Which API, first that applies: --kubeconfig; the home of --home or $HOTVIRT_HOME; $KUBECONFIG or ~/.kube/config; the
home in the default place. What kubectl and virtctl take beside these is here too, out of each command's help:
`hotvirt options` shows it.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from hotvirt.cli.errors import CliError
from hotvirt.cli.verbs import SharedOption

if TYPE_CHECKING:  # what only an API's answer needs; `--help` and completion go without
    from pathlib import Path

    from hotvirt.cli.api import Api
    from hotvirt.kube.kubeconfig import Access


class Timeout(click.ParamType):  # type: ignore[type-arg]  # generic only for the type checker
    """`30`, `30s` or `1m30s`, in seconds; 0 is for ever."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from hotvirt.webhooks.durations import seconds

        if isinstance(value, float):
            return value
        text = str(value)
        try:
            return seconds(f"{text}s" if text.isdecimal() else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FILE = {"metavar": "FILE", "type": click.Path(exists=True, dir_okay=False)}
FIRST: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--kubeconfig",), {"metavar": "FILE", "help": "Which kubeconfig to use."}),
    (("--context",), {"metavar": "NAME", "help": "Which of its contexts."}),
    (("--home",), {"metavar": "DIR", "help": "Use the home in DIR.  [env: HOTVIRT_HOME]"}),
    (("-n", "--namespace"), {"help": "Namespace of the VM (default: the context's)."}),
)
MORE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--cluster", "api_cluster"), {"metavar": "NAME", "help": "Which of the kubeconfig's clusters."}),
    (("--user", "api_user"), {"metavar": "NAME", "help": "Which of the kubeconfig's users."}),
    (("-s", "--server", "api_server"), {"metavar": "URL", "help": "The API's address, in place of the cluster's."}),
    (("--tls-server-name", "tls_server_name"), {"metavar": "NAME", "help": "The name that its certificate is for."}),
    (("--certificate-authority", "authority"), {**_FILE, "help": "Who must have signed its certificate."}),
    (("--insecure-skip-tls-verify", "insecure_tls"), {"is_flag": True, "help": "Do not check its certificate."}),
    (("--client-certificate", "client_certificate"), {**_FILE, "help": "Show this certificate."}),
    (("--client-key", "client_key"), {**_FILE, "help": "The certificate's key."}),
    (("--token", "api_token"), {"help": "Show this token, and not the user's certificate or token."}),
    (("--as", "as_user"), {"metavar": "NAME", "help": "Act as this user, where the one you are may."}),
    (("--as-group", "as_groups"), {"metavar": "NAME", "multiple": True, "help": "With --as: in this group, too."}),
    (("--as-uid", "as_uid"), {"metavar": "UID", "help": "With --as: with this uid."}),
    (("--request-timeout", "request_timeout"),
     {"type": Timeout(), "help": "How long to wait for an answer (default: 30s); 0 is for ever."}),
)  # fmt: skip


def _name(flags: tuple[str, ...]) -> str:
    return flags[-1].lstrip("-")


NAMES = tuple(_name(flags) for flags, _ in (*FIRST, *MORE))
_FLAGS = {_name(flags): next(f for f in flags if f.startswith("--")) for flags, _ in (*FIRST, *MORE)}


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return _added(_added(command, MORE, hidden=True), FIRST, hidden=False)


def all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """With all of them in its help."""
    return _added(_added(command, MORE, hidden=False), FIRST, hidden=False)


def _added(command: Callable[..., Any], options: Sequence[Any], *, hidden: bool) -> Callable[..., Any]:
    for flags, settings in reversed(options):
        command = click.option(*flags, cls=SharedOption, hidden=hidden, **settings)(command)
    return command


def taken(params: dict[str, Any]) -> dict[str, Any]:
    """The options, out of a command's parameters; those before the command's name count where it has none."""
    found = {name: params.pop(name, None) for name in NAMES}
    return {name: value if _is_given(value) else _from_root(name) for name, value in found.items()}


def _is_given(value: Any) -> bool:
    return bool(value) or isinstance(value, float)  # 0 seconds are for ever


def from_root(name: str) -> str | None:
    """An option that was given before the command's name."""
    value = _from_root(name)
    return str(value) if value else None


def _from_root(name: str) -> Any:
    return click.get_current_context().find_root().params.get(name)


def connection_args() -> list[str]:
    """The options that make another call of this program talk to the same API; the namespace left out."""
    words: list[str] = []
    for name, value in taken(dict(click.get_current_context().params)).items():
        if name == "namespace" or not _is_given(value):
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += (_FLAGS[name] if each is True else f"{_FLAGS[name]}={_text(each)}" for each in values)
    return words


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def open_api(given: dict[str, Any]) -> "Api":
    """The API that the options choose."""
    from hotvirt.cli.api import Api
    from hotvirt.kube.kubeconfig import Access

    brought = click.get_current_context().obj  # whoever calls the command from Python may bring an access
    api = Api(_changed(brought if isinstance(brought, Access) else _found(given), given))
    api.namespace = given["namespace"] or api.namespace
    if given["request_timeout"] is not None:
        api.patience = given["request_timeout"] or None
    return api


def _found(given: dict[str, Any]) -> "Access":
    from hotvirt.kube.kubeconfig import Access, load

    server = given["api_server"] or ""
    try:
        files = find_kubeconfig(given["kubeconfig"], given["home"])
    except CliError:
        if server and not (given["home"] or given["context"]):
            return Access(server=server)
        raise
    return load(
        files, given["context"], cluster=given["api_cluster"] or "", user=given["api_user"] or "", server=server
    )


def _changed(access: "Access", given: dict[str, Any]) -> "Access":
    """As the options say; the one that they replace is no longer shown or believed."""
    from msgspec import structs

    if given["insecure_tls"] and given["authority"]:
        raise click.UsageError("--insecure-skip-tls-verify and --certificate-authority exclude each other")
    if (given["as_groups"] or given["as_uid"]) and not (given["as_user"] or access.as_user):
        raise click.UsageError("--as-group and --as-uid say more of another user: name that with --as")
    changes: dict[str, Any] = {}
    if given["api_server"]:
        changes |= {"server": given["api_server"].rstrip("/"), "tls_server_name": ""}
    if given["tls_server_name"]:
        changes["tls_server_name"] = given["tls_server_name"]
    if given["authority"]:
        changes |= {"ca": _read(given["authority"]), "insecure": False}
    if given["insecure_tls"]:
        changes |= {"ca": "", "insecure": True}
    if given["api_token"]:
        changes |= {"token": given["api_token"], "certificate": "", "key": ""}
    if given["client_certificate"] or given["client_key"]:
        if not (given["client_certificate"] and given["client_key"]):
            raise click.UsageError("--client-certificate and --client-key go together: give both")
        changes |= {"certificate": _read(given["client_certificate"]), "key": _read(given["client_key"])}
        changes.setdefault("token", "")
    if given["as_user"]:
        changes |= {"as_user": given["as_user"], "as_groups": (), "as_uid": "", "as_extra": ()}
    if given["as_groups"]:
        changes["as_groups"] = tuple(given["as_groups"])
    if given["as_uid"]:
        changes["as_uid"] = given["as_uid"]
    return structs.replace(access, **changes)


def _read(name: str) -> str:
    from pathlib import Path

    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{name} can't be read: {error}; name a PEM file") from error


def find_kubeconfig(kubeconfig: str | None, home: str | None) -> "Sequence[Path]":
    """The files to read; see the module's text."""
    from pathlib import Path

    from hotvirt.home import paths
    from hotvirt.kube.kubeconfig import search_path

    if kubeconfig:
        return [Path(kubeconfig)]
    own = paths.here(home)
    if not own.is_default:
        if not own.kubeconfig.exists():
            raise CliError(
                f"no home has been started in {own.state}; start it with: hotvirt up --detach --home {own.state}"
            )
        return [own.kubeconfig]
    found = [path for path in (*search_path(), own.kubeconfig) if os.access(path, os.R_OK)]
    if not found:
        raise CliError("no kubeconfig found, so no API to talk to; start a home with: hotvirt up --detach")
    return found
