"""A mail server and a receiver of webhooks on this machine, which keep what they get."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult


class SmtpServer:
    """A mail server; `refusals` has its answer to a recipient, such as `550 no such user`."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refusals: dict[str, str] = {}
        self.logins: list[tuple[str, str]] = []
        self.port = 0

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"

    def log_in(self, *event: Any) -> AuthResult:
        login = event[-1]
        user, password = login.login.decode(), login.password.decode()
        self.logins.append((user, password))
        return AuthResult(success=(user, password) == ("fer", "secret"), handled=False)

    def read(self, address: str) -> list[EmailMessage]:
        """The mails to an address."""
        return [
            mail
            for mail, recipients in zip(self.mails, self.recipients, strict=True)
            if address in recipients
        ]


@contextmanager
def smtp_server_running(
    security: str = "none", certificate: Path | None = None, *, with_login: bool = False
) -> Iterator[SmtpServer]:
    """Run a mail server with STARTTLS, TLS or neither."""
    found = SmtpServer()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    is_starttls = security == "starttls"
    options: dict[str, Any] = {"enable_SMTPUTF8": False}
    if with_login:
        options |= {
            "authenticator": found.log_in,
            "auth_required": security == "starttls",  # with TLS, aiosmtpd warns about it
            "auth_require_tls": security == "starttls",
        }

    class LocalController(Controller):
        def factory(self) -> SMTP:
            if security == "tls":  # aiosmtpd does not know that the connection is encrypted
                return SMTP(found, **options)
            return SMTP(
                found,
                **options,
                tls_context=context if is_starttls else None,
                require_starttls=is_starttls,
            )

        def _trigger_server(self) -> None:
            # Its own probe connects to port 0, and with TLS as a server.
            assert self.server is not None
            found.port = self.server.sockets[0].getsockname()[1]
            socket.create_connection(("127.0.0.1", found.port)).close()

    controller = LocalController(
        found,
        hostname="127.0.0.1",
        port=0,
        ssl_context=context if security == "tls" else None,
    )
    controller.start()
    try:
        yield found
    finally:
        controller.stop()


@dataclass
class ChatServer:
    """A receiver of webhooks; `status` is what it answers."""

    url: str = ""
    status: int = 200
    posts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def chat_server_running() -> Iterator[ChatServer]:
    found = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.posts.append((self.path, json.loads(body)))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
