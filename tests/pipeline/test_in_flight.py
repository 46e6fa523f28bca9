"""The register of images in flight, which scoring process and supervisor share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fer_batch.pipeline import in_flight
from fer_batch.records import Batch, Image

BATCH = Batch("north-mall", date(2026, 11, 21))


@pytest.mark.parametrize(
    ("key", "etag", "expected_etag"),
    [
        ('\x01é\\"' * 250, '"etag"', '"etag"'),
        ("a.jpg", "e" * 100_000, "e" * 100_000),
        ("a.jpg", "e" * 200_000, ""),  # longer than its slot
        ("a.jpg", '"' * 100_000, ""),  # longer as JSON
        ("k" * 200_000, "etag", None),
    ],
)
def test_the_register_holds_any_image_beside_its_neighbor(
    tmp_path: Path, key: str, etag: str, expected_etag: str | None
) -> None:
    path = tmp_path / "in-flight"
    in_flight.create_register(path, 2)
    register = in_flight.InFlightRegister(path)
    image, neighbor = Image(BATCH, key, etag, 5), Image(BATCH, "neighbor", "etag", 5)
    with ThreadPoolExecutor(1) as other_thread, register.track(image):
        tracked_neighbor = register.track(neighbor)
        other_thread.submit(tracked_neighbor.__enter__).result()
        with register.track(image):
            found = in_flight.read_register(path)
    expected = [] if expected_etag is None else [replace(image, etag=expected_etag)]
    assert found == [*expected, neighbor]
    assert in_flight.read_register(path) == [neighbor]


def test_a_slot_that_is_being_rewritten_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "in-flight"
    in_flight.create_register(path, 2)
    register = in_flight.InFlightRegister(path)
    image = Image(BATCH, "a.jpg", "etag", 5)
    with register.track(image):
        half = path.read_bytes().replace(b'"a.jpg"', b'"a.j{"x')
        path.write_bytes(half)
        assert in_flight.read_register(path) == []
