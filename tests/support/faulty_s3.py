"""An HTTP proxy in front of a real S3 server that injects faults into selected requests.

Each request is forwarded unchanged, with its Host header, so that its signature stays valid. Only
listings are requested again with short pages, so that a day with few images has several pages. A
`Fault` selects requests and says what happens to them; the proxy counts the injected faults.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

PAGE = 10
"""Keys in one page of a listing."""
ALWAYS = 1_000_000


@dataclass
class Fault:
    """A fault of requests for keys, or of listings of prefixes, that contain `of`.

    The first `after` requests for each key or prefix are forwarded unchanged, and the fault affects
    the next `times`.
    """

    kind: str
    of: str
    times: int = ALWAYS
    after: int = 0
    is_listing: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def applies_to(self, key: str, is_listing: bool) -> bool:
        if is_listing is not self.is_listing or self.of not in key:
            return False
        self.seen[key] += 1
        return self.after < self.seen[key] <= self.after + self.times


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    content_length: int | None = None
    """The Content-Length header, if it differs from the length of the body."""
    is_chunked: bool = False
    """Whether the body is sent in chunks, without a Content-Length."""


class FaultyS3(ThreadingHTTPServer):
    """The proxy. `faults` may be changed while it runs; `injected` counts them by kind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str, bucket: str, keys: Credentials) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(endpoint).netloc
        self.bucket = bucket
        self.signer = S3SigV4QueryAuth(keys, "s3", "us-east-1")
        self.faults: list[Fault] = []
        self.injected: Counter[str] = Counter()
        self.first_pages: dict[str, Response] = {}
        self.lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def find_fault(self, key: str, is_listing: bool) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault.applies_to(key, is_listing):
                    self.injected[f"{'list' if is_listing else 'get'}: {fault.kind}"] += 1
                    return fault.kind
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients that time out close the connection first."""


@contextmanager
def running_proxy(endpoint: str, bucket: str, keys: Credentials) -> Iterator[FaultyS3]:
    """A running proxy."""
    server = FaultyS3(endpoint, bucket, keys)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        key = unquote(path).removeprefix(f"/{self.server.bucket}").removeprefix("/")
        params = {name: values[0] for name, values in parse_qs(query).items()}
        is_listing = not key and "list-type" in params
        kind = self.server.find_fault(params.get("prefix", "") if is_listing else key, is_listing)
        if kind == "reset":
            return self._reset()
        if kind == "slow":
            time.sleep(3)  # longer than the request timeout in these tests
        if kind in _ERRORS:
            return self._send(_ERRORS[kind])
        if is_listing:
            response = self._fetch_page(params)
            change = _PAGE_CHANGES.get(kind or "")
            if kind in ("first page repeated", "cycle"):
                response = self.server.first_pages[params["prefix"]]
            elif len(params) == 3:
                self.server.first_pages[params["prefix"]] = response
        else:
            response = self._forward(self.path, dict(self.headers.items()))
            change = _OBJECT_CHANGES.get(kind or "")
        return self._send(change(response) if change else response)

    def _fetch_page(self, params: dict[str, str]) -> Response:
        query = urlencode({**params, "max-keys": PAGE}, quote_via=quote)
        host = self.server.upstream
        request = AWSRequest("GET", f"http://{host}/{self.server.bucket}?{query}")
        self.server.signer.add_auth(request)
        signed = urlsplit(str(request.url))
        return self._forward(f"{signed.path}?{signed.query}", {"Host": host})

    def _forward(self, path: str, headers: dict[str, str]) -> Response:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=20)
        try:
            connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return Response(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = len(response.body) if response.content_length is None else response.content_length
        if response.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(response.body), response.body))
            return
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(response.body)
        self.close_connection = length != len(response.body)

    def _reset(self) -> None:
        no_linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Log no requests."""


def _build_error(status: int, code: str) -> Response:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Response(status, {"Content-Type": "application/xml"}, body)


_ERRORS = {
    "403": _build_error(403, "AccessDenied"),
    "archived": _build_error(403, "InvalidObjectState"),
    "500": _build_error(500, "InternalError"),
    "503": _build_error(503, "SlowDown"),
}


def _cut_off(response: Response) -> Response:
    """Send half of the body and then close the connection."""
    half = response.body[: len(response.body) // 2]
    return Response(response.status, response.headers, half, content_length=len(response.body))


def _truncate(response: Response) -> Response:
    """Send half of the body, with a Content-Length to match."""
    return Response(response.status, response.headers, response.body[: len(response.body) // 2])


def _replace_etag(response: Response) -> Response:
    headers = {name: value for name, value in response.headers.items() if name.lower() != "etag"}
    return Response(response.status, {**headers, "ETag": f'"{"0" * 32}"'}, response.body)


def _replace_text(pattern: bytes, by: bytes, response: Response) -> Response:
    body = re.sub(pattern, by, response.body, flags=re.DOTALL)
    return Response(response.status, response.headers, body)


def _remove_token(response: Response) -> Response:
    return _replace_text(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", response)


def _mark_as_last(response: Response) -> Response:
    return _replace_text(rb"<IsTruncated>true<", b"<IsTruncated>false<", response)


def _send_in_chunks(response: Response) -> Response:
    return Response(response.status, response.headers, response.body, is_chunked=True)


_OBJECT_CHANGES = {
    "cut": _cut_off,
    "half": _truncate,
    "wrong etag": _replace_etag,
    "chunked": _send_in_chunks,
}

_PAGE_CHANGES = {
    "cut": _cut_off,
    "half": _truncate,
    "wrong etag": lambda a: _replace_text(
        rb"<ETag>[^<]*</ETag>", b"<ETag>&quot;" + b"0" * 32 + b"&quot;</ETag>", a
    ),
    "no token": _remove_token,
    "marked as last": lambda a: _mark_as_last(_remove_token(a)),
    "marked as last, with a token": _mark_as_last,
    "no IsTruncated": lambda a: _replace_text(rb"<IsTruncated>.*?</IsTruncated>", b"", a),
    "a key is missing": lambda a: Response(
        a.status,
        a.headers,
        re.sub(rb"<Contents>.*?</Contents>", b"", a.body, count=1, flags=re.DOTALL),
    ),
    "no etags": lambda a: _replace_text(rb"<ETag>.*?</ETag>", b"", a),
    "weak etags": lambda a: _replace_text(rb"<ETag>", b"<ETag>W/", a),
    "times without zone": lambda a: _replace_text(rb"Z</LastModified>", b"</LastModified>", a),
    "no times": lambda a: _replace_text(rb"<LastModified>.*?</LastModified>", b"", a),
}
