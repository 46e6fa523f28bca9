"""The HTTP application of the labeling page: a few routes behind a token, for one rater.

Every address begins with the token, which is random and ends with the command; whatever does not
begin with it is answered as if there were nothing. The name in the Host header must be that of this
machine, so that a page of another site cannot reach it by DNS rebinding, and a POST must come from
the page itself. No response may be stored by a browser. What is shown is left to session.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from fer_batch.audit.crops import HiddenFace
from fer_batch.audit.labeling import Label
from fer_batch.audit.page.session import LabelingSession, UnknownFaceError
from fer_batch.errors import ConfigurationError, FerError, RetryableError
from fer_batch.log import get_logger

log = get_logger(__name__)

Args = TypeVarTuple("Args")
Returned = TypeVar("Returned")

HOSTS = ("127.0.0.1", "localhost")
"""The names by which a browser on this machine, or at the other end of a tunnel, asks for the page.
The port may be that of the tunnel."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LENGTH_DIGITS = 3
"""Digits of the length of the longest body that is read."""
UNAVAILABLE = "S3 or the database does not answer at this moment. The command’s log says more"
UNEXPECTED = "An error occurred. The command’s log says which"
READERS = 2
"""Threads that read pictures, each with a decoder: one may wait for a face that is fetched ahead
while another fetches the face to go back to."""
_STATIC = Path(__file__).with_name("static")
_FILES = {
    "": ("label.html", "text/html"),
    "label.js": ("label.js", "text/javascript"),
    "label.css": ("label.css", "text/css"),
}


class LabelRequest(BaseModel):
    """The body of a label: the number of the face, and what the rater sees in it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: int
    label: Label


class LabelingApp:
    """The application `asgi` for one session, with threads for its work; `with` ends them."""

    def __init__(self, session: LabelingSession, token: str) -> None:
        self._session = session
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="label")
        routes = [
            *(Route(f"/{path}", self._make_file_endpoint(*file)) for path, file in _FILES.items()),
            Route("/state", self._show_state),
            Route("/face/{number:int}", self._show_face),
            Route("/label", self._save, methods=["POST"]),
            Route("/back", self._go_back, methods=["POST"]),
        ]
        self.asgi = Starlette(
            routes=[Mount("/{token}", routes=routes)],
            middleware=[
                Middleware(BaseHTTPMiddleware, dispatch=_add_headers),
                Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
                Middleware(BaseHTTPMiddleware, dispatch=_make_guard(token)),
            ],
            exception_handlers={
                HTTPException: _explain_status,
                UnknownFaceError: _explain_unknown,
                FerError: _explain_error,
            },
        )

    def __enter__(self) -> LabelingApp:
        return self

    def __exit__(self, *_: object) -> None:
        for threads in (self._readers, self._writer):
            threads.shutdown(cancel_futures=True)

    @staticmethod
    def _make_file_endpoint(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        content = (_STATIC / name).read_bytes()

        async def show_file(_: Request) -> Response:
            return Response(content, media_type=kind)

        return show_file

    async def _show_state(self, _: Request) -> Response:
        return JSONResponse(await _run_in(self._writer, self._session.describe))

    async def _show_face(self, request: Request) -> Response:
        number = request.path_params["number"]
        picture = await _run_in(self._readers, self._session.read, number)
        if isinstance(picture, HiddenFace):
            return _build_error(HTTPStatus.GONE, picture.reason)
        return Response(picture, media_type="image/png")

    async def _save(self, request: Request) -> Response:
        try:
            asked = LabelRequest.model_validate_json(await request.body())
        except ValidationError:
            return _build_error(HTTPStatus.UNPROCESSABLE_ENTITY, "this is no label")
        return JSONResponse(
            await _run_in(self._writer, self._session.save, asked.number, asked.label)
        )

    async def _go_back(self, _: Request) -> Response:
        return JSONResponse(await _run_in(self._writer, self._session.go_back))


async def _run_in(
    threads: ThreadPoolExecutor, function: Callable[[*Args], Returned], *args: *Args
) -> Returned:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


# ---------------------------------------------------------------- guards


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Add HEADERS to every response, also to refusals. An unexpected error is logged."""
    try:
        response = await call_next(request)
    except Exception:
        log.error("labeling page failed", exc_info=True)
        response = _build_error(HTTPStatus.INTERNAL_SERVER_ERROR, UNEXPECTED)
    response.headers.update(HEADERS)
    return response


def _make_guard(token: str) -> Callable[[Request, RequestResponseEndpoint], Awaitable[Response]]:
    """The middleware that answers nothing without the token, and no POST of another page."""

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        first, *_ = request.url.path.removeprefix("/").partition("/")
        # The time that this takes does not tell how much of a guess is right.
        if not secrets.compare_digest(first.encode(), token.encode()):
            return _build_error(HTTPStatus.NOT_FOUND, "not found")
        if request.method == "POST" and not _is_own_request(request):
            return _build_error(HTTPStatus.FORBIDDEN, "the request does not come from the page")
        return await call_next(request)

    return guard


def _is_own_request(request: Request) -> bool:
    """Whether a POST can come from the page. A form of another site cannot send JSON."""
    headers = request.headers
    own_origin = f"http://{headers['host']}"
    length = headers.get("content-length", "")
    return (
        headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        and headers.get("origin", own_origin) == own_origin
        and length.isdecimal()
        and len(length) <= LENGTH_DIGITS
    )


# ---------------------------------------------------------------- errors


def _build_error(status: HTTPStatus, text: str) -> Response:
    return JSONResponse({"error": text}, status)


async def _explain_status(_: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
    return _build_error(status, status.phrase)


async def _explain_unknown(_: Request, __: Exception) -> Response:
    return _build_error(HTTPStatus.CONFLICT, "This face was not shown. Load the page again")


async def _explain_error(_: Request, error: Exception) -> Response:
    """Log the error, and tell the page no more than it may know: errors of S3 may name a key."""
    log.warning("labeling page", error=str(error))
    if isinstance(error, ConfigurationError):
        return _build_error(HTTPStatus.CONFLICT, str(error))
    if isinstance(error, RetryableError):
        return _build_error(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE)
    return _build_error(HTTPStatus.INTERNAL_SERVER_ERROR, UNEXPECTED)
