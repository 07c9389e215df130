"""Token Secrets: filled, good for as long as they are there, gone with their account."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from hotvirt.kube.errors import Invalid, NotFound, Unauthorized
from hotvirt.kube.resources import SECRETS, SERVICE_ACCOUNTS
from hotvirt.server.app import ApiServer
from hotvirt.server.inprocess import LocalClient

ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}


def secret(**annotations: str) -> dict[str, Any]:
    about = annotations or {"kubernetes.io/service-account.name": "robot"}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "s", "annotations": about}}  # fmt: skip


async def until(client: LocalClient, holds: Callable[[Any], bool]) -> Any:
    """The Secret, None when it is gone: each look gives the keeper its turn."""
    async with asyncio.timeout(5):
        while True:
            try:
                found: Any = await client.get(SECRETS, "s", "default")
            except NotFound:
                found = None
            if holds(found):
                return found
            await asyncio.sleep(0.005)


def text(found: Any, key: str) -> str:
    return base64.b64decode(found["data"][key]).decode()


async def test_it_is_filled_and_lasts_as_long_as_the_secret(client: LocalClient, server: ApiServer) -> None:
    await client.create(SECRETS, secret(), "default")
    account = await client.create(SERVICE_ACCOUNTS, ACCOUNT, "default")
    found = await until(client, lambda each: each.get("data"))
    assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    assert text(found, "namespace") == "default"
    assert text(found, "ca.crt").startswith("-----BEGIN CERTIFICATE-----")
    token = text(found, "token")
    assert server.tokens.user_of(token).name == "system:serviceaccount:default:robot"
    await client.patch(SECRETS, "s", {"metadata": {"labels": {"a": "b"}}}, "default")
    await asyncio.sleep(0.01)
    assert text(await client.get(SECRETS, "s", "default"), "token") == token
    await client.delete(SECRETS, "s", "default")
    with pytest.raises(Unauthorized, match="secret that the token is bound to is gone"):
        server.tokens.user_of(token)


async def test_it_goes_with_its_account(client: LocalClient) -> None:
    await client.create(SERVICE_ACCOUNTS, ACCOUNT, "default")
    await client.create(SECRETS, secret(), "default")
    await until(client, lambda each: each.get("data"))
    await client.delete(SERVICE_ACCOUNTS, "robot", "default")
    await until(client, lambda each: each is None)


async def test_whose_it_is_must_be_said(client: LocalClient) -> None:
    with pytest.raises(Invalid, match="say whose token"):
        await client.create(SECRETS, secret(other="x"), "default")


async def test_a_token_for_too_long_is_cut_and_says_so(client: LocalClient) -> None:
    await client.create(SERVICE_ACCOUNTS, ACCOUNT, "default")
    body = {"spec": {"expirationSeconds": 10**10}}
    made = await client.post(SERVICE_ACCOUNTS, "robot", "token", body, "default")
    assert made["spec"]["expirationSeconds"] == 365 * 24 * 3600
