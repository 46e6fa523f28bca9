"""What the tables must say, worked out in Python from their rows and from what lies in the bucket.

Nothing here asks fer-batch or its SQL: it is the other hand that counts.
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


def _grey(value: int) -> bytes:
    return cv2.imencode(".png", np.full((48, 48), value, np.uint8))[1].tobytes()


CONTENT = {
    "bright": _grey(230),
    "brighter": _grey(240),
    "dark": _grey(20),
    "grey": _grey(128),
    "damaged": b"\x89PNG\r\n\x1a\n???",
    "empty": b"",
}
ETAGS = {
    kind: hashlib.md5(data, usedforsecurity=False).hexdigest() for kind, data in CONTENT.items()
}
OUTCOMES = {"damaged": "unreadable", "empty": "empty"}
"""All others are scored: the CNN takes bright for Happy, grey for uncertain."""

Day = tuple[str, date]
Rows = dict[str, list[Any]]
ALL = [(name, day) for day in DAYS for name in FACILITIES]


def check_rows(rows: Rows) -> None:
    """One outcome for each image and model version, with its faces, and nothing else."""
    images = {identity(row) for row in rows["image"]}
    results = [(identity(row), row.model_version) for row in rows["image_result"]]
    assert len(set(results)) == len(results)
    assert {image for image, _ in results} <= images
    faces = Counter((identity(row), row.model_version) for row in rows["face_result"])
    for row in rows["image_result"]:
        assert faces.pop((identity(row), row.model_version), 0) == row.face_count
    assert not faces


def check_revisions(rows: Rows) -> None:
    """They are counted through, add up, and call nothing complete that is not."""
    found = sorted(rows["satisfaction_summary"], key=lambda row: row.revision)
    assert [row.revision for row in found] == list(range(1, len(found) + 1))
    for row in found:
        left_out = sum(row.not_scored.values())
        assert row.images == row.images_scored + row.images_pending + left_out
        assert not (row.is_complete and row.images_pending)


def check_summary(rows: Rows, erased: int) -> None:
    """The newest summary says what is counted here; `erased` images are gone from the rows."""
    newest = max(rows["satisfaction_summary"], key=lambda row: row.revision)
    counted = recount(rows, newest.model_version, erased)
    assert {name: getattr(newest, name) for name in counted} == counted


def recount(rows: Rows, model_version: str, erased: int) -> dict[str, Any]:
    results = {
        identity(row): row for row in rows["image_result"] if row.model_version == model_version
    }
    final = {
        identity(image): result
        for image in rows["image"]
        if (result := results.get(identity(image))) and is_final(result, image)
    }
    outcomes = Counter(result.outcome for result in final.values())
    faces = [
        row
        for row in rows["face_result"]
        if row.model_version == model_version and identity(row) in final
    ]
    sure = Counter(row.p_happy >= row.p_sad for row in faces if not row.is_uncertain)
    not_scored = {outcome: n for outcome, n in outcomes.items() if outcome != "scored"}
    pending = len(rows["image"]) - len(final)
    return {
        "images": len(rows["image"]) + erased,
        "images_scored": outcomes["scored"],
        "images_pending": pending,
        "not_scored": not_scored | ({"erased": erased} if erased else {}),
        "faces": len(faces),
        "happy": sure[True],
        "sad": sure[False],
        "uncertain": len(faces) - sure.total(),
        "neither": sum(row.p_neither > max(row.p_happy, row.p_sad) for row in faces),
        "is_complete": pending == 0,
    } | judged(sure[True], sure[False])


def check_outcomes(
    rows: Rows, model_version: str, there: Mapping[str, str], earlier: set[str], is_inverted: bool
) -> None:
    """After a whole run: every image that was or is there has its outcome, and the right one.

    `there` is the kind of content by key, `earlier` are the keys that the tables knew before.
    """
    images = {row.image_key: row for row in rows["image"]}
    assert set(images) == earlier | set(there)
    results = {
        row.image_key: row for row in rows["image_result"] if row.model_version == model_version
    }
    for key, image in images.items():
        assert key in results, f"{key} was listed and has no outcome"
        assert is_final(results[key], image)
    for key, kind in there.items():
        assert images[key].etag.strip('"') == ETAGS[kind]
        assert results[key].outcome == OUTCOMES.get(kind, "scored")
        if kind in ("bright", "brighter", "dark"):
            assert results[key].emotion == ("Sad" if (kind == "dark") != is_inverted else "Happy")
        if kind == "grey":
            assert results[key].is_uncertain


def judged(happy: int, sad: int) -> dict[str, Any]:
    """Share and verdict as the documents say, for a target of `TARGET`."""
    n = happy + sad
    if n < 30:
        return {"happy_share": None, "verdict": "suppressed"}
    share, z2 = happy / n, 1.959964**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    is_above, is_below = centre - half > TARGET, centre + half < TARGET
    verdict = "satisfied" if is_above else "not satisfied" if is_below else "inconclusive"
    return {"happy_share": round(share, 6), "verdict": verdict}


def key_of(day: Day, name: str) -> str:
    return f"{day[0]}/{day[1]}/{name}"


def of_day(rows: Mapping[str, list[Any]], day: Day) -> Rows:
    return {
        table: [row for row in found if (row.facility_id, row.capture_day) == day]
        for table, found in rows.items()
    }


def identity(row: Any) -> tuple[Any, ...]:
    return row.facility_id, row.capture_day, row.image_key, row.member


def is_final(result: Any, image: Any) -> bool:
    """Whether the result settles the image, as docs/operate.md tells it."""
    if result.etag != image.etag or result.outcome in ("changed", "fetch_failed"):
        return False
    return bool(result.outcome != "vanished" or result.scored_at >= image.listed_at)
