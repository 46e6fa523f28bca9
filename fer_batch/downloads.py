"""Fetch one picture from an http(s) address, without being led to where nobody may look.

The host is resolved once, every address is checked, and the connection goes to an address that
was checked; the same again for each redirect. So an address on the web cannot make this machine
ask its own network (the metadata service of a cloud above all). Size and time are limited as a
whole. Proxies of the environment are not used: behind one, the address could not be checked.
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
from fer_batch.headers import UndecodableImageError
from fer_batch.records import Outcome

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Everything else of IPv6 is local, reserved, or wraps an IPv4 address in a way of its own.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Not public by IANA's registries, but not known to every Python of 3.11.
_RESERVED = tuple(
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
)
_READ_BYTES = 65_536

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, also where IPv6 wraps an IPv4 one."""
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
    """The body of an answer 200 to GET, after at most five redirects.

    Raises UndecodableImageError: `too_large` for more than `max_bytes`, else `fetch_failed`.
    """
    deadline = time.monotonic() + timeout_s
    answer: bytes | _Redirect | UndecodableImageError
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = _get(_checked(url), deadline, max_bytes, is_allowed)
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer = _failed(_in_words(error))
        except UndecodableImageError as error:
            answer = error
        if time.monotonic() >= deadline:  # whatever was said then is the hanging up
            raise _failed(f"the answer took longer than {timeout_s:g} s")
        if isinstance(answer, UndecodableImageError):
            raise answer
        if isinstance(answer, bytes):
            return answer
        try:
            url = urljoin(url, answer.url)
        except ValueError as error:
            raise _failed(_in_words(error)) from None
    raise _failed(f"more than {MAX_REDIRECTS} redirects")


class _Redirect:
    def __init__(self, url: str) -> None:
        self.url = url


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise _failed("refused: only http and https addresses are read")
    if not parts.hostname:
        raise _failed("refused: the address has no host")
    if parts.username is not None or parts.password is not None:
        raise _failed("refused: the address holds a user name")
    return parts


def _get(
    parts: SplitResult, deadline: float, max_bytes: int, is_allowed: Callable[[Address], bool]
) -> bytes | _Redirect:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connected = _connect(host, port, deadline, is_allowed)
    connection = http.client.HTTPConnection(host, port)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connected = context.wrap_socket(
            connected, server_hostname=host, do_handshake_on_connect=False
        )
        connection = http.client.HTTPSConnection(host, port, context=context)
    # A read's own time limit starts anew with each byte: a slow drip is ended from outside.
    watchdog = threading.Timer(max(deadline - time.monotonic(), 0), _hang_up, [connected])
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        connection.sock = connected
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
        return _read(connection.getresponse(), max_bytes)
    finally:
        watchdog.cancel()
        connected.close()


def _connect(
    host: str, port: int, deadline: float, is_allowed: Callable[[Address], bool]
) -> socket.socket:
    addresses = _addresses(host, port, deadline)
    for address in addresses:
        if not is_allowed(ipaddress.ip_address(address.partition("%")[0])):
            raise _failed("refused: the host is on a private network")
    trouble: OSError = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection(
                (address, port), timeout=max(deadline - time.monotonic(), 0.001)
            )
        except OSError as error:
            trouble = error
    raise trouble


def _addresses(host: str, port: int, deadline: float) -> list[str]:
    """Every address of a host. The resolver knows no time limit, so it is asked in a thread,
    which is left behind when the time is over."""
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(deadline - time.monotonic(), 0.001))
    except Empty:
        raise _failed("the name service does not answer") from None
    if isinstance(answer, Exception):
        raise _failed("the host is not known") from answer
    return answer


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):
        # Not TLS's own, which takes the cipher away from under the thread that reads.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes | _Redirect:
    if response.status in _REDIRECTS and (target := response.headers.get("Location")):
        # Its bytes as they came, which http.client has taken for Latin-1.
        return _Redirect(quote(target.encode("latin-1"), safe=punctuation))
    if response.status != 200:
        raise _failed(f"the server answers {response.status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _failed("the server answers with a compressed body, which was not asked for")
    if (response.length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    while piece := response.read1(_READ_BYTES):
        body += piece
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    if response.length:
        raise _failed("the answer ends early")
    return bytes(body)


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, OSError):
        return f"the connection failed: {error.strerror or type(error).__name__}"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is no HTTP: {type(error).__name__}"
    return "the address is wrong"


def _failed(reason: str) -> UndecodableImageError:
    return UndecodableImageError(Outcome.FETCH_FAILED, reason)


def _too_large(max_bytes: int) -> UndecodableImageError:
    return UndecodableImageError(Outcome.TOO_LARGE, f"more than {max_bytes:,} bytes")
