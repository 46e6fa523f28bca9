"""The labeling page in a browser: by keyboard and by touch, and when something fails."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from fer_batch.errors import DatabaseUnavailableError, StorageUnavailableError
from tests.browser.conftest import SIZES, find_overflow, find_violations
from tests.support import labeling
from tests.support.labeling import decode_picture, draw_picture

READ_CANVAS = "document.querySelector('canvas').toDataURL()"
GONE = "Failed to load resource: the server responded with a status of 410 (Gone)"


@pytest.fixture
def audit() -> labeling.Page:
    return labeling.Page.build(6)


@pytest.fixture
def url(audit: labeling.Page) -> Iterator[str]:
    with audit.serve() as address:
        yield address


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")])
def context(request: pytest.FixtureRequest, browser: Browser) -> Iterator[BrowserContext]:
    size, scheme = request.param
    width, height = SIZES[size]
    opened = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone"
    )
    yield opened
    opened.close()


def open_page(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    return page


def expect_face(page: Page, number: int, position: int) -> None:
    """Wait for the face, and compare what is on the canvas with its picture."""
    expect(page.locator("canvas")).to_have_attribute("aria-label", f"Face {position} of 6")
    expect(page.get_by_role("button", name="Happy")).to_be_enabled()
    shown = base64.b64decode(page.evaluate(READ_CANVAS).partition(",")[2])
    assert np.array_equal(decode_picture(shown), decode_picture(draw_picture(number)))


def test_an_audit_is_labeled_by_keyboard(
    context: BrowserContext, audit: labeling.Page, url: str
) -> None:
    audit.pictures.unreadable[audit.order[3]] = "the object is gone"
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(url)
    first, second, third, _, fifth, sixth = audit.order
    for key, number, position in (("1", first, 1), ("Numpad2", second, 2), ("3", third, 3)):
        expect_face(page, number, position)
        page.keyboard.press(key)
    expect_face(page, fifth, 5)
    expect(page.get_by_role("status")).to_have_text("Saved for the last face: neither")
    expect(page.get_by_text("1 face cannot be shown: the object is gone")).to_be_visible()
    assert find_overflow(page) <= 0
    assert find_violations(page) == []
    page.keyboard.press("Backspace")
    expect_face(page, third, 3)
    page.keyboard.press("0")
    expect_face(page, fifth, 5)
    page.keyboard.press("Digit2")
    expect_face(page, sixth, 6)
    expect(page.get_by_text("4 of 6 faces labeled")).to_be_visible()
    page.keyboard.press("1")
    expect(page.get_by_role("status")).to_contain_text("No face is left to label")
    assert find_violations(page) == []
    assert audit.labels.log == [
        *((first, "happy"), (second, "sad"), (third, "neither"), (third, "")),
        *((third, "cannot_tell"), (fifth, "sad"), (sixth, "happy")),
    ]
    assert set(messages) == {GONE}  # nothing is blocked by the policy, and no script fails


def test_it_is_used_by_touch_and_continues_where_one_stopped(
    browser: Browser, audit: labeling.Page, url: str
) -> None:
    width, height = SIZES["phone"]
    with browser.new_context(viewport={"width": width, "height": height}, has_touch=True) as phone:
        page = open_page(phone, url)
        for place, name in enumerate(("Happy", "Sad", "Neither", "Can’t tell")):
            expect_face(page, audit.order[place], place + 1)
            button = page.get_by_role("button", name=name)
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 44  # of a thumb
            assert box["y"] + box["height"] <= height  # without scrolling
            button.tap()
        expect_face(page, audit.order[4], 5)
        page.get_by_role("button", name="Back").tap()
        expect_face(page, audit.order[3], 4)
    with browser.new_context() as desk:
        expect_face(open_page(desk, url), audit.order[3], 4)
    assert list(audit.labels.labels.values()) == ["happy", "sad", "neither"]


def test_a_label_that_is_not_stored_is_told_and_the_face_stays(
    browser: Browser, audit: labeling.Page, url: str
) -> None:
    with browser.new_context() as context:
        page = open_page(context, url)
        first, second, third, *_ = audit.order
        expect_face(page, first, 1)
        audit.labels.error = DatabaseUnavailableError("down", "wait")
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_contain_text("Not saved: choose the label again")
        assert find_violations(page) == []
        expect_face(page, first, 1)
        audit.labels.error = None
        page.keyboard.press("2")
        expect_face(page, second, 2)
        expect(page.get_by_role("alert")).to_be_hidden()
        # Also if the server, or the tunnel to it, is gone.
        context.set_offline(True)
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        expect_face(page, second, 2)
        context.set_offline(False)
        page.keyboard.press("1")
        expect_face(page, third, 3)
        assert audit.labels.log == [(first, "sad"), (second, "happy")]


def test_a_face_that_cannot_be_fetched_is_told_and_fetched_again(
    browser: Browser, audit: labeling.Page, url: str
) -> None:
    first, second, *_ = audit.order
    audit.pictures.failing[second] = StorageUnavailableError("down", "wait")
    with browser.new_context() as context:
        page = open_page(context, url)
        expect_face(page, first, 1)
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_contain_text("S3 or the database does not answer")
        expect(page.get_by_role("button", name="Happy")).to_be_disabled()
        page.keyboard.press("1")
        del audit.pictures.failing[second]
        page.get_by_role("button", name="Try again").click()
        expect_face(page, second, 2)
        assert audit.labels.log == [(first, "happy")]


def test_a_face_that_is_erased_after_it_was_fetched_ahead_is_not_shown(
    browser: Browser, audit: labeling.Page, url: str
) -> None:
    first, second, third, *_ = audit.order
    with browser.new_context() as context:
        page = context.new_page()
        with page.expect_response(f"**/face/{second}"):
            page.goto(url)
        expect_face(page, first, 1)
        audit.pictures.hidden[second] = "the image was erased"
        page.keyboard.press("1")
        expect_face(page, third, 3)
        # And one that is erased while it is on the screen gets no label.
        audit.pictures.hidden[third] = "the image was erased"
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_have_text("Not saved: the image was erased")
        expect_face(page, audit.order[3], 4)
        assert audit.labels.log == [(first, "happy")]


def test_a_key_that_is_held_down_labels_one_face(
    browser: Browser, audit: labeling.Page, url: str
) -> None:
    with browser.new_context() as context:
        page = open_page(context, url)
        expect_face(page, audit.order[0], 1)
        for _ in range(3):
            page.keyboard.down("1")
            expect_face(page, audit.order[1], 2)
        page.keyboard.up("1")
        page.keyboard.press("Control+1")
        page.keyboard.press("1")
        expect_face(page, audit.order[2], 3)
        # Also Enter on a button, which keeps the focus.
        page.get_by_role("button", name="Sad").focus()
        for _ in range(3):
            page.keyboard.down("Enter")
            expect_face(page, audit.order[3], 4)
        page.keyboard.up("Enter")
        expect(page.get_by_role("button", name="Sad")).to_be_focused()
        assert [label for _, label in audit.labels.log] == ["happy", "happy", "sad"]


def test_the_browser_writes_no_face_to_its_profile(
    browser: Browser, audit: labeling.Page, url: str, tmp_path: Path
) -> None:
    kind = browser.browser_type
    from tests.support.browsers import find_browser

    context = kind.launch_persistent_context(tmp_path, executable_path=find_browser(kind))
    page = open_page(context, url)
    for place, number in enumerate(audit.order[:3]):
        expect_face(page, number, place + 1)
        page.keyboard.press("1")
    expect_face(page, audit.order[3], 4)
    page.goto("about:blank")
    context.close()
    parts = [picture[len(picture) // 2 :][:48] for picture in map(draw_picture, audit.order)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not any(part in content for part in parts), path
