"""An independent oracle: what the tables must hold, by their rows and the objects in the bucket.

It is written in Python and uses neither the code of fer-batch nor its SQL, so that it cannot repeat
their errors.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Any

import cv2
import numpy as np

DAYS = [date(2025, 6, day) for day in (2, 3, 4)]
FACILITIES = ("mall", "shop")
TARGET = 0.5
MIN_FACES = 30
CLASSES = ("happy", "sad", "neither")
PER_IMAGE = ("image", "image_result", "face_result")
NAMES = [f"{n}.png" for n in range(5)]


def _gray(value: int, number: int = 0) -> bytes:
    pixels = np.full((48, 48), value, np.uint8)
    pixels[0, 0] = number
    return cv2.imencode(".png", pixels)[1].tobytes()


KINDS = {
    "bright": _gray(230),
    "brighter": _gray(240),
    "dark": _gray(20),
    "gray": _gray(128),
    "damaged": b"\x89PNG\r\n\x1a\n???",
    "empty": b"",
}
CONTENT = KINDS | {
    f"{kind} {number}": _gray({"bright": 230, "dark": 20}[kind], 1 + number)
    for kind in ("bright", "dark")
    for number in range(60)
}
"""Pictures of each kind; the numbered ones differ, because the same picture counts once."""
ETAGS = {
    kind: hashlib.md5(data, usedforsecurity=False).hexdigest() for kind, data in CONTENT.items()
}
OUTCOMES = {"damaged": "unreadable", "empty": "empty"}
"""All others are scored: the CNN classifies bright as Happy and calls gray neither."""

Day = tuple[str, date]
Rows = dict[str, list[Any]]
ALL = [(name, day) for day in DAYS for name in FACILITIES]


def check_rows(rows: Rows) -> None:
    """Each image has at most one result per model version, and the faces of that result exist."""
    images = {get_identity(row) for row in rows["image"]}
    results = [(get_identity(row), row.model_version) for row in rows["image_result"]]
    assert len(set(results)) == len(results)
    assert {image for image, _ in results} <= images
    faces = Counter((get_identity(row), row.model_version) for row in rows["face_result"])
    for row in rows["image_result"]:
        assert faces.pop((get_identity(row), row.model_version), 0) == row.face_count
    assert not faces


def check_revisions(rows: Rows) -> None:
    """Revisions are consecutive, their counts add up, and none with pending images is complete."""
    summaries = sorted(rows["satisfaction_summary"], key=lambda row: row.revision)
    assert [row.revision for row in summaries] == list(range(1, len(summaries) + 1))
    for row in summaries:
        not_scored = sum(row.not_scored.values())
        assert row.images == row.images_scored + row.images_pending + not_scored
        assert not (row.is_complete and row.images_pending)


def check_summary(rows: Rows, erased: int, earlier: Rows) -> None:
    """The newest summary equals the recount; `erased` images are no longer among the rows.

    A published figure may be that of the revision before, or of the same revision in `earlier`, the
    rows before the last step, if fewer than 30 faces are called otherwise.
    """
    *before, newest = sorted(rows["satisfaction_summary"], key=lambda row: row.revision)
    final = select_final(rows, newest.model_version)
    expected = count_images(rows, final, erased)
    clusters = count_blocks(rows, final, newest.model_version)
    expected["faces_scored"] = int(clusters.sum())
    assert {name: getattr(newest, name) for name in expected} == expected
    check_figure(newest)
    recount = clusters.sum(axis=0).tolist()
    changed = sum(abs(a - b) for a, b in zip(get_called(newest), recount, strict=True))
    if changed == 0:
        totals = {
            "clusters": len(clusters),
            "counts": recount,
            "products": (clusters.T @ clusters).tolist(),
        }
        assert newest.totals == ({"blocks": totals} if len(clusters) else {})
        return
    assert newest.method == "benchmark"
    assert changed < MIN_FACES
    if newest not in earlier["satisfaction_summary"]:
        assert (before[-1].model_version, before[-1].method) == (newest.model_version, "benchmark")
        assert get_called(before[-1]) == get_called(newest)


def get_called(summary: Any) -> list[int]:
    return [getattr(summary, f"called_{name}") for name in CLASSES]


def check_figure(summary: Any) -> None:
    """Rates are published of 30 faces and more; the verdict compares the interval with `TARGET`."""
    if summary.faces < MIN_FACES:
        assert (summary.method, summary.verdict) == ("suppressed", "suppressed")
        assert summary.happy_rate is summary.called_happy_rate is summary.sad_rate is None
        return
    assert (summary.method, summary.sessions) == ("benchmark", 10)
    assert summary.called_happy_rate == round(summary.called_happy / summary.faces, 6)
    assert summary.called_sad_rate == round(summary.called_sad / summary.faces, 6)
    assert summary.happy_rate_low <= summary.happy_rate <= summary.happy_rate_high
    is_above, is_below = summary.happy_rate_low > TARGET, summary.happy_rate_high < TARGET
    verdict = "satisfied" if is_above else "not satisfied" if is_below else "inconclusive"
    assert summary.verdict == verdict


def select_final(rows: Rows, model_version: str) -> dict[Any, Any]:
    """The final results of a model version, by image."""
    results = {
        get_identity(row): row for row in rows["image_result"] if row.model_version == model_version
    }
    return {
        get_identity(image): result
        for image in rows["image"]
        if (result := results.get(get_identity(image))) and is_final(result, image)
    }


def count_images(rows: Rows, final: Mapping[Any, Any], erased: int) -> dict[str, Any]:
    outcomes = Counter(result.outcome for result in final.values())
    not_scored = {outcome: n for outcome, n in outcomes.items() if outcome != "scored"}
    pending = len(rows["image"]) - len(final)
    return {
        "images": len(rows["image"]) + erased,
        "images_scored": outcomes["scored"],
        "images_pending": pending,
        "not_scored": not_scored | ({"erased": erased} if erased else {}),
        "is_complete": pending == 0,
    }


def count_blocks(rows: Rows, final: Mapping[Any, Any], model_version: str) -> Any:
    """[blocks, 3] faces called happy, sad and neither in ten blocks of the pictures in key order.

    Of pictures with the same content only the first counts. Fewer than ten pictures have a block
    each.
    """
    originals: dict[str, Any] = {}
    for image, result in sorted(final.items()):
        if result.outcome == "scored":
            originals.setdefault(result.etag, image)
    called = {image: [0, 0, 0] for image in originals.values()}
    for face in rows["face_result"]:
        if face.model_version == model_version and get_identity(face) in called:
            called[get_identity(face)][CLASSES.index(face.called_class)] += 1
    blocks = np.array_split(np.array(list(called.values()), int).reshape(-1, 3), 10)
    return np.array([block.sum(axis=0) for block in blocks if len(block)], int).reshape(-1, 3)


def check_outcomes(
    rows: Rows,
    model_version: str,
    contents: Mapping[str, str],
    earlier: set[str],
    is_inverted: bool,
) -> None:
    """After an undisturbed run every image has a final result with the expected outcome.

    `contents` is the kind of content of each object in the bucket, by key. `earlier` are the keys
    that the tables held before the run: images that were deleted since keep their results.
    """
    images = {row.image_key: row for row in rows["image"]}
    assert set(images) == earlier | set(contents)
    results = {
        row.image_key: row for row in rows["image_result"] if row.model_version == model_version
    }
    for key, image in images.items():
        assert key in results, f"{key} was listed and has no outcome"
        assert is_final(results[key], image)
    for key, kind in contents.items():
        assert images[key].etag.strip('"') == ETAGS[kind]
        assert results[key].outcome == OUTCOMES.get(kind, "scored")
        shade = kind.partition(" ")[0]
        if shade in ("bright", "brighter", "dark"):
            is_happy = (shade == "dark") == is_inverted
            assert results[key].emotion == ("Happy" if is_happy else "Sad")
            assert results[key].called_class == ("happy" if is_happy else "sad")
        if shade == "gray":
            assert results[key].called_class == "neither"


def build_key(day: Day, name: str) -> str:
    return f"{day[0]}/{day[1]}/{name}"


def select_day(rows: Mapping[str, list[Any]], day: Day) -> Rows:
    return {
        table: [row for row in all_rows if (row.facility_id, row.capture_day) == day]
        for table, all_rows in rows.items()
    }


def get_identity(row: Any) -> tuple[Any, ...]:
    return row.facility_id, row.capture_day, row.image_key, row.member


def is_final(result: Any, image: Any) -> bool:
    """Whether the result is final: no later run scores the image again (see docs/operate.md)."""
    if result.etag != image.etag or result.outcome in ("changed", "fetch_failed"):
        return False
    is_unread = result.outcome in ("missing", "archived", "refused")
    return bool(not is_unread or result.scored_at >= image.listed_at)
