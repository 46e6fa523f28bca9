"""Download one image from an http(s) URL, with protection against server-side request forgery.

The host is resolved once, every IP address is checked, and the connection is opened to a checked
address; the same again for each redirect. So a URL cannot make this machine send requests to its
own network (in particular to a cloud's metadata service). The total size and the total time are
limited. Proxies of the environment are not used: behind a proxy, the address could not be checked.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from string import punctuation
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from fer_batch import __version__
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.records import Outcome

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All other IPv6 addresses are local, reserved, or embed an IPv4 address.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Not public by IANA's registries, but not known to every release of Python 3.11.
_RESERVED = tuple(
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
)
_READ_BYTES = 65_536

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet; an IPv4 address embedded in IPv6 is checked."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    is_reserved = any(address in network for network in _RESERVED)
    return address.is_global and not address.is_multicast and not is_reserved


def download(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    is_allowed: Callable[[Address], bool] = is_public,
) -> bytes:
    """The body of a GET response with status 200, after at most five redirects.

    Raises UndecodableImageError: `too_large` for more than `max_bytes`, else `fetch_failed`.
    """
    deadline = time.monotonic() + timeout_s
    response: bytes | _Redirect | UndecodableImageError
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = _get(_parse_url(url), deadline, max_bytes, is_allowed)
        except (OSError, http.client.HTTPException, ValueError) as error:
            response = _make_fetch_error(_describe_error(error))
        except UndecodableImageError as error:
            response = error
        if time.monotonic() >= deadline:  # any other error then comes from the watchdog
            raise _make_fetch_error(f"the download took longer than {timeout_s:g} s")
        if isinstance(response, UndecodableImageError):
            raise response
        if isinstance(response, bytes):
            return response
        try:
            url = urljoin(url, response.url)
        except ValueError as error:
            raise _make_fetch_error(_describe_error(error)) from None
    raise _make_fetch_error(f"more than {MAX_REDIRECTS} redirects")


class _Redirect:
    def __init__(self, url: str) -> None:
        self.url = url


def _parse_url(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise _make_fetch_error("refused: only http and https addresses are read")
    if not parts.hostname:
        raise _make_fetch_error("refused: the address has no host")
    if parts.username is not None or parts.password is not None:
        raise _make_fetch_error("refused: the address holds a user name")
    return parts


def _get(
    parts: SplitResult, deadline: float, max_bytes: int, is_allowed: Callable[[Address], bool]
) -> bytes | _Redirect:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = _connect(host, port, deadline, is_allowed)
    connection = http.client.HTTPConnection(host, port)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        connection = http.client.HTTPSConnection(host, port, context=context)
    # A socket's timeout restarts with each byte: only a watchdog can end a response that drips.
    watchdog = threading.Timer(max(deadline - time.monotonic(), 0), _shut_down, [sock])
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection.sock = sock
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        connection.request(
            "GET",
            f"{path}?{query}" if query else path,
            headers={
                "User-Agent": f"fer-batch/{__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
        )
        return _read_body(connection.getresponse(), max_bytes)
    finally:
        watchdog.cancel()
        sock.close()


def _connect(
    host: str, port: int, deadline: float, is_allowed: Callable[[Address], bool]
) -> socket.socket:
    addresses = _resolve(host, port, deadline)
    for address in addresses:
        if not is_allowed(ipaddress.ip_address(address.partition("%")[0])):
            raise _make_fetch_error("refused: the host is on a private network")
    last_error: OSError = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection(
                (address, port), timeout=max(deadline - time.monotonic(), 0.001)
            )
        except OSError as error:
            last_error = error
    raise last_error


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """Every address of a host.

    The resolver has no timeout, so it runs in a thread, which is abandoned at the deadline.
    """
    results: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def resolve() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        except Exception as error:
            results.put(error)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    try:
        result = results.get(timeout=max(deadline - time.monotonic(), 0.001))
    except Empty:
        raise _make_fetch_error("the name service does not answer") from None
    if isinstance(result, Exception):
        raise _make_fetch_error("the host is not known") from result
    return result


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the method of SSLSocket, which drops the TLS state that the reading thread uses.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes | _Redirect:
    if response.status in _REDIRECTS and (target := response.headers.get("Location")):
        # http.client decodes headers as Latin-1: this restores the bytes as they were sent.
        return _Redirect(quote(target.encode("latin-1"), safe=punctuation))
    if response.status != 200:
        raise _make_fetch_error(f"the server answers {response.status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _make_fetch_error(
            "the server answers with a compressed body, which was not requested"
        )
    if (response.length or 0) > max_bytes:
        raise _make_size_error(max_bytes)
    body = bytearray()
    while piece := response.read1(_READ_BYTES):
        body += piece
        if len(body) > max_bytes:
            raise _make_size_error(max_bytes)
    if response.length:
        raise _make_fetch_error("the response ends early")
    return bytes(body)


def _describe_error(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, OSError):
        return f"the connection failed: {error.strerror or type(error).__name__}"
    if isinstance(error, http.client.HTTPException):
        return f"the response is not HTTP: {type(error).__name__}"
    return "the address is wrong"


def _make_fetch_error(reason: str) -> UndecodableImageError:
    return UndecodableImageError(Outcome.FETCH_FAILED, reason)


def _make_size_error(max_bytes: int) -> UndecodableImageError:
    return UndecodableImageError(Outcome.TOO_LARGE, f"more than {max_bytes:,} bytes")
