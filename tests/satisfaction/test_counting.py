"""How the faces of a day are counted and divided into sessions and blocks, against a recount."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fer_batch.records import Batch, Image, ImageScore, Outcome
from fer_batch.satisfaction import periods

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)
FACES = {"happy": (0.75, 0.125), "sad": (0.125, 0.75), "neither": (0.25, 0.125)}
CLASSES = tuple(FACES)


@dataclass(frozen=True)
class Shot:
    """An image of a day: when and by which camera it was captured, and its faces."""

    key: str
    second: float | None = None
    camera: str | None = "a"
    faces: tuple[str, ...] = ("happy",)
    etag: str = ""


def write_day(tables: Any, shots: Iterable[Shot], batch: Batch | None = None) -> Any:
    """List and score a day of images, and return its summary."""
    batch = batch or tables.batch
    by_key = {shot.key: shot for shot in shots}
    tables.list({key: shot.etag or f"etag of {key}" for key, shot in by_key.items()}, batch)
    tables.write(*(score_shot(tables, i, by_key[i.key]) for i in tables.list_work(batch)))
    begin = datetime.combine(batch.capture_day, NINE.timetz())
    with tables.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE fer.image SET camera = %s, captured_at_utc = %s"
            " WHERE facility_id = %s AND capture_day = %s AND image_key = %s",
            [
                (
                    shot.camera,
                    None if shot.second is None else begin + timedelta(seconds=shot.second),
                    batch.facility_id,
                    batch.capture_day,
                    shot.key,
                )
                for shot in by_key.values()
            ],
        )
    (summary,) = tables.summarize(batch)
    return summary


def score_shot(tables: Any, image: Image, shot: Shot) -> ImageScore:
    if not shot.faces:
        return ImageScore(image, Outcome.NO_FACE)
    return tables.build_score(image, *(tables.build_face(*FACES[name]) for name in shot.faces))


def count_sessions(tables: Any, *shots: tuple[str, float]) -> int:
    """The number of sessions of images, given as camera and second."""
    summary = write_day(
        tables,
        [Shot(f"{n:03}", second, camera) for n, (camera, second) in enumerate(shots)],
    )
    return int(summary["totals"]["gap"]["clusters"])


# Sessions


@pytest.mark.parametrize(
    ("seconds", "sessions"),
    [
        ([0], 1),
        ([0, 60], 1),
        ([0, 60.001], 2),
        ([0, 60, 120, 180, 240, 299], 1),
        ([0, 60, 120, 180, 240, 300], 2),  # after 5 minutes
        ([0, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600], 3),
        ([0, 61, 122, 183], 4),
        ([0, 30, 200, 230], 2),
        ([230, 0, 200, 30], 2),  # in whatever order the keys are
    ],
)
def test_a_session_ends_at_a_gap_or_after_five_minutes(
    tables: Any, seconds: list[float], sessions: int
) -> None:
    assert count_sessions(tables, *(("a", second) for second in seconds)) == sessions


def test_cameras_do_not_mix(tables: Any) -> None:
    """Pictures of another camera neither bridge a gap nor make one."""
    shots = [("a", 0), ("b", 50), ("a", 100), ("b", 105), ("a", 150)]
    assert count_sessions(tables, *shots) == 3  # a: 0; 100, 150. b: 50, 105


def test_images_without_a_camera_are_one_camera(tables: Any) -> None:
    shots = [Shot(f"{n}", 40.0 * n, None) for n in range(4)]
    assert write_day(tables, shots)["totals"]["gap"]["clusters"] == 1


# Blocks


def build_shots(count: int, *, timed: bool = True) -> list[Shot]:
    """Images in the reverse order of their keys, a tenth of them sad, a tenth neither."""
    return [
        Shot(
            f"{999 - n}",
            100.0 * n if timed else None,
            "ab"[n % 2],
            (CLASSES[max(0, n * 10 // count - 7)],),
        )
        for n in range(count)
    ]


def test_timed_days_have_twenty_blocks_in_order_of_time(tables: Any) -> None:
    blocks = write_day(tables, build_shots(40))["totals"]["blocks"]
    assert blocks["clusters"] == 20
    assert blocks["counts"] == [32, 4, 4]
    # Two images a block, each of one class: 16 blocks of two happy faces, 2 sad, 2 neither.
    assert blocks["products"] == [[64, 0, 0], [0, 8, 0], [0, 0, 8]]


def test_days_without_times_have_ten_blocks_in_order_of_keys(tables: Any) -> None:
    summary = write_day(tables, build_shots(40, timed=False))
    assert list(summary["totals"]) == ["blocks"]
    assert summary["totals"]["blocks"]["clusters"] == 10
    assert summary["totals"]["blocks"]["products"] == [[128, 0, 0], [0, 16, 0], [0, 0, 16]]
    assert (summary["session_rule"], summary["sessions"]) == ("blocks", 10)


def test_one_missing_time_leaves_the_day_without_sessions(tables: Any) -> None:
    first, *others = build_shots(40)
    summary = write_day(tables, [replace(first, second=None), *others])
    assert list(summary["totals"]) == ["blocks"]
    assert summary["totals"]["blocks"]["clusters"] == 10


def test_an_image_without_a_face_needs_no_time(tables: Any) -> None:
    """Only images with faces are divided."""
    shots = build_shots(40)
    summary = write_day(tables, [*shots, Shot("empty shop", None, None, ())])
    assert (summary["images"], summary["not_scored"]) == (41, {"no_face": 1})
    assert summary["totals"] == recount(shots)
    assert sorted(summary["totals"]) == ["blocks", "gap"]


def test_few_images_have_a_block_each(tables: Any) -> None:
    assert write_day(tables, build_shots(7))["totals"]["blocks"]["clusters"] == 7


# The same picture


def test_pictures_with_the_same_content_count_once(tables: Any) -> None:
    """In the first of them, by time; all stay images of the day."""
    shots = build_shots(40)
    copies = [Shot(f"{n}", 5000.0 + n, "a", ("sad",) * 3, "poster") for n in range(100, 150)]
    first = replace(copies[0], key="000", second=10.0)
    summary = write_day(tables, [*shots, *copies, first])
    assert (summary["images"], summary["images_scored"]) == (91, 91)
    assert summary["faces"] == summary["faces_scored"] == 43
    assert summary["called_sad"] == 4 + 3
    alone = write_day(tables, [*shots, first], Batch("north-mall", date(2026, 3, 2)))
    assert alone["totals"] == summary["totals"]


def test_the_same_content_of_another_day_or_facility_counts_there(tables: Any) -> None:
    outlet = tables.add("outlet")
    next_day = replace(tables.batch, capture_day=date(2026, 3, 2))
    shots = [Shot(f"{n}", etag="poster") for n in range(5)]
    for batch in (tables.batch, outlet, next_day):
        assert write_day(tables, shots, batch)["faces"] == 1


# Against a recount


def draw_shots(seed: int, *, timed: bool) -> list[Shot]:
    """A random day: cameras, visits of several pictures, pauses, some pictures twice."""
    rng = random.Random(seed)
    shots, second = [], 0.0
    for n in range(rng.randint(60, 120)):
        second += rng.choice([0, 1, 5, 5, 30, 59, 60, 61, 90, 200])
        faces = tuple(rng.choices(CLASSES, (3, 1, 4), k=rng.choice([1, 1, 1, 2, 4])))
        shots.append(
            Shot(
                f"{rng.randrange(10**6):06}-{n}",
                second if timed else None,
                rng.choice(["a", "b", "c"]),
                faces,
                rng.choice(["", "", "", "", f"copy {n % 4} {len(faces)}"]),
            )
        )
    return shots


def recount(shots: list[Shot]) -> dict[str, Any]:
    """The totals as the docs describe them, without SQL."""
    originals: dict[str, Shot] = {}
    for shot in sorted(shots, key=lambda s: (s.second is None, s.second or 0, s.key)):
        originals.setdefault(shot.etag or shot.key, shot)
    kept = list(originals.values())
    is_timed = all(shot.second is not None for shot in kept)
    clusterings = {}
    if is_timed:
        sessions: dict[Any, list[Shot]] = defaultdict(list)
        for camera in {shot.camera for shot in kept}:
            number, begin, last = 0, 0.0, float("-inf")
            own = [shot for shot in kept if shot.camera == camera]
            for shot in sorted(own, key=lambda s: (s.second or 0, s.key)):
                second = shot.second or 0.0
                if second - last > 60:
                    number, begin = number + 1, second
                last = second
                sessions[camera, number, (second - begin) // 300].append(shot)
        clusterings["gap"] = list(sessions.values())
    ordered = sorted(kept, key=lambda s: (s.second or 0.0, s.key) if is_timed else s.key)
    size, rest = divmod(len(ordered), 20 if is_timed else 10)
    blocks, begin_at = [], 0
    for n in range(20 if is_timed else 10):  # the first blocks have one image more, as by ntile
        end = begin_at + size + (n < rest)
        blocks.append(ordered[begin_at:end])
        begin_at = end
    clusterings["blocks"] = [block for block in blocks if block]
    return {rule: count(clusters) for rule, clusters in clusterings.items()}


def count(clusters: list[list[Shot]]) -> dict[str, Any]:
    k = np.array(
        [[sum(s.faces.count(name) for s in shots) for name in CLASSES] for shots in clusters]
    )
    return {
        "clusters": len(k),
        "counts": k.sum(axis=0).tolist(),
        "products": (k.T @ k).tolist(),
    }


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_totals_agree_with_a_recount(tables: Any, seed: int, timed: bool) -> None:
    shots = draw_shots(seed, timed=timed)
    summary = write_day(tables, shots)
    expected = recount(shots)
    assert summary["totals"] == expected
    counts = expected["blocks"]["counts"]
    assert [summary[f"called_{name}"] for name in CLASSES] == counts
    assert summary["faces"] == summary["faces_scored"] == sum(counts)
    assert summary["called_happy_rate"] == pytest.approx(counts[0] / sum(counts), abs=1e-6)


def add(*totals: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clusters": sum(each["clusters"] for each in totals),
        "counts": np.sum([each["counts"] for each in totals], axis=0).tolist(),
        "products": np.sum([each["products"] for each in totals], axis=0).tolist(),
    }


def test_a_week_has_the_totals_of_its_days(tables: Any) -> None:
    """As if the faces of all days were counted at once: no session crosses midnight."""
    monday = date(2026, 3, 2)
    batches = [Batch("north-mall", monday + timedelta(n)) for n in range(7)]
    days = [write_day(tables, draw_shots(n, timed=True), b) for n, b in enumerate(batches)]
    assert {day["method"] for day in days} == {"benchmark"}
    with tables.transaction() as connection:
        periods.write_period_summaries(connection, batches, tables.facilities, "run-1")
    (week,) = (
        row._mapping
        for row in tables.query("SELECT * FROM fer.satisfaction_summary WHERE period = 'week'")
    )
    assert week["totals"] == {
        rule: add(*(day["totals"][rule] for day in days)) for rule in ("gap", "blocks")
    }
    for name in ("images", "faces", "called_happy", "called_sad", "called_neither", "sessions"):
        assert week[name] == sum(day[name] for day in days)
    assert week["faces_effective"] > max(day["faces_effective"] for day in days)
