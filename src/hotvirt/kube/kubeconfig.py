"""Kubeconfig files: which API a context names, and adding one context without harming the rest of the file.

Reading follows kubectl: of several files the first that has a cluster, user or context of a name counts; file names
in them are relative to the file they stand in. Blocking, for small local files.
"""

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote

from msgspec import Struct

FILE_MODE = 0o600
_LISTS = ("clusters", "users", "contexts")


class KubeconfigError(Exception):
    """The text names the file, what is wrong with it, and the mend."""


class Access(Struct, frozen=True, kw_only=True):
    """Where an API is and who we are there. Certificates and keys are PEM texts; empty is absent."""

    server: str
    namespace: str = "default"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    context: str = ""
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    as_uid: str = ""
    as_extra: tuple[tuple[str, str], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """Who we are, and whom we act for, to the API. A header may be there several times."""
        found = [("Authorization", f"Bearer {self.token}")] if self.token else []
        if self.as_user:
            found.append(("Impersonate-User", self.as_user))
            found += (("Impersonate-Group", group) for group in self.as_groups)
            found += [("Impersonate-Uid", self.as_uid)] if self.as_uid else []
            found += ((f"Impersonate-Extra-{quote(key, safe='')}", value) for key, value in self.as_extra)
        return found


def search_path(environment: dict[str, str] | None = None, home: Path | None = None) -> list[Path]:
    """The files that $KUBECONFIG names, else ~/.kube/config."""
    named = (os.environ if environment is None else environment).get("KUBECONFIG", "")
    files = [Path(name) for name in named.split(os.pathsep) if name]
    return files or [(home or Path.home()) / ".kube" / "config"]


def load(
    files: Path | Sequence[Path] | None = None, context: str | None = None, *, cluster: str = "", user: str = "",
    server: str = "",
) -> Access:  # fmt: skip
    """What `context` (default: the current one) names in the files (default: `search_path()`), merged. `cluster` and
    `user` are named in place of the context's, and `server` is the address in place of the cluster's: with one of
    them, there need be no context."""
    paths = search_path() if files is None else [files] if isinstance(files, Path) else list(files)
    merged, origin = _merged(paths)
    shown = ", ".join(str(path) for path in paths)
    name = context or merged["current-context"]
    if not name and not (cluster or server):
        raise KubeconfigError(f"{shown} has no current context: choose one with kubectl config use-context NAME")
    chosen = _entry(merged, "contexts", name, shown) if name else {}
    of_cluster, of_user = cluster or str(chosen.get("cluster") or ""), user or str(chosen.get("user") or "")
    there = _entry(merged, "clusters", of_cluster, shown) if of_cluster or not server else {}
    who = _entry(merged, "users", of_user, shown) if of_user else {}
    if not (server or there.get("server")):
        raise KubeconfigError(f"{shown}: cluster {of_cluster!r} has no server: add its https:// address")
    if who.get("exec") or who.get("auth-provider"):
        raise KubeconfigError(
            f"{shown}: user {of_user!r} logs in through a helper program, which is not run here; "
            f"use a context with a client certificate or a token (kubectl create token NAME)"
        )
    at = origin.get(("clusters", of_cluster), Path()), origin.get(("users", of_user), Path())
    return Access(
        server=(server or str(there["server"])).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        ca=_pem(there, "certificate-authority", at[0]),
        certificate=_pem(who, "client-certificate", at[1]),
        key=_pem(who, "client-key", at[1]),
        token=str(who.get("token") or "") or _text(who.get("tokenFile"), at[1]).strip(),
        insecure=bool(there.get("insecure-skip-tls-verify")),
        tls_server_name=there.get("tls-server-name") or "",
        context=name,
        as_user=str(who.get("as") or ""),
        as_groups=tuple(str(group) for group in who.get("as-groups") or ()),
        as_uid=str(who.get("as-uid") or ""),
        as_extra=tuple((key, str(v)) for key, values in (who.get("as-user-extra") or {}).items() for v in values),
    )


def write_context(path: Path, name: str, access: Access, *, make_current: bool = True) -> None:
    """Adds or replaces the cluster, user and context called `name` in the file, and leaves all else in it. The file
    appears whole or not at all, readable by its owner only."""
    path = path.resolve()  # a symlink stays one; what it points at is replaced
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        config = _read(path) if path.exists() else {}
        config.setdefault("apiVersion", "v1")
        config.setdefault("kind", "Config")
        _put(config, "clusters", name, {"cluster": _cluster(access)})
        _put(config, "users", name, {"user": _user(access)})
        context = {"cluster": name, "user": name}
        if access.namespace != "default":
            context["namespace"] = access.namespace
        _put(config, "contexts", name, {"context": context})
        if make_current or not config.get("current-context"):
            config["current-context"] = name
        _write(path, config)


def current_context(path: Path) -> str:
    """Empty when there is none, or no file."""
    return str(_read(path).get("current-context") or "") if path.exists() else ""


def use_context(path: Path, name: str) -> str:
    """Makes `name` the current context if the file has it, else none; returns which is current then."""
    path = path.resolve()
    with _locked(path):
        config = _read(path)
        known = [entry.get("name") for entry in config.get("contexts") or []]
        config["current-context"] = name if name in known else ""
        _write(path, config)
        return str(config["current-context"])


def remove_context(path: Path, name: str) -> None:
    """Takes the cluster, user and context called `name` out of the file, if they are there."""
    path = path.resolve()
    if not path.exists():
        return
    with _locked(path):
        config = _read(path)
        kept = {kind: [e for e in config.get(kind) or [] if e.get("name") != name] for kind in _LISTS}
        if all(kept[kind] == (config.get(kind) or []) for kind in _LISTS):
            return
        config.update(kept)
        if config.get("current-context") == name:
            config["current-context"] = ""
        _write(path, config)


def _merged(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[tuple[str, Any], Path]]:
    merged: dict[str, Any] = {kind: {} for kind in _LISTS} | {"current-context": ""}
    origin: dict[tuple[str, Any], Path] = {}
    existing = [path for path in paths if path.exists()]
    if not existing:
        shown = ", ".join(str(path) for path in paths)
        raise KubeconfigError(f"{shown} does not exist: start a home with hotvirt up, or name another file")
    for path in existing:
        config = _read(path)
        merged["current-context"] = merged["current-context"] or config.get("current-context") or ""
        for kind in _LISTS:
            for entry in config.get(kind) or []:
                if entry.get("name") not in merged[kind]:
                    merged[kind][entry.get("name")] = entry.get(kind[:-1]) or {}
                    origin[kind, entry.get("name")] = path.parent
    return merged, origin


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise KubeconfigError(f"{path} can't be read: {error.strerror}; check its owner and mode") from error
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path} is not YAML ({error}); mend it or move it away") from error
    if config is None:
        return {}
    lists = isinstance(config, dict) and all(
        isinstance(config.get(kind) or [], list) and all(isinstance(e, dict) for e in config.get(kind) or [])
        for kind in _LISTS
    )
    if not lists:
        raise KubeconfigError(f"{path} is not a kubeconfig (clusters, users and contexts are lists); move it away")
    return dict(config)


def _write(path: Path, config: dict[str, Any]) -> None:
    import yaml

    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            os.fchmod(draft.fileno(), FILE_MODE)
            yaml.safe_dump(config, draft, sort_keys=False, allow_unicode=True)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """kubectl's own lock, a file beside the kubeconfig that only one program can create."""
    lock = path.with_name(path.name + ".lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise KubeconfigError(f"another program is changing {path}; if none is, remove {lock}") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _put(config: dict[str, Any], kind: str, name: str, entry: dict[str, Any]) -> None:
    entries = list(config.get(kind) or [])
    at = next((i for i, e in enumerate(entries) if e.get("name") == name), len(entries))
    entries[at : at + 1] = [{"name": name, **entry}]
    config[kind] = entries


def _cluster(access: Access) -> dict[str, Any]:
    cluster: dict[str, Any] = {"server": access.server}
    if access.ca:
        cluster["certificate-authority-data"] = _encoded(access.ca)
    if access.insecure:
        cluster["insecure-skip-tls-verify"] = True
    if access.tls_server_name:
        cluster["tls-server-name"] = access.tls_server_name
    return cluster


def _user(access: Access) -> dict[str, Any]:
    user: dict[str, Any] = {}
    if access.certificate:
        user["client-certificate-data"] = _encoded(access.certificate)
    if access.key:
        user["client-key-data"] = _encoded(access.key)
    if access.token:
        user["token"] = access.token
    return user


def _entry(merged: dict[str, Any], kind: str, name: str, shown: str) -> dict[str, Any]:
    if name not in merged[kind]:
        known = ", ".join(sorted(str(n) for n in merged[kind])) or "none"
        raise KubeconfigError(f"{shown} has no {kind[:-1]} {name!r}; it has: {known}")
    return dict(merged[kind][name])


def _pem(entry: dict[str, Any], field: str, at: Path) -> str:
    """From `<field>-data` (base64), else from the file that `<field>` names."""
    if data := entry.get(f"{field}-data"):
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError) as error:
            raise KubeconfigError(f"{field}-data is not base64 of a PEM text: write the context anew") from error
    return _text(entry.get(field), at)


def _text(name: str | None, at: Path) -> str:
    if not name:
        return ""
    try:
        return (at / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"{at / name}, which the kubeconfig names, can't be read: {error}") from error


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
