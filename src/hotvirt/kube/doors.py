"""Paths of the API's port that are not the API's: whoever comes there brings a token of the thing itself.

Downloads of exports and uploads of images are such. The server hands a request below `prefix` on before it asks who
comes: the door checks that itself. What it raises (`hotvirt.kube.errors`) leaves as a Status, as any failure does.
"""

from typing import Protocol

from aiohttp import web


class Door(Protocol):
    @property
    def prefix(self) -> str:
        """Such as `/api/export.kubevirt.io/`."""
        ...

    async def handle(self, request: web.Request) -> web.StreamResponse: ...
