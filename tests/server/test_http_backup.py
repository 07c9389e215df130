"""The copy of the state over HTTP: whole, and for the administrator alone."""

import ssl
from pathlib import Path

import aiohttp
import pytest

from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.database import check_file
from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server


async def _ask(server: ApiServer, keys: Pki, user: str, *groups: str) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(keys.ca))
    if user:
        pair = keys.client(user, groups)
        context.load_cert_chain(pair.certificate, pair.key)
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(f"https://127.0.0.1:{server.port}", connector=connector) as session,
        session.get("/backup") as answer,
    ):
        return answer.status, await answer.read()


async def test_a_copy_is_sent_whole_and_to_the_administrator_alone(tmp_path: Path, pki: Path) -> None:
    server = ApiServer(ServerConfig(state_db=tmp_path / "state.db", pki=pki))
    await server.start()
    keys = Pki(pki)
    try:
        status, copy = await _ask(server, keys, "admin", "system:masters")
        assert status == 200
        assert (await _ask(server, keys, "somebody"))[0] == 403
        assert (await _ask(server, keys, ""))[0] in (401, 403)
    finally:
        await server.stop()
    (tmp_path / "copy.db").write_bytes(copy)
    check_file(tmp_path / "copy.db")
    assert not list(tmp_path.glob(".state.db.*"))
