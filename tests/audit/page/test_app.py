"""The labeling page over HTTP: who is answered, what no response holds, and what is stored."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from fer_batch.audit.page.app import HEADERS
from fer_batch.errors import ConfigurationError, StorageUnavailableError
from tests.support.labeling import KEY, TOKEN, Page, draw_picture

JSON = {"Content-Type": "application/json"}
FILES = ("", "label.js", "label.css")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(frozen=True)
class Client:
    """Sends requests as they stand; no client in between corrects them."""

    port: int

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def get(self, path: str) -> Answer:
        return self.send("GET", f"/{TOKEN}/{path}")

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.send("POST", f"/{TOKEN}/{path}", JSON | headers, json.dumps(body))

    def label(self, number: int, label: str = "happy") -> Answer:
        """Look at a face, then label it."""
        self.get(f"face/{number}")
        return self.post("label", {"number": number, "label": label})


@contextmanager
def serve(page: Page) -> Iterator[Client]:
    with page.serve() as url:
        yield Client(urlsplit(url).port or 0)


@pytest.fixture
def page() -> Page:
    return Page.build(5)


@pytest.fixture
def client(page: Page) -> Iterator[Client]:
    with serve(page) as client:
        yield client


# ---------------------------------------------------------------- who is answered


def test_without_the_token_there_is_nothing(client: Client, page: Page) -> None:
    guesses = [
        *("/", "//", "/state", "/face/1", "/label.js", "/%C3%A9/", "/%ff/", "/%00/"),
        *(f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"/{TOKEN.upper()}/", f"//{TOKEN}/state"),
        f"/x/../{TOKEN}/state",
    ]
    for path in guesses:
        for method in ("GET", "POST"):
            answer = client.send(method, path, JSON, "{}")
            assert (answer.status, answer.json) == (404, {"error": "not found"}), path
    assert not page.pictures.read_numbers


def test_the_address_may_be_written_without_its_last_slash(client: Client) -> None:
    answer = client.send("GET", f"/{TOKEN}")
    assert answer.status == 307
    assert answer.headers["Location"] == f"http://127.0.0.1:{client.port}/{TOKEN}/"
    assert b"<title>Label faces</title>" in client.get("").body


def test_another_host_name_is_refused(client: Client) -> None:
    """By DNS rebinding, a page of evil.example would reach this machine under its own name."""
    statuses = {
        **dict.fromkeys(["127.0.0.1", "127.0.0.1:8640", "localhost:9000", "LOCALHOST"], 200),
        **dict.fromkeys(["evil.example", "evil.example:8640", "127.0.0.1.evil.example"], 400),
        **dict.fromkeys(["localhost.evil.example", "evil.example@127.0.0.1", ""], 400),
        **dict.fromkeys(["0.0.0.0", "192.168.1.7:8640"], 400),  # noqa: S104
    }
    for host, status in statuses.items():
        assert client.send("GET", f"/{TOKEN}/state", {"Host": host}).status == status, host


def test_a_post_of_another_page_is_refused(client: Client, page: Page) -> None:
    number = page.order[0]
    assert client.get(f"face/{number}").status == 200
    cases = [
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none")),
        *({"Origin": o} for o in ("http://evil.example", "null", "http://127.0.0.1:1")),
        *({"Content-Type": t} for t in ("text/plain", "application/x-www-form-urlencoded", "")),
    ]
    for headers in cases:
        for path, body in (("label", {"number": number, "label": "sad"}), ("back", {})):
            assert client.post(path, body, **headers).status == 403, headers
    assert not page.labels.log


def test_a_post_of_the_page_itself_is_accepted(client: Client, page: Page) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{client.port}"}
    client.get(f"face/{page.order[0]}")
    body = {"number": page.order[0], "label": "sad"}
    assert client.post("label", body, **own).status == 200


# ---------------------------------------------------------------- what responses hold


def test_no_response_is_stored_or_may_load_anything_else(client: Client, page: Page) -> None:
    number = page.order[0]
    answers = [
        client.get(path) for path in (*FILES, "state", f"face/{number}", "nothing", "face/0")
    ]
    answers += [client.label(number), client.post("back", {}), client.send("GET", "/")]
    answers.append(client.send("GET", f"/{TOKEN}/", {"Host": "evil.example"}))
    answers.append(client.send("PUT", f"/{TOKEN}/state"))
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "ETag" not in answer.headers
        assert "Set-Cookie" not in answer.headers
        assert "Server" not in answer.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert HEADERS["Cache-Control"] == "no-store"


def test_nothing_tells_the_key_or_what_the_network_calls_the_face(
    client: Client, page: Page
) -> None:
    """The page knows numbers only; the words happy and sad are those of its buttons."""
    page.pictures.unreadable[page.order[1]] = "the object is gone"
    number = page.order[0]
    states = [client.get("state"), client.label(number, "sad"), client.post("back", {})]
    for answer in states:
        assert set(answer.json) <= {
            *("title", "number", "position", "next", "labeled", "total", "can_go_back", "hidden"),
            "problem",
        }
        for word in ("happy", "neither", "score", "mall", "2026", ".jpg", "etag"):
            assert word not in answer.body.decode()
    for path in FILES:
        assert KEY[:4] not in client.get(path).body.decode()
    picture = client.get(f"face/{number}")
    assert picture.body == draw_picture(number)
    assert picture.headers["Content-Type"] == "image/png"
    assert "Content-Disposition" not in picture.headers


def test_an_error_of_s3_tells_no_key(client: Client, page: Page) -> None:
    number = page.order[0]
    page.pictures.failing[number] = StorageUnavailableError(KEY.format(number), "wait")
    answer = client.get(f"face/{number}")
    assert answer.status == 503
    assert "S3 or the database" in answer.json["error"]
    assert KEY.format(number) not in answer.body.decode()


# ---------------------------------------------------------------- what is stored


def test_a_label_is_stored_and_the_next_face_is_named(client: Client, page: Page) -> None:
    first, second, third, *_ = page.order
    state = client.get("state").json
    assert (state["number"], state["next"], state["labeled"]) == (first, second, 0)
    assert not state["can_go_back"]
    state = client.label(first, "cannot_tell").json
    assert page.labels.log == [(first, "cannot_tell")]
    assert (state["number"], state["next"], state["labeled"]) == (second, third, 1)
    assert (state["position"], state["total"], state["problem"]) == (2, 5, "")
    state = client.post("back", {}).json
    assert page.labels.log[-1] == (first, "")
    assert (state["number"], state["labeled"]) == (first, 0)


def test_a_failed_save_is_told_and_can_be_repeated(client: Client, page: Page) -> None:
    first = page.order[0]
    page.labels.error = StorageUnavailableError("down", "wait")
    assert client.label(first).status == 503
    assert client.get("state").json["number"] == first
    page.labels.error = ValueError("a fault")
    with capture_logs() as logs:
        answer = client.label(first)
    assert answer.status == 500
    assert "a fault" not in answer.body.decode()
    assert [(each["log_level"], each["exc_info"]) for each in logs] == [("error", True)]
    page.labels.error = None
    assert client.label(first).json["number"] == page.order[1]


def test_a_label_that_the_audit_refuses_is_told_and_the_next_face_follows(
    client: Client, page: Page
) -> None:
    page.labels.error = ConfigurationError("somebody else has settled it", "Go on")
    state = client.label(page.order[0]).json
    assert state["problem"] == "somebody else has settled it. Go on"
    assert (state["number"], state["labeled"]) == (page.order[1], 0)


def test_a_body_that_is_no_label_is_refused(client: Client, page: Page) -> None:
    client.get("face/1")
    bodies = [
        *("", "{}", "[]", "null", '{"number": 1}', '{"number": 1, "label": null}'),
        *('{"number": "1", "label": "sad"}', '{"number": 1.5, "label": "sad"}'),
        *('{"number": 1, "label": "Happy"}', '{"number": 1, "label": "sad", "rater": "Eve"}'),
    ]
    for body in bodies:
        assert client.send("POST", f"/{TOKEN}/label", JSON, body).status == 422, body
    long = " " * 5000 + '{"number": 1, "label": "sad"}'
    assert client.send("POST", f"/{TOKEN}/label", JSON, long).status == 403
    assert not page.labels.log


def test_a_face_that_was_not_shown_cannot_be_labeled(client: Client, page: Page) -> None:
    for number in (page.order[0], 0, 99):
        answer = client.post("label", {"number": number, "label": "sad"})
        assert answer.status == 409
    assert client.get("face/99").status == 409
    assert not page.labels.log


def test_a_face_that_cannot_be_shown_is_skipped_and_told(client: Client, page: Page) -> None:
    erased, gone, shown, *_ = page.order
    page.pictures.hidden[erased] = "the image was erased"
    page.pictures.unreadable[gone] = "the object is gone"
    assert client.get("state").json["number"] == gone
    answer = client.get(f"face/{gone}")
    assert (answer.status, answer.json["error"]) == (410, "the object is gone")
    state = client.get("state").json
    assert (state["number"], state["total"]) == (shown, 5)
    assert state["hidden"] == (
        "2 faces cannot be shown: the image was erased (1); the object is gone (1)"
    )
    assert erased not in page.pictures.read_numbers  # nothing of it was read


def test_a_face_that_is_erased_while_it_is_shown_gets_no_label(client: Client, page: Page) -> None:
    first, second, *_ = page.order
    client.get(f"face/{first}")
    client.get(f"face/{second}")  # fetched ahead
    page.pictures.hidden |= {first: "the image was erased", second: "the image was erased"}
    state = client.post("label", {"number": first, "label": "sad"}).json
    assert state["problem"] == "the image was erased"
    assert state["number"] == page.order[2]
    assert not page.labels.log
    assert client.get(f"face/{first}").status == 410


def test_when_all_are_labeled_there_is_no_face(client: Client, page: Page) -> None:
    for number in page.order:
        state = client.label(number).json
    assert (state["number"], state["next"], state["labeled"]) == (None, None, 5)
    assert client.post("back", {}).json["number"] == page.order[-1]
