"""console, vnc, port-forward: bytes to a guest and back. ssh and scp are in test_virtctl_debian.py."""

import socket
import struct
import time
import urllib.request

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

PNG = b"\x89PNG\r\n\x1a\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetched(port, path, *, patience=60):
    """Over HTTP. The port may not be there yet, nor the guest's server."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.read()
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {port}"
            time.sleep(0.3)


def test_console_is_the_guests_shell(virtctl, web):
    web.boot()
    with virtctl.console("web") as console:
        console.type("\n")
        console.read_until("# ")
        console.type("echo 4$((1 + 1))-is-it\n")
        console.read_until("42-is-it")
    # A second one displaces the first.
    with virtctl.console("web") as first:
        first.type("\n")
        first.read_until("# ")
        with virtctl.console("web") as second:
            second.type("\n")
            second.read_until("# ")
            first.ended()


def test_vnc_proxy_is_the_guests_display(virtctl, web, read):
    port = free_port()
    with virtctl.started("vnc", "web", "--proxy-only", f"--port={port}") as process:
        assert read(process, b"\n").strip() == b'{"port":%d}' % port or virtctl.is_ours
        with socket.create_connection(("127.0.0.1", port), timeout=30) as viewer:
            assert viewer.recv(12) == b"RFB 003.008\n"
            viewer.sendall(b"RFB 003.008\n")
            kinds = viewer.recv(1)[0]
            assert 1 in viewer.recv(kinds)  # no password
            viewer.sendall(b"\x01")
            assert viewer.recv(4) == b"\0\0\0\0"
            viewer.sendall(b"\x01")
            width, height = struct.unpack(">HH", viewer.recv(4))
            assert width >= 640
            assert height >= 400


def test_screenshot_is_a_picture_of_the_display(virtctl, web):
    virtctl("vnc", "screenshot", "web", "--file=web.png", "--move-cursor")
    data = (virtctl.directory / "web.png").read_bytes()
    assert data.startswith(PNG)
    width, height = struct.unpack(">II", data[16:24])
    assert (width >= 640, height >= 400) == (True, True)


def test_port_forward_reaches_the_guests_ports(virtctl, home, web, read):
    with virtctl.console("web") as console:
        console.type("\n")
        console.read_until("# ")
        console.type("mkdir -p /www; echo gu''est-$((6 * 7)) > /www/index.html; httpd -p 8080 -h /www; "
                     "nc -ll -p 7777 -e cat & echo re''ady\n")  # fmt: skip
        console.read_until("ready")
    one, two = free_port(), free_port()
    with virtctl.forwarded("vm/web", f"{one}:8080", f"tcp/{two}:7777"):
        assert fetched(one, "/") == b"guest-42\n"
        with socket.create_connection(("127.0.0.1", two), timeout=30) as echo:
            for number in range(3):
                echo.sendall(b"%d again\n" % number)
                assert echo.makefile("rb").readline() == b"%d again\n" % number
    with virtctl.forwarded("vmi/web/default", f"{one}:8080", "--address=127.0.0.1"):
        assert fetched(one, "/index.html") == b"guest-42\n"
    with virtctl.started("port-forward", "--stdio=true", "vm/web", "8080") as process:
        process.stdin.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in read(process, b"guest-42\n")
    assert "not found" in virtctl.fails("port-forward", "--stdio", "vm/nobody", "8080")
    for words in (["vm/web", "http"], ["pod/web", "80"], ["vm/web"]):
        virtctl.fails("port-forward", *words)
