"""Downloads: what is fetched, and that no URL reaches a private network."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.predict.downloads import Address, download, is_public
from fer_batch.records import Outcome
from tests.support.certificates import write_certificates

BODY = b"the bytes of an image" * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    server: Server

    def do_GET(self) -> None:
        name = unquote(self.path.partition("?")[0]).strip("/").replace("-", "_").replace(" ", "_")
        getattr(self, f"answer_{name}", self.answer_404)()

    def reply(self, status: int, body: bytes = b"", **headers: Any) -> None:
        self.send_response(status)
        for key, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def answer_image(self) -> None:
        self.reply(200, BODY)

    answer_a_name_with_blanks = answer_bücher = answer_image

    def answer_host(self) -> None:
        self.reply(200, self.headers["Host"].encode())

    def answer_404(self) -> None:
        self.reply(404, b"not here")

    def answer_without_length(self) -> None:
        self.reply(200, BODY, Content_Length=None)

    def answer_moved(self) -> None:
        self.reply(302, Location="/image")

    def answer_moved_abroad(self) -> None:
        self.reply(302, Location="/bücher".encode().decode("latin-1"))

    def answer_circle(self) -> None:
        self.reply(301, Location="/circle")

    def answer_inward(self) -> None:
        self.reply(302, Location=f"http://127.0.0.2:{self.server.server_port}/image")

    def answer_to_a_file(self) -> None:
        self.reply(302, Location="file:///etc/passwd")

    def answer_to_no_address(self) -> None:
        self.reply(302, Location="http://[zz/")

    def answer_cut(self) -> None:
        self.reply(200, BODY, Content_Length=len(BODY) + 1)

    def answer_compressed(self) -> None:
        self.reply(200, BODY, Content_Encoding="gzip")

    def answer_endless(self) -> None:
        self.reply(200, Content_Length=None)
        while True:
            self.wfile.write(BODY)

    def answer_drip(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.server.is_over.wait(0.05):
            self.wfile.write(b"X-Drip: 1\r\n")

    def answer_drip_of_bytes(self) -> None:
        self.reply(200, Content_Length=None)
        while not self.server.is_over.wait(0.05):
            self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_over = threading.Event()

    def handle_error(self, *_: object) -> None:
        pass  # clients close connections on purpose


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as running:
        yield f"http://127.0.0.1:{running.server_port}"


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server() as running:
        if context is not None:
            running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.is_over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def on_443(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server that appears to be on port 443 of 127.0.0.1; returns its certificate authority."""
    authority, server = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    connect = socket.create_connection
    with serving(context) as running:

        def redirected(address: tuple[str, int], **options: Any) -> socket.socket:
            assert address == ("127.0.0.1", 443)
            return connect(("127.0.0.1", running.server_port), **options)

        monkeypatch.setattr(socket, "create_connection", redirected)
        yield authority


def fetch(
    url: str,
    max_bytes: int = 100_000,
    timeout_s: float = 10,
    is_allowed: Callable[[Address], bool] = lambda address: str(address) == "127.0.0.1",
) -> bytes:
    return download(url, max_bytes=max_bytes, timeout_s=timeout_s, is_allowed=is_allowed)


def refused(url: str, **options: Any) -> UndecodableImageError:
    with pytest.raises(UndecodableImageError) as caught:
        fetch(url, **options)
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "/image",
        "/image?a=ü&b=%2F",
        "/without-length",
        "/moved",
        "/moved-abroad",
        "/a name with blanks",
    ],
)
def test_an_image_is_downloaded(server: str, path: str) -> None:
    assert fetch(server + path) == BODY


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/nothing", "404"),
        ("/circle", "redirects"),
        ("/inward", "private network"),
        ("/to-a-file", "only http and https"),
        ("/to-no-address", "the address is wrong"),
        ("/cut", "ends early"),
        ("/compressed", "compressed"),
    ],
)
def test_errors_are_described(server: str, path: str, word: str) -> None:
    error = refused(server + path)
    assert error.outcome is Outcome.FETCH_FAILED
    assert word in error.reason


def test_an_image_is_downloaded_over_tls_with_the_usual_host_header(
    on_443: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: default(cafile=on_443))
    assert fetch("https://127.0.0.1/image") == BODY
    assert fetch("https://127.0.0.1/host") == b"127.0.0.1"


def test_an_untrusted_certificate_is_refused(on_443: Path) -> None:
    assert "TLS failed: " in refused("https://127.0.0.1/image").reason


@pytest.mark.parametrize("path", ["/image", "/without-length", "/endless"])
def test_more_bytes_than_allowed_are_not_read(server: str, path: str) -> None:
    assert refused(server + path, max_bytes=len(BODY) - 1).outcome is Outcome.TOO_LARGE


def test_exactly_as_many_bytes_as_allowed_are_read(server: str) -> None:
    assert fetch(server + "/image", max_bytes=len(BODY)) == BODY


@pytest.mark.parametrize("path", ["/drip", "/drip-of-bytes"])
def test_a_response_that_drips_times_out(server: str, path: str) -> None:
    assert "took longer" in refused(server + path, timeout_s=0.4).reason


def test_unreachable_and_unknown_hosts_are_reported() -> None:
    assert "refused" in refused("http://127.0.0.1:9/image").reason
    assert "not known" in refused("http://no-such-host.invalid/image").reason


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://127.0.0.1/a", "only http"),
        ("http://", "no host"),
        ("http://user:secret@127.0.0.1/", "user name"),
        ("http://127.0.0.1:port/", "wrong"),
        ("http://[::1/", "wrong"),
    ],
)
def test_invalid_urls_are_refused(url: str, word: str) -> None:
    error = refused(url)
    assert word in error.reason
    assert "secret" not in error.reason


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://localhost",
        "http://0.0.0.0",
        "http://[::1]",
        "http://[::ffff:127.0.0.1]",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_private_addresses_are_not_contacted_by_default(server: str, url: str) -> None:
    with pytest.raises(UndecodableImageError, match="private network"):
        download(
            f"{url}:{server.rpartition(':')[2]}" if url.count("/") == 2 else url,
            max_bytes=1000,
            timeout_s=5,
        )


Answers = Callable[[list[str]], list[str]]


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets the addresses of `shop.example`: one text per lookup, the last one for all later ones.

    Returns the list of lookups, which grows.
    """
    real = socket.getaddrinfo
    lookups: list[str] = []

    def set_up(answers: list[str]) -> list[str]:
        def resolve(host: str, port: int, *rest: Any, **options: Any) -> Any:
            if host != "shop.example":
                return real(host, port, *rest, **options)
            lookups.append(host)
            return [
                entry
                for address in answers[min(len(lookups), len(answers)) - 1].split()
                for entry in real(address, port, *rest, **options)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return lookups

    return set_up


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "::ffff:10.0.0.1", "127.0.0.1", "93.184.216.34 127.0.0.1", "::1"]
)
def test_a_name_that_resolves_to_a_private_address_is_refused(
    server: str, name_service: Answers, address: str
) -> None:
    name_service([address])
    url = f"http://shop.example:{server.rpartition(':')[2]}/image"
    with pytest.raises(UndecodableImageError, match="private network"):
        download(url, max_bytes=100_000, timeout_s=5)


def test_a_name_is_resolved_once_and_the_checked_address_is_used(
    server: str, name_service: Answers
) -> None:
    lookups = name_service(["127.0.0.1", "127.0.0.2"])  # 127.0.0.2 stands for a private address
    assert fetch(f"http://shop.example:{server.rpartition(':')[2]}/image") == BODY
    assert lookups == ["shop.example"]


def test_a_name_that_changes_before_a_redirect_is_checked_again(
    server: str, name_service: Answers
) -> None:
    lookups = name_service(["127.0.0.1", "127.0.0.2"])
    error = refused(f"http://shop.example:{server.rpartition(':')[2]}/moved")
    assert "private network" in error.reason
    assert len(lookups) == 2


def test_a_name_service_that_does_not_answer_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(60))
    assert "took longer" in refused("http://shop.example/a.jpg", timeout_s=0.2).reason
    assert not is_over.is_set()
    is_over.set()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("::ffff:0:7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("fec0::1", False),
        ("5f00::1", False),
        ("3fff::1", False),
        ("192.0.0.8", False),
    ],
)
def test_public_and_private_addresses(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is expected
