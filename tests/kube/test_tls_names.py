"""A certificate's name that is not the address: what a kubeconfig's tls-server-name, or an option, says."""

import http.server
import threading

import pytest
from msgspec import structs

from hotvirt.cli.api import Api
from hotvirt.kube.errors import Unreachable
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import NODES
from hotvirt.server.pki import Pki


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"items": []}')

    def log_message(self, *_):
        pass


@pytest.fixture
def access(tmp_path):
    """Of an API whose certificate is for 127.0.0.1 and others, at an address that is none of them."""
    pki = Pki(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    server.socket = pki.server_context(("api.example",)).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Access(server=f"https://127.0.0.2:{server.server_port}", ca=pki.ca.read_text())
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_named_certificate_is_asked_for(access):
    for name, is_right in (("api.example", True), ("other.example", False), ("", False)):
        here = structs.replace(access, tls_server_name=name)
        api = Api(here)
        async with RemoteClient(here, timeout=5) as client:
            if is_right:
                assert api.list(NODES) == []
                assert (await client.list(NODES))["items"] == []
            else:
                with pytest.raises(Unreachable):
                    api.list(NODES)
                with pytest.raises(Unreachable):
                    await client.list(NODES)
        api.close()
