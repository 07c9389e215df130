"""Opening a WebSocket of the API, with the refusal's own words when there is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import aiohttp

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.kube.errors import Unreachable
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.tls import client_context

PROTOCOL = "plain.kubevirt.io"


@asynccontextmanager
async def connect(access: Access, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    tls = client_context(access) if access.server.startswith("https:") else True
    async with aiohttp.ClientSession() as session:
        try:
            socket = await session.ws_connect(
                access.server + path, protocols=(PROTOCOL,), headers=access.headers(), ssl=tls, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            # The handshake's failure has only a number; the same question without an upgrade gives the sentence.
            await asyncio.to_thread(_raise_refusal, access, path)
            raise CliError(f"the server refused the stream with HTTP {error.status}") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"no answer from {access.server}: {error}") from error
        async with socket:
            yield socket


def _raise_refusal(access: Access, path: str) -> None:
    with closing(Api(access)) as api:
        api.request("GET", path)
