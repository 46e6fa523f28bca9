"""Serve the labeling page on this machine until Ctrl-C, and say what to do next.

Nothing listens on other interfaces: another device reaches the page through `ssh -L`. The token of
the address is new each time.
"""

from __future__ import annotations

import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fer_batch.audit.crops import CropReader
from fer_batch.audit.labeling import Labeling, open_labeling
from fer_batch.audit.page.session import LabelingSession, describe_hidden
from fer_batch.database import connections
from fer_batch.errors import ConfigurationError
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
TOKEN_BYTES = 32
SHUTDOWN_S = 5
"""Time for requests that are being answered when the server ends."""


def serve_labeling(
    settings: Settings,
    audit_id: int,
    rater: str,
    *,
    settle: bool = False,
    port: int,
) -> None:
    """Serve the page for a rater until SIGINT or SIGTERM; port 0 is any free one.

    Prints the address when the server listens, and at the end how many faces are labeled and what
    comes next. Raises what `open_labeling` raises, ConfigurationError if the extra `audit` is not
    installed or the port is taken, and ModelError or SandboxError where nothing can be decoded.
    """
    check_installed()
    engine = connections.create_engine(settings)
    with (
        open_labeling(settings, audit_id, rater, settle=settle) as labeling,
        _listen(port) as listening,
        Decoders(settings) as decoders,
        CropReader(settings, engine, decoders, labeling.facility) as pictures,
    ):
        decoders.find_missing()  # a detector or a sandbox that is missing is told at once
        session = LabelingSession(labeling, pictures, _describe_pass(labeling))
        try:
            _serve(session, listening)
        finally:
            engine.dispose()
    sys.stdout.write(_describe_end(labeling, session))


def check_installed() -> None:
    """Raise ConfigurationError if the web framework is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "starlette and uvicorn are not installed, which serve the page",
            "Install fer-batch with the extra `audit`; see docs/deploy.md",
        ) from None


@contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise ConfigurationError(
                f"the page cannot be served on {HOST}:{port}: {reason}",
                "Choose another port with --port",
            ) from error
        yield listening


def _serve(session: LabelingSession, listening: socket.socket) -> None:
    """Serve until a signal; a second Ctrl-C does not wait for requests."""
    import uvicorn

    from fer_batch.audit.page.app import LabelingApp

    token = secrets.token_urlsafe(TOKEN_BYTES)
    session.describe()  # what fails with every face fails here, and not in the browser
    with LabelingApp(session, token) as app:
        server = uvicorn.Server(build_config(app.asgi))
        port = listening.getsockname()[1]
        listening.listen()
        sys.stdout.write(_describe_start(session, port, token))
        sys.stdout.flush()
        with _interrupted_by_sigterm():
            try:
                server.run(sockets=[listening])
            except KeyboardInterrupt:
                return


def build_config(asgi: ASGIApp) -> uvicorn.Config:
    """How uvicorn runs the page. It logs nothing: an access log would hold the token."""
    import uvicorn

    return uvicorn.Config(
        asgi,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """End in order after SIGTERM too. uvicorn raises its signals again when it has ended."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------- texts


def _describe_pass(labeling: Labeling) -> str:
    what = "Settling" if labeling.is_settlement else "Labeling"
    return (
        f"{what} audit {labeling.audit.audit_id} of {labeling.facility.name}, as {labeling.rater}"
    )


def _describe_start(session: LabelingSession, port: int, token: str) -> str:
    return (
        f"{session.labeled} of {session.total} faces are labeled. Open in a browser:\n"
        f"  http://{HOST}:{port}/{token}/\n"
        "On another device, first forward the port, then open the same address there:\n"
        f"  ssh -L {port}:{HOST}:{port} THIS-MACHINE\n"
        "Whoever has the address sees the faces. Ctrl-C ends it; each label is stored at once\n"
    )


def _describe_end(labeling: Labeling, session: LabelingSession) -> str:
    lines = [f"{session.labeled} of {session.total} faces are labeled"]
    if hidden := describe_hidden(session.hidden):
        lines.append(hidden)
    lines.append(f"Next: {_describe_next(labeling, is_done=session.labeled == session.total)}")
    return "\n".join(lines) + "\n"


def _describe_next(labeling: Labeling, *, is_done: bool) -> str:
    command, number = "fer-batch audit", labeling.audit.audit_id
    if not is_done:
        settle = " --settle" if labeling.is_settlement else ""
        rater = shlex.quote(labeling.rater)
        return f"continue with `{command} label {number} --rater {rater}{settle}`"
    finish = f"activate the labels with `{command} finish {number}`"
    if labeling.is_settlement:
        return finish
    return (
        f"let a second person label the same faces with `{command} label {number} --rater NAME`, "
        f"see how far two people agree with `{command} show {number}`, or {finish}"
    )
