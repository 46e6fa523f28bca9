"""The HTTP application of the page: one route, which only reads, behind Airflow's own login.

A request needs the permission to read the DAG `satisfaction_nightly`. Each report covers the
facilities of all time zones, so permission for the DAG of one time zone is not enough. The route
matches every path, so no path is answered without this check. Finding the files is left to `store`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from http import HTTPStatus

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from fer_airflow_page.store import FILE_NAME, StoreUnavailableError, open_store

DAG_ID = "satisfaction_nightly"
HEADERS = {
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
EXPLANATIONS = {
    401: ("Log in first", "Log in to Airflow, then load this page again."),
    403: (
        "No permission",
        f"Reading the reports needs the permission to read the DAG {DAG_ID}. An administrator of "
        "Airflow can grant it.",
    ),
    404: ("No such report", "No report has this name."),
    405: ("Not possible", "The reports can only be read."),
}
NO_REPORT = ("No report yet", f"The DAG {DAG_ID}, and that of each time zone, writes one a night.")
UNAVAILABLE = "The reports are not available"
MESSAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem;
       margin: 3rem auto; padding: 0 1rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>{link}
</body>
</html>
"""
STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


def create_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    """Return the application; `environ` has the settings `FER_REPORT_…`."""
    app = FastAPI(
        title="Satisfaction",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_dag("GET", param_dag_id=DAG_ID))],
        exception_handlers={StarletteHTTPException: explain_error},
    )
    app.middleware("http")(add_headers)
    get_store = cache(lambda: open_store(environ))  # an error is not cached

    @app.api_route("/{name:path}", methods=["GET", "HEAD"])
    def show_report(name: str) -> Response:
        """Return the report file with this name; the index for an empty name."""
        name = name or "index.html"
        if not FILE_NAME.fullmatch(name):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        try:
            content = get_store().read(name)
        except StoreUnavailableError as error:
            return build_message(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, str(error))
        if content is not None:
            return build_response(content)
        if name == "index.html":
            return build_message(HTTPStatus.NOT_FOUND, *NO_REPORT)
        raise HTTPException(HTTPStatus.NOT_FOUND)

    return app


async def add_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Add HEADERS to every response, also to refusals."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


async def explain_error(request: Request, error: StarletteHTTPException) -> Response:
    """Return a page that explains a status; it says the same about every path."""
    title, text = EXPLANATIONS.get(error.status_code, ("Error", str(error.detail)))
    link = ""
    if error.status_code == HTTPStatus.NOT_FOUND:
        index = request.scope["root_path"].rstrip("/") + "/"
        link = f'\n<p><a href="{html.escape(index)}">All reports</a></p>'
    response = build_message(error.status_code, title, text, link)
    response.headers.update(error.headers or {})
    return response


def build_message(status: int, title: str, text: str, link: str = "") -> Response:
    """Return a page with a title, a sentence and, as HTML, a link."""
    page = MESSAGE.format(title=html.escape(title), text=html.escape(text), link=link)
    return build_response(page.encode(), status)


def build_response(page: bytes, status: int = HTTPStatus.OK) -> Response:
    """Return an HTML page with a policy that permits its style element and loads nothing else."""
    style = STYLE.search(page)
    source = f"'sha256-{_hash(style[1])}'" if style else "'none'"
    policy = (
        f"default-src 'none'; style-src {source}; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )
    headers = {"Content-Security-Policy": policy}
    return Response(page, status, headers, media_type="text/html")


def _hash(style: bytes) -> str:
    return base64.b64encode(hashlib.sha256(style).digest()).decode()
