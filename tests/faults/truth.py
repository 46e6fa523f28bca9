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
PER_IMAGE = ("image", "image_result", "face_result")
NAMES = [f"{n}.png" for n in range(5)]


def _gray(value: int) -> bytes:
    return cv2.imencode(".png", np.full((48, 48), value, np.uint8))[1].tobytes()


CONTENT = {
    "bright": _gray(230),
    "brighter": _gray(240),
    "dark": _gray(20),
    "gray": _gray(128),
    "damaged": b"\x89PNG\r\n\x1a\n???",
    "empty": b"",
}
ETAGS = {
    kind: hashlib.md5(data, usedforsecurity=False).hexdigest() for kind, data in CONTENT.items()
}
OUTCOMES = {"damaged": "unreadable", "empty": "empty"}
"""All others are scored: the CNN classifies bright as Happy and gray as uncertain."""

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


def check_summary(rows: Rows, erased: int) -> None:
    """The newest summary equals the recount; `erased` images are no longer among the rows."""
    newest = max(rows["satisfaction_summary"], key=lambda row: row.revision)
    expected = count_summary(rows, newest.model_version, erased)
    assert {name: getattr(newest, name) for name in expected} == expected


def count_summary(rows: Rows, model_version: str, erased: int) -> dict[str, Any]:
    results = {
        get_identity(row): row for row in rows["image_result"] if row.model_version == model_version
    }
    final = {
        get_identity(image): result
        for image in rows["image"]
        if (result := results.get(get_identity(image))) and is_final(result, image)
    }
    outcomes = Counter(result.outcome for result in final.values())
    faces = [
        row
        for row in rows["face_result"]
        if row.model_version == model_version and get_identity(row) in final
    ]
    certain = Counter(row.p_happy >= row.p_sad for row in faces if not row.is_uncertain)
    not_scored = {outcome: n for outcome, n in outcomes.items() if outcome != "scored"}
    pending = len(rows["image"]) - len(final)
    return {
        "images": len(rows["image"]) + erased,
        "images_scored": outcomes["scored"],
        "images_pending": pending,
        "not_scored": not_scored | ({"erased": erased} if erased else {}),
        "faces": len(faces),
        "happy": certain[True],
        "sad": certain[False],
        "uncertain": len(faces) - certain.total(),
        "neither": sum(row.p_neither > max(row.p_happy, row.p_sad) for row in faces),
        "is_complete": pending == 0,
    } | compute_verdict(certain[True], certain[False])


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
        if kind in ("bright", "brighter", "dark"):
            assert results[key].emotion == ("Sad" if (kind == "dark") != is_inverted else "Happy")
        if kind == "gray":
            assert results[key].is_uncertain


def compute_verdict(happy: int, sad: int) -> dict[str, Any]:
    """Share and verdict for the target share `TARGET`, by Wilson's interval as in the docs."""
    n = happy + sad
    if n < 30:
        return {"happy_share": None, "verdict": "suppressed"}
    share, z2 = happy / n, 1.959964**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    is_above, is_below = center - half > TARGET, center + half < TARGET
    verdict = "satisfied" if is_above else "not satisfied" if is_below else "inconclusive"
    return {"happy_share": round(share, 6), "verdict": verdict}


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
    return bool(result.outcome != "missing" or result.scored_at >= image.listed_at)
