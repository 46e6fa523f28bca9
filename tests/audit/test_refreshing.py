"""Which detected face is the labeled one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.audit.refreshing import compute_overlap, find_same_face
from fer_batch.imaging.faces import DetectedFace
from fer_batch.records import Box

LABELED = Box(100, 50, 40, 40)
BOXES = st.builds(
    Box, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 12), st.integers(1, 12)
)


@given(BOXES, BOXES)
def test_the_overlap_is_that_of_the_pixels(first: Box, second: Box) -> None:
    def list_pixels(box: Box) -> set[tuple[int, int]]:
        return {
            (x, y)
            for x in range(box.x, box.x + box.width)
            for y in range(box.y, box.y + box.height)
        }

    a, b = list_pixels(first), list_pixels(second)
    assert compute_overlap(first, second) == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([LABELED], 0),
        ([Box(0, 0, 40, 40), Box(103, 48, 40, 42), Box(110, 60, 40, 40)], 1),
        ([Box(125, 50, 40, 40)], None),  # a neighbor
        ([Box(60, 10, 120, 120)], None),  # the whole body
        ([], None),
    ],
)
def test_the_face_with_the_most_overlap_is_the_same(boxes: list[Box], expected: int | None) -> None:
    assert find_same_face(LABELED, [DetectedFace(box) for box in boxes]) == expected
