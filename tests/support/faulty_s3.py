"""An HTTP proxy before a real S3 server that does to some requests what networks and servers do.

Every request goes on to the server as it came, Host header and all, so that its signature holds;
but a listing is asked for anew, in short pages, so that a day of few images has several. What is
done to which request is said by a `Fault`; how often it was done is counted.
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
    """What is done to requests about keys, or listings of prefixes, that contain `of`.

    The first `after` of them are left alone and the next `times` are not. The same counts hold
    for each key or prefix alone.
    """

    kind: str
    of: str
    times: int = ALWAYS
    after: int = 0
    is_listing: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def strikes(self, key: str, is_listing: bool) -> bool:
        if is_listing is not self.is_listing or self.of not in key:
            return False
        self.seen[key] += 1
        return self.after < self.seen[key] <= self.after + self.times


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    claims: int | None = None
    """Its Content-Length, if that is not the length of the body."""


class FaultyS3(ThreadingHTTPServer):
    """The proxy. `faults` may be changed while it runs; `injected` counts them by their kind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str, bucket: str, keys: Credentials) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(endpoint).netloc
        self.bucket = bucket
        self.signer = S3SigV4QueryAuth(keys, "s3", "us-east-1")
        self.faults: list[Fault] = []
        self.injected: Counter[str] = Counter()
        self.first_pages: dict[str, Answer] = {}
        self.lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def fault_of(self, key: str, is_listing: bool) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault.strikes(key, is_listing):
                    self.injected[f"{'list' if is_listing else 'get'}: {fault.kind}"] += 1
                    return fault.kind
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up first is no news."""


@contextmanager
def faulty(endpoint: str, bucket: str, keys: Credentials) -> Iterator[FaultyS3]:
    """A proxy that runs."""
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
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        is_listing = not key and "list-type" in asked
        kind = self.server.fault_of(asked.get("prefix", "") if is_listing else key, is_listing)
        if kind == "reset":
            return self._reset()
        if kind == "slow":
            time.sleep(3)  # longer than the time limit of a request in these tests
        if kind in _REFUSALS:
            return self._send(_REFUSALS[kind])
        if is_listing:
            answer = self._page(asked)
            change = _PAGE_CHANGES.get(kind or "")
            if kind in ("first page again", "circle"):
                answer = self.server.first_pages[asked["prefix"]]
            elif len(asked) == 3:
                self.server.first_pages[asked["prefix"]] = answer
        else:
            answer = self._forward(self.path, dict(self.headers.items()))
            change = _OBJECT_CHANGES.get(kind or "")
        return self._send(change(answer) if change else answer)

    def _page(self, asked: dict[str, str]) -> Answer:
        query = urlencode({**asked, "max-keys": PAGE}, quote_via=quote)
        host = self.server.upstream
        request = AWSRequest("GET", f"http://{host}/{self.server.bucket}?{query}")
        self.server.signer.add_auth(request)
        where = urlsplit(request.url)
        return self._forward(f"{where.path}?{where.query}", {"Host": host})

    def _forward(self, path: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=20)
        try:
            connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = len(answer.body) if answer.claims is None else answer.claims
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = length != len(answer.body)

    def _reset(self) -> None:
        at_once = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def _refusal(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml"}, body)


_REFUSALS = {
    "403": _refusal(403, "AccessDenied"),
    "500": _refusal(500, "InternalError"),
    "503": _refusal(503, "SlowDown"),
}


def _cut(answer: Answer) -> Answer:
    """Half of it, and then the connection ends."""
    half = answer.body[: len(answer.body) // 2]
    return Answer(answer.status, answer.headers, half, claims=len(answer.body))


def _half(answer: Answer) -> Answer:
    """Half of it, as if that were all."""
    return Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])


def _wrong_etag(answer: Answer) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "etag"}
    return Answer(answer.status, {**headers, "ETag": f'"{"0" * 32}"'}, answer.body)


def _replaced(pattern: bytes, by: bytes, answer: Answer) -> Answer:
    body = re.sub(pattern, by, answer.body, flags=re.DOTALL)
    return Answer(answer.status, answer.headers, body)


def _without_token(answer: Answer) -> Answer:
    return _replaced(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", answer)


def _as_the_last(answer: Answer) -> Answer:
    return _replaced(rb"<IsTruncated>true<", b"<IsTruncated>false<", answer)


_OBJECT_CHANGES = {"cut": _cut, "half": _half, "wrong etag": _wrong_etag}

_PAGE_CHANGES = {
    "cut": _cut,
    "half": _half,
    "wrong etag": lambda a: _replaced(
        rb"<ETag>[^<]*</ETag>", b"<ETag>&quot;" + b"0" * 32 + b"&quot;</ETag>", a
    ),
    "no token": _without_token,
    "says it is the last": lambda a: _as_the_last(_without_token(a)),
    "says it is the last, with a token": _as_the_last,
    "does not say whether it is the last": lambda a: _replaced(
        rb"<IsTruncated>.*?</IsTruncated>", b"", a
    ),
    "a key is missing": lambda a: Answer(
        a.status,
        a.headers,
        re.sub(rb"<Contents>.*?</Contents>", b"", a.body, count=1, flags=re.DOTALL),
    ),
    "no etags": lambda a: _replaced(rb"<ETag>.*?</ETag>", b"", a),
}
