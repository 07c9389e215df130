"""A web server for images that can be asked to misbehave. Ends with its block."""

import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Images:
    """`files` by name. Of a name, `pace` is bytes a second, `cut` where an answer ends too early (once), `stall` where
    it stops for good, `changes` that each answer is of another version, `silent` that none has a size, `says` the
    whole size where a part is asked for. `asked`: (name, Range) of each question."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pace: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.changes: set[str] = set()
        self.silent: set[str] = set()
        self.says: dict[str, int] = {}
        self.password = ""
        self.asked: list[tuple[str, str]] = []
        self.versions = 0
        self.url = ""
        self.ended = threading.Event()

    def put(self, name: str, content: bytes | Path) -> str:
        self.files[name] = content if isinstance(content, bytes) else content.read_bytes()
        return f"{self.url}/{name}"


@contextlib.contextmanager
def serve(*, certificate: tuple[Path, Path] | None = None) -> Iterator[Images]:
    images = Images()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, images)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    images.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield images
    finally:
        images.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, images: Images) -> None:
    name = request.path.strip("/").partition("?")[0]
    asked = request.headers.get("Range") or ""
    images.asked.append((name, asked))
    content = images.files.get(name)
    if images.password and request.headers.get("Authorization") != images.password:
        _end(request, 401)
        return
    if content is None:
        _end(request, 404)
        return
    if name in images.changes:
        images.versions += 1
        content = content[:-1] + bytes([images.versions % 256])
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    begin = 0
    found = re.fullmatch(r"bytes=(\d+)-", asked)
    if found and request.headers.get("If-Range") in (None, etag):
        begin = int(found[1])
        request.send_response(206)
        whole = images.says.get(name, "*" if name in images.silent else len(content))
        request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{whole}")
    else:
        request.send_response(200)
    request.send_header("ETag", etag)
    if name in images.silent:
        request.send_header("Connection", "close")
    else:
        request.send_header("Content-Length", str(len(content) - begin))
    request.end_headers()
    with contextlib.suppress(OSError):
        _send(request, images, name, content, begin)


def _send(request: BaseHTTPRequestHandler, images: Images, name: str, content: bytes, begin: int) -> None:
    end = images.cut.pop(name, len(content))
    step = 64 << 10
    for at in range(begin, end, step):
        if images.stall.get(name, len(content) + 1) <= at:
            images.ended.wait(60)
            break
        request.wfile.write(content[at : min(at + step, end)])
        if pace := images.pace.get(name):
            time.sleep(step / pace)
    if end < len(content):
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True


def _end(request: BaseHTTPRequestHandler, code: int) -> None:
    request.send_response(code)
    request.send_header("Content-Length", "0")
    request.end_headers()
