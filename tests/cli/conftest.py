"""An API of a few fixed answers on a real socket, and the command line called on it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from hotvirt.cli.errors import explain
from hotvirt.cli.main import hotvirt
from hotvirt.kube.kubeconfig import Access


class FakeApi:
    """`answers[METHOD, path]` is a document, or (status, document), or a list of such to give one after another.
    `asked` has every request as (method, path with query, body), `headers` the last one's by name, a list each."""

    def __init__(self):
        self.answers, self.asked, self.streams, self.headers = {}, [], {}, {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                api.asked.append((self.command, self.path, body))
                api.headers = {name: self.headers.get_all(name) for name in self.headers}
                path = self.path.partition("?")[0]
                if "watch=true" in self.path:
                    self.stream(api.streams.get(path, []))
                    return
                given = api.answers.get((self.command, path), (404, api.not_found(path)))
                if isinstance(given, list):
                    given = given.pop(0) if len(given) > 1 else given[0]
                status, document = given if isinstance(given, tuple) else (200, given)
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self, events):
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                for event in events:
                    self.wfile.write(json.dumps(event).encode() + b"\n")
                self.close_connection = True

            do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.access = Access(server=f"http://127.0.0.1:{self.server.server_port}")

    @staticmethod
    def not_found(path):
        return {
            "kind": "Status",
            "status": "Failure",
            "reason": "NotFound",
            "code": 404,
            "message": f"{path} not found",
        }


@pytest.fixture(scope="session")
def _server():
    api = FakeApi()
    threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture
def api(_server):
    _server.answers, _server.asked, _server.streams = {}, [], {}
    return _server


@pytest.fixture
def run(api):
    """Calls `hotvirt WORDS`; (exit code, standard output, the error's one line)."""

    def call(*words):
        result = CliRunner().invoke(hotvirt, words, obj=api.access)
        said = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            said += explain(result.exception) or repr(result.exception)
        return result.exit_code, result.stdout, said

    return call
