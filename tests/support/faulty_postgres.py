"""A server that speaks just enough of PostgreSQL's protocol to refuse a login.

It refuses TLS and answers the startup message with an error: of a server that speaks another
language, of a connection pooler, or of a server that is starting.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

_ENCRYPTION_REQUESTS = (80877103, 80877104)
_CLEARTEXT_PASSWORD = b"R" + struct.pack("!II", 8, 3)


@dataclass
class RefusingServer:
    """Its port, and the startup parameters of the clients that it refused."""

    port: int
    startups: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"postgresql://fer:canary@127.0.0.1:{self.port}/fer"


@contextmanager
def refusing(
    state: str, message: str, severity: str = "FATAL", *, asks_password: bool = False
) -> Iterator[RefusingServer]:
    """Run a server that refuses every login with this SQLSTATE, message and severity."""
    fields = {"S": severity, "V": "FATAL", "C": state, "M": message, "R": "auth_failed"}
    body = b"".join(f"{key}{text}\0".encode() for key, text in fields.items()) + b"\0"
    answer = b"E" + struct.pack("!I", len(body) + 4) + body
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RefusingServer(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # closed
                    return
                with client, client.makefile("rb") as reader, suppress(EOFError):
                    startup = _read_message(reader)
                    while struct.unpack("!I", startup[:4])[0] in _ENCRYPTION_REQUESTS:
                        client.sendall(b"N")
                        startup = _read_message(reader)
                    words = startup[4:].decode().split("\0")
                    server.startups.append(dict(zip(words[::2], words[1::2], strict=False)))
                    if asks_password:
                        client.sendall(_CLEARTEXT_PASSWORD)
                        reader.read(1)
                        _read_message(reader)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _read_message(reader: BinaryIO) -> bytes:
    """A message without its length. Raises EOFError where the client has gone."""
    head = reader.read(4)
    if len(head) < 4:
        raise EOFError
    return reader.read(struct.unpack("!I", head)[0] - 4)
