"""The page as Airflow's API server answers: who may read, what is served, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.airflow_page import serve_reports

DAY = "2026-11-29.html"
PART = "2026-11-29.north-mall.html"
STYLE = "b{color:red}"
REPORT = f"<!DOCTYPE html><title>r</title><style>{STYLE}</style><script>alert(1)</script>"
SERVED = ["", "index.html", DAY, PART]
NOT_SERVED = [
    # Routes that FastAPI adds unless they are disabled, and folders.
    "docs", "redoc", "openapi.json", "docs/oauth2-redirect", "reports/", f"{DAY}/", f"a/{DAY}",
    # Paths out of the folder, in the spellings that servers have decoded too early or too late.
    "../secret.html", "..", "../", "../../etc/passwd", "..%2fsecret.html", "%2e%2e/secret.html",
    "%2e%2e%2fsecret.html", "%252e%252e%252fsecret.html", "..%5csecret.html", "..\\secret.html",
    "....//secret.html", "..;/secret.html", "%c0%ae%c0%ae/secret.html", f"./{DAY}", f"x/../{DAY}",
    "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "%00", f"{DAY}%00",
    f"{DAY}%00.html", f"%00{DAY}", f"{DAY}%0a", f"{DAY}%20", "a" * 5000,
    "%D9%A2%D9%A0%D9%A2%D9%A6-11-29.html",  # 2026 in Arabic digits
    # Files of the folder that are no reports: of a write that was interrupted, hidden, others.
    f".{DAY}.123", f"{DAY}.123", f"{DAY}~", ".env", ".hidden.html", "secret.html", "data.csv",
    "2026-11-29", "2026-11-29.HTML", "2026-11-29.North.html", "2026-11-29..html",
    # Links: out of the folder, to another file in it, and of a folder; and a folder with the name.
    "2026-11-01.html", "2026-11-02.html", "2026-11-03.html", "2026-11-04.html",
]  # fmt: skip
"""Paths below the page that a reader cannot get, as they are sent."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class Page:
    """A running API server with the folder from which it serves."""

    port: int
    tokens: dict[str, str]
    folder: Path

    def request(self, path: str, user: str | None = "viewer", method: str = "GET") -> Answer:
        """Send a request as it stands: no client in between tidies up the path."""
        token = self.tokens.get(user or "", user)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.send(method, f"/satisfaction/{path}", headers)

    def send(self, method: str, target: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection._validate_path = lambda _: None  # type: ignore[attr-defined]
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


def write_reports(folder: Path) -> None:
    """Write reports, and beside them what must not be served."""
    folder.mkdir()
    (folder.parent / "secret.html").write_text("secret")
    (folder.parent / "below").mkdir()
    (folder.parent / "below" / DAY).write_text("secret")
    for name in (DAY, PART):
        (folder / name).write_text(REPORT)
    (folder / "index.html").write_text(f'<style>{STYLE}</style><a href="{DAY}">a day</a>')
    for name in (f".{DAY}.123", f"{DAY}.123", f"{DAY}~", ".env", ".hidden.html", "secret.html",
                 "data.csv", "2026-11-29", "2026-11-29.HTML", "2026-11-29.North.html"):  # fmt: skip
        (folder / name).write_text("secret")
    (folder / "2026-11-01.html").symlink_to("../secret.html")
    (folder / "2026-11-02.html").symlink_to(".env")
    (folder / "2026-11-03.html").symlink_to("../below")
    (folder / "2026-11-04.html").mkdir()
    (folder / "reports").symlink_to("../below")


@pytest.fixture(scope="module")
def airflow_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Airflow's API server with the page, on a folder of reports."""
    home = tmp_path_factory.mktemp("airflow")
    folder = home / "reports"
    write_reports(folder)
    with serve_reports(home, folder) as started:
        yield Page(**started, folder=folder)


class TestWhoMayRead:
    """The table of answers: every path below the page is answered like this, whether it exists."""

    @pytest.mark.parametrize("path", [*SERVED, *NOT_SERVED])
    def test_only_a_reader_of_the_dag_gets_past_the_guard(
        self, airflow_page: Page, path: str
    ) -> None:
        expected = 200 if path in SERVED else 404
        assert {
            user: airflow_page.request(path, user).status
            for user in (None, "not-a-token", "nobody", "viewer", "admin")
        } == {None: 401, "not-a-token": 403, "nobody": 403, "viewer": expected, "admin": expected}

    @pytest.mark.parametrize(
        ("user", "status"), [("viewer", 200), ("nobody", 403), ("not-a-token", 403)]
    )
    def test_the_cookie_of_the_ui_counts_like_a_token(
        self, airflow_page: Page, user: str, status: int
    ) -> None:
        cookie = {"Cookie": f"_token={airflow_page.tokens.get(user, user)}"}
        assert airflow_page.send("GET", "/satisfaction/", cookie).status == status

    def test_a_token_in_the_address_is_no_login(self, airflow_page: Page) -> None:
        token = airflow_page.tokens["viewer"]
        assert airflow_page.request(f"?token={token}&access_token={token}", None).status == 401

    def test_refusals_do_not_say_whether_a_report_exists(self, airflow_page: Page) -> None:
        for user in (None, "nobody"):
            there, not_there = (
                airflow_page.request(name, user) for name in (DAY, "2020-01-01.html")
            )
            assert (there.status, there.body) == (not_there.status, not_there.body)


class TestWhatIsServed:
    def test_reports_are_served_as_they_are(self, airflow_page: Page) -> None:
        for name in (DAY, PART, "index.html"):
            answer = airflow_page.request(name)
            assert answer.body == (airflow_page.folder / name).read_bytes()
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert airflow_page.request("").body == airflow_page.request("index.html").body

    def test_nothing_else_is_served(self, airflow_page: Page) -> None:
        bodies = {airflow_page.request(path).body for path in NOT_SERVED}
        (body,) = bodies
        assert b"No such report" in body
        assert b'href="/satisfaction/"' in body

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    def test_nothing_can_be_changed(self, airflow_page: Page, method: str) -> None:
        before = sorted(airflow_page.folder.iterdir())
        for path in ("", DAY, "2026-12-01.html"):
            answer = airflow_page.request(path, "admin", method)
            assert answer.status == 405
            assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
        assert sorted(airflow_page.folder.iterdir()) == before

    def test_head_answers_like_get_without_a_body(self, airflow_page: Page) -> None:
        assert airflow_page.request(DAY, "viewer", "HEAD").body == b""
        assert airflow_page.request(DAY, "viewer", "HEAD").status == 200
        assert airflow_page.request(DAY, None, "HEAD").status == 401

    def test_a_query_changes_nothing(self, airflow_page: Page) -> None:
        assert airflow_page.request(f"{DAY}?day=2026-11-28&path=../secret.html").body == (
            airflow_page.request(DAY).body
        )

    def test_a_report_that_is_written_later_is_found(self, airflow_page: Page) -> None:
        new = airflow_page.folder / "2026-12-24.html"
        assert airflow_page.request(new.name).status == 404
        new.write_text("new")
        try:
            assert airflow_page.request(new.name).body == b"new"
        finally:
            new.unlink()


class TestHeaders:
    @pytest.mark.parametrize(
        ("path", "user", "method"),
        [("", "viewer", "GET"), (DAY, "viewer", "GET"), ("x", "viewer", "GET"), ("", None, "GET"),
         ("", "nobody", "GET"), ("", "viewer", "POST")],
    )  # fmt: skip
    def test_every_answer_forbids_scripts_storage_and_guessing(
        self, airflow_page: Page, path: str, user: str | None, method: str
    ) -> None:
        headers = airflow_page.request(path, user, method).headers
        assert headers["Cache-Control"] == "private, no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = dict(
            part.split(maxsplit=1) for part in headers["Content-Security-Policy"].split(";")
        )
        assert policy.keys() == {
            "default-src", "style-src", "img-src", "base-uri", "form-action", "frame-ancestors",
        }  # fmt: skip
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["frame-ancestors"] == "'self'"  # the frame in the UI

    def test_only_the_style_element_of_the_report_is_permitted(self, airflow_page: Page) -> None:
        digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        policy = airflow_page.request(DAY).headers["Content-Security-Policy"]
        assert f"style-src 'sha256-{digest}';" in policy
        assert "unsafe" not in policy


class TestAbsentReports:
    def test_without_a_report_the_page_says_so(self, airflow_page: Page) -> None:
        index = airflow_page.folder / "index.html"
        content = index.read_text()
        index.unlink()
        try:
            answer = airflow_page.request("")
        finally:
            index.write_text(content)
        assert answer.status == 404
        assert b"No report yet" in answer.body

    def test_an_absent_folder_is_explained_only_to_readers(self, airflow_page: Page) -> None:
        away = airflow_page.folder.rename(airflow_page.folder.with_name("away"))
        try:
            answers = {u: airflow_page.request("", u) for u in ("viewer", "nobody", None)}
        finally:
            away.rename(airflow_page.folder)
        assert {u: a.status for u, a in answers.items()} == {
            "viewer": 503,
            "nobody": 403,
            None: 401,
        }
        assert b"The report folder does not exist" in answers["viewer"].body
        assert str(airflow_page.folder).encode() not in answers["viewer"].body


def test_the_navigation_has_the_entry(airflow_page: Page) -> None:
    headers = {"Authorization": f"Bearer {airflow_page.tokens['admin']}"}
    body = json.loads(airflow_page.send("GET", "/api/v2/plugins", headers).body)
    (plugin,) = (p for p in body["plugins"] if p["name"] == "fer_batch_satisfaction")
    (view,) = plugin["external_views"]
    assert (view["name"], view["href"], view["destination"]) == (
        "Satisfaction", "satisfaction/", "nav",
    )  # fmt: skip
    errors = json.loads(airflow_page.send("GET", "/api/v2/plugins/importErrors", headers).body)
    assert errors["import_errors"] == []
