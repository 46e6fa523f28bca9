"""Answers of decoders: the possible ones are read exactly, all others are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import DecodedImage, DetectedFace
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox.messages import (
    InvalidAnswerError,
    Item,
    Task,
    compute_largest_body,
    format_body,
    format_request,
    parse_answer,
    unpack_sizes,
)
from fer_batch.records import Box, Outcome

LIMITS = ImageLimits(1_000, 10_000, 16)
MIN_FACE_PX = 24


def draw_pixels(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint64).astype(np.uint8).reshape(shape)


@st.composite
def decoded_images(draw: st.DrawFn, task: Task) -> DecodedImage:
    width, height = draw(st.integers(24, 100)), draw(st.integers(24, 100))
    if task is Task.PIXELS:
        return DecodedImage(width, height, (), draw_pixels(height, width, 3))
    boxes = [Box(0, 0, width, height)]
    if task is Task.FRAMES:
        corners = st.tuples(st.integers(0, width - 24), st.integers(0, height - 24))
        boxes = [Box(x, y, 24, 24) for x, y in sorted(draw(st.lists(corners, max_size=4)))]
    score = None if task is Task.CROPS else draw(st.floats(0, 1))
    faces = tuple(DetectedFace(box, score) for box in boxes)
    return DecodedImage(width, height, faces, draw_pixels(len(faces), 48, 48))


@st.composite
def answers(draw: st.DrawFn) -> tuple[Task, list[Item]]:
    task = draw(st.sampled_from(Task))
    outcomes = [Outcome.EMPTY, Outcome.UNREADABLE, Outcome.UNSUPPORTED, Outcome.TOO_SMALL]
    reasons = st.text("aé×€", min_size=1, max_size=200)
    errors = st.builds(UndecodableImageError, st.sampled_from(outcomes), reasons)
    items = st.lists(st.one_of(decoded_images(task), errors), min_size=1, max_size=5)
    return task, draw(items)


def describe(items: list[Item]) -> list[object]:
    return [
        (item.outcome, item.reason)
        if isinstance(item, UndecodableImageError)
        else (*item[:3], item.crops.shape, item.crops.tobytes())
        for item in items
    ]


def parse(task: Task, count: int, body: bytes) -> list[Item]:
    return parse_answer(task, count, body, LIMITS, MIN_FACE_PX)


@given(answers())
def test_an_answer_is_read_as_it_was_written(answer: tuple[Task, list[Item]]) -> None:
    task, items = answer
    body = b"".join(format_body(task, items))
    assert len(body) <= compute_largest_body(task, len(items), LIMITS)
    assert describe(parse(task, len(items), body)) == describe(items)


@given(answers(), st.data())
def test_any_other_bytes_are_refused_or_a_possible_answer(
    answer: tuple[Task, list[Item]], data: st.DataObject
) -> None:
    task, items = answer
    body = bytearray(b"".join(format_body(task, items)))
    at = data.draw(st.integers(0, min(len(body), 200) - 1))
    body[at] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.sampled_from([len(body), at]))]
    other = data.draw(st.sampled_from(Task))
    try:
        read = parse(other, len(items), bytes(body))
    except InvalidAnswerError:
        return
    for item in read:
        if isinstance(item, UndecodableImageError):
            assert item.reason.isprintable()
            continue
        assert item.width_px * item.height_px <= LIMITS.max_pixels
        assert min(item.width_px, item.height_px) >= LIMITS.min_px
        if other is not Task.PIXELS:
            assert item.crops.shape == (len(item.faces), 48, 48)
        for face in item.faces:
            box = face.box
            assert min(box.x, box.y) >= 0 < min(box.width, box.height)
            assert box.x + box.width <= item.width_px
            assert box.y + box.height <= item.height_px


def make_frame(boxes: list[Box], score: float = 0.9) -> bytes:
    faces = tuple(DetectedFace(box, score) for box in boxes)
    frame = DecodedImage(100, 100, faces, draw_pixels(len(faces), 48, 48))
    return b"".join(format_body(Task.FRAMES, [frame]))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (make_frame([Box(-1, 0, 30, 30)]), "without a pixel"),
        (make_frame([Box(0, 0, 0, 30)]), "without a pixel"),
        (make_frame([Box(80, 0, 30, 30)]), "beside the image"),
        (make_frame([Box(0, 2**31 - 1, 30, 30)]), "beside the image"),
        (make_frame([Box(0, 0, 23, 23)]), "too small"),
        (make_frame([Box(9, 0, 30, 30), Box(8, 0, 30, 30)]), "out of order"),
        (make_frame([Box(0, 0, 30, 30)], float("nan")), "without a score"),
        (make_frame([Box(0, 0, 30, 30)], 1.5), "without a score"),
        (b"", "without records"),
        (make_frame([]) + b"x", "another size"),
        (b"\x09" + make_frame([])[1:], "of an image that was not decoded"),
    ],
)
def test_each_kind_of_lie_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidAnswerError, match=reason):
        parse(Task.FRAMES, 1, body)


@pytest.mark.parametrize("size", [0, 1, 2_000_000])
def test_a_request_holds_the_sizes_and_the_images(size: int) -> None:
    images = [b"a" * size, b"bc"]
    request = b"".join(format_request(Task.CROPS, images))
    assert unpack_sizes(request[5:21]) == (size, 2)
    assert request[21:] == b"".join(images)
