"""Secrets of type `kubernetes.io/service-account-token`: filled with a token that lasts as long as the Secret does.

Kubernetes makes none by itself any more, but fills those that people make, for clients that can't ask for new tokens.
They go with their account.
"""

import base64
from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import NotFound
from hotvirt.server.calls import Call, DeleteOptions
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.kind_checks import TOKEN_ACCOUNT as NAME
from hotvirt.server.kind_checks import TOKEN_TYPE as TYPE
from hotvirt.server.tokens import Tokens
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

Document = dict[str, Any]
SECRETS, ACCOUNTS = "/secrets", "/serviceaccounts"
UID = "kubernetes.io/service-account.uid"


class TokenSecretKeeper:
    """`ca` is the PEM that whoever uses a token is to trust this server by."""

    def __init__(self, verbs: Verbs, tokens: Tokens, user: User, *, ca: str) -> None:
        self._verbs, self._tokens, self._user, self._ca = verbs, tokens, user, ca
        self._worker: Worker[Key] = Worker("token secrets", self._look_at)

    def start(self) -> None:
        for entry in self._verbs.store.entries(SECRETS):
            self._worker.add(entry.key)
        self._worker.start(
            self._verbs.store.listen(SECRETS, self._hear_secret),
            self._verbs.store.listen(ACCOUNTS, self._hear_account),
        )

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear_secret(self, event: Event) -> None:
        if event.type != "DELETED" and event.doc.get("type") == TYPE:
            self._worker.add(event.key)

    def _hear_account(self, event: Event) -> None:
        if event.type == "MODIFIED":
            return
        for entry in self._verbs.store.entries(SECRETS, event.key.namespace):
            annotations = self._verbs.store.doc(entry)["metadata"].get("annotations") or {}
            if annotations.get(NAME) == event.key.name:
                self._worker.add(entry.key)

    async def _look_at(self, key: Key) -> None:
        entry, served = self._verbs.store.get(key), self._verbs.registry.by_store(SECRETS)
        if entry is None or served is None:
            return
        secret = self._verbs.store.doc(entry)
        meta = secret["metadata"]
        if secret.get("type") != TYPE or meta.get("deletionTimestamp"):
            return
        annotations = meta.get("annotations") or {}
        found = self._verbs.store.get(Key(ACCOUNTS, key.namespace, annotations.get(NAME) or ""))
        account = self._verbs.store.doc(found)["metadata"]["uid"] if found else ""
        call = Call(served=served, user=self._user, namespace=key.namespace, name=key.name, field_validation="Ignore")
        try:
            if annotations.get(UID) not in (None, "", account) or (annotations.get(UID) and not account):
                await self._verbs.delete(call, DeleteOptions(uid=meta["uid"]))
            elif account:
                await self._verbs.change(call, lambda old: self._filled(old, account))
        except NotFound:
            return

    def _filled(self, secret: Document, account: str) -> Document:
        """What is there already is left alone: a token of ours stays good."""
        meta, data = secret["metadata"], secret.get("data") or {}
        name = (meta.get("annotations") or {})[NAME]
        given = {"namespace": meta["namespace"], "ca.crt": self._ca}
        if not data.get("token"):
            given["token"] = self._tokens.lasting(meta["namespace"], name, account, secret=meta)
        coded = {key: base64.b64encode(text.encode()).decode() for key, text in given.items()}
        annotations = {**(meta.get("annotations") or {}), UID: account}
        return {**secret, "metadata": {**meta, "annotations": annotations}, "data": {**data, **coded}}
