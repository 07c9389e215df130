"""Asks one webhook over HTTPS. Connections are kept, and shared by requests on the event loop."""

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import aiohttp

LARGEST_ANSWER = 3 * 1024 * 1024
CONTEXTS = 64


class CallFailed(Exception):
    """No answer that can be used. The text says why."""


class WebhookClient:
    """`close` ends the connections; it can be used again afterwards."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def ask(self, url: str, question: Any, *, ca: str, server_name: str | None, timeout: int) -> Any:
        """The answer's document. `server_name` is whom the certificate must name, when that is not the URL's host."""
        import aiohttp

        if self._session is None:  # the environment's proxies are not for these, and trust_env is off
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        try:
            async with asyncio.timeout(timeout):
                async with self._session.post(
                    url, data=msgspec.json.encode(question), ssl=self._context(ca), server_hostname=server_name,
                    allow_redirects=False, params={"timeout": f"{timeout}s"},
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                ) as response:  # fmt: skip
                    body = await _read(response)
        except TimeoutError as error:
            raise CallFailed(f'Post "{url}": no answer within {timeout} s') from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallFailed(f'Post "{url}": {error}') from error
        if response.status != 200:
            raise CallFailed(f'Post "{url}": the server answered {response.status} {response.reason}')
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise CallFailed(f'Post "{url}": the answer is not JSON: {error}') from error

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _context(self, ca: str) -> ssl.SSLContext:
        if ca not in self._contexts:
            if len(self._contexts) >= CONTEXTS:  # of certificates that were since renewed
                self._contexts.clear()
            self._contexts[ca] = ssl.create_default_context(cadata=ca or None)
        return self._contexts[ca]


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    body = bytearray()
    async for part in response.content.iter_chunked(64 * 1024):
        body += part
        if len(body) > LARGEST_ANSWER:
            raise ValueError(f"the answer has more than {LARGEST_ANSWER} bytes")
    return bytes(body)
