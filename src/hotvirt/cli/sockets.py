"""Opening a WebSocket of the API, with the refusal's own words when there is one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from hotvirt.cli.api import Api, Target, tls_context
from hotvirt.cli.errors import CliError
from hotvirt.kube.errors import Unreachable

PROTOCOL = "plain.kubevirt.io"


@asynccontextmanager
async def connect(target: Target, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    tls = tls_context(target) if target.server.startswith("https:") else True
    async with aiohttp.ClientSession() as session:
        try:
            socket = await session.ws_connect(
                target.server + path, protocols=(PROTOCOL,), headers=headers, ssl=tls, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            # The handshake's failure has only a number; the same question without an upgrade gives the sentence.
            Api(target).request("GET", path)
            raise CliError(f"the server refused the stream with HTTP {error.status}") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"no answer from {target.server}: {error}") from error
        async with socket:
            yield socket
