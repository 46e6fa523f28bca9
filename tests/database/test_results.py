"""Results of images: one correct row each, however often and by whichever process it is written."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_batch.database import ledger, results
from fer_batch.errors import DatabaseError
from fer_batch.records import Batch, CalledClass, Emotion, ImageScore, ListedImage, Outcome
from tests.fixtures.tables import CARD, name_etag

IMAGES = "SELECT *, xmin::text FROM fer.image_result ORDER BY image_key, model_version"
FACES = "SELECT *, xmin::text FROM fer.face_result ORDER BY image_key, face_index"


def test_scored_image_has_its_faces_and_their_mean(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    faces = (
        tables.build_face(0.75, 0.125, detector_score=0.5),
        tables.build_face(0.25, 0.5),
        tables.build_face(0.125, 0.25),
    )
    assert tables.write(tables.build_score(image, *faces), run_id="run-7") == 1
    (row,) = tables.query(IMAGES)
    assert (row.image_key, row.outcome, row.reason) == ("a.jpg", "scored", "")
    assert row.etag == name_etag("a.jpg")
    assert (row.face_count, row.width_px, row.height_px, row.size_bytes) == (3, 48, 48, 1300)
    assert (row.p_happy, row.p_sad, row.p_neither) == pytest.approx((0.375, 0.875 / 3, 1 / 3))
    assert (row.emotion, row.called_class, row.run_id) == ("Happy", "neither", "run-7")
    stored = tables.query(FACES)
    assert [face.face_index for face in stored] == [0, 1, 2]
    assert [face.emotion for face in stored] == ["Happy", "Sad", "Sad"]
    assert [face.called_class for face in stored] == ["happy", "sad", "neither"]
    assert [face.detector_score for face in stored] == [0.5, None, None]
    assert (stored[0].box_x, stored[0].box_y, stored[0].box_width) == (-1, 2, 48)


@pytest.mark.parametrize(
    ("faces", "called"),
    [
        ([(0.25, 0.125)], "neither"),
        ([(0.75, 0.125), (0.375, 0.25)], "happy"),  # 0.5625 happy on average
        ([(0.125, 0.75), (0.25, 0.25)], "sad"),  # 0.5 sad
        ([(0.75, 0.125), (0.125, 0.75)], "sad"),  # 0.4375 of both: not happy, and sad from 0.4
    ],
)
def test_image_is_called_by_the_means_of_its_faces(
    tables: Any, faces: list[tuple[float, float]], called: str
) -> None:
    tables.list(["a.jpg"])
    built = [tables.build_face(*face) for face in faces]
    tables.write(tables.build_score(*tables.list_work(), *built))
    assert tables.query("SELECT called_class FROM fer.image_result") == [(called,)]


def test_emotion_follows_the_margin_and_not_the_shares_of_people(tables: Any) -> None:
    """The forced choice is by the CNN's own probabilities, the called class by the shares."""
    tables.list(["a.jpg"])
    face = tables.build_face(0.25, 0.125, happy_margin=-0.5)
    tables.write(tables.build_score(*tables.list_work(), face))
    for table in ("image_result", "face_result"):
        assert tables.query(f"SELECT emotion, called_class FROM fer.{table}") == [  # noqa: S608
            ("Sad", "neither")
        ]


def test_image_without_faces_has_a_reason_and_no_emotion(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    tables.write(ImageScore(image, Outcome.UNREADABLE, "JPEG ends early"))
    (row,) = tables.query(IMAGES)
    assert (row.outcome, row.reason, row.face_count) == ("unreadable", "JPEG ends early", 0)
    assert row.emotion is row.p_happy is row.called_class is row.width_px is None


@pytest.mark.parametrize("reason", ["x" * 500, "nul \0 byte", "half \ud83d character"])
def test_hostile_reason_does_not_stop_the_chunk(tables: Any, reason: str) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    assert tables.write(ImageScore(image, Outcome.UNREADABLE, reason)) == 1
    (row,) = tables.query(IMAGES)
    assert row.reason[:4] == reason[:4]
    assert len(row.reason) <= 200


def test_stored_emotion_and_called_class_equal_those_of_the_record(tables: Any) -> None:
    tables.list([f"{n:02d}.jpg" for n in range(9)])
    images = tables.list_work()
    faces = [tables.build_face(p, s) for p in (0.0, 0.25, 0.5) for s in (0.0, 0.25, 0.5)]
    tables.write(*(tables.build_score(i, f) for i, f in zip(images, faces, strict=True)))
    stored = [Emotion(row.emotion) for row in tables.query(FACES)]
    assert stored == [face.emotion for face in faces]
    assert stored == [Emotion(row.emotion) for row in tables.query(IMAGES)]
    for rows in (tables.query(FACES), tables.query(IMAGES)):
        assert [CalledClass(row.called_class) for row in rows] == [f.called_class for f in faces]


def test_finished_images_are_not_changed(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    a, b = tables.list_work()
    tables.write(tables.build_score(a), ImageScore(b, Outcome.NO_FACE))
    before = tables.query(IMAGES), tables.query(FACES)
    assert (
        tables.write(
            tables.build_score(a, tables.build_face(0, 1)), tables.build_score(b), run_id="run-2"
        )
        == 0
    )
    assert (tables.query(IMAGES), tables.query(FACES)) == before


def test_unfinished_image_gets_the_next_result(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    for outcome in (Outcome.FETCH_FAILED, Outcome.CHANGED):
        assert tables.write(ImageScore(image, outcome)) == 1
    assert tables.write(tables.build_score(image)) == 1
    (row,) = tables.query(IMAGES)
    assert (row.outcome, row.face_count, row.emotion) == ("scored", 1, "Happy")


def test_overwritten_image_gets_a_new_result_and_new_faces(tables: Any) -> None:
    tables.list({"a.jpg": "1", "b.jpg": "1"})
    tables.write(*(tables.build_score(i, *[tables.build_face()] * 3) for i in tables.list_work()))
    tables.list({"a.jpg": "2", "b.jpg": "1"})
    (image,) = tables.list_work()
    assert (
        tables.write(tables.build_score(image, tables.build_face(0.125, 0.75)), run_id="run-2") == 1
    )
    a, b = tables.query(IMAGES)
    assert (a.etag, a.emotion, a.face_count, a.run_id) == ("2", "Sad", 1, "run-2")
    assert (b.etag, b.emotion, b.face_count, b.run_id) == ("1", "Happy", 3, "run-1")
    faces = [(f.image_key, f.face_index, f.emotion) for f in tables.query(FACES)]
    assert faces == [("a.jpg", 0, "Sad")] + [("b.jpg", n, "Happy") for n in range(3)]


def test_overwritten_image_without_a_face_loses_the_old_faces(tables: Any) -> None:
    tables.list({"a.jpg": "1"})
    tables.write(*map(tables.build_score, tables.list_work()))
    tables.list({"a.jpg": "2"})
    tables.write(*(ImageScore(image, Outcome.NO_FACE) for image in tables.list_work()))
    assert tables.query(FACES) == []


def test_result_of_an_old_content_is_not_written(tables: Any) -> None:
    tables.list({"a.jpg": "1"})
    (old,) = tables.list_work()
    tables.list({"a.jpg": "2"})
    (new,) = tables.list_work()
    tables.write(tables.build_score(new))
    assert tables.write(tables.build_score(old, tables.build_face(0, 1))) == 0
    assert [row.etag for row in tables.query(IMAGES)] == ["2"]


def test_image_that_was_never_listed_is_not_written(tables: Any) -> None:
    tables.list(["a.jpg"])
    assert tables.write(tables.build_score(tables.build_image("other.jpg"))) == 0
    assert tables.query(FACES) == []


def test_each_model_version_has_its_own_results(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    other = "b" * 64
    tables.write(tables.build_score(image))
    with pytest.raises(DatabaseError, match="not registered"):
        tables.write(tables.build_score(image), model_version=other)
    with tables.transaction() as connection:
        results.register_model_version(connection, other, {}, {})
    assert (
        tables.write(tables.build_score(image, tables.build_face(0, 1)), model_version=other) == 1
    )
    rows = tables.query(IMAGES)
    assert [(row.model_version, row.emotion) for row in rows] == [
        (tables.version, "Happy"),
        (other, "Sad"),
    ]
    assert len(tables.query(FACES)) == 2


def test_registered_model_version_never_changes(tables: Any) -> None:
    with tables.transaction() as connection:
        results.register_model_version(connection, tables.version, {"format": 2}, {})
    assert tables.query("SELECT manifest, card FROM fer.model_version") == [({"format": 1}, CARD)]


# Rescoring


def test_rescoring_replaces_older_results_once(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    tables.write(tables.build_score(image, *[tables.build_face()] * 2))
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "run-2")
    again = tables.build_score(image, tables.build_face(0, 1))
    assert tables.write(again, run_id="run-2", rescore_before=began) == 1
    assert tables.write(again, run_id="run-2", rescore_before=began) == 0  # the retry of a chunk
    assert tables.write(again, run_id="run-3") == 0
    assert [(r.emotion, r.run_id) for r in tables.query(IMAGES)] == [("Sad", "run-2")]
    assert len(tables.query(FACES)) == 1


@pytest.mark.parametrize(
    ("outcome", "is_tried_again"),
    [
        (Outcome.MISSING, True),
        (Outcome.ARCHIVED, True),
        (Outcome.REFUSED, True),
        (Outcome.CHANGED, True),
        (Outcome.FETCH_FAILED, True),
        (Outcome.DECODER_CRASHED, False),
        (Outcome.UNREADABLE, False),
        (Outcome.UNSUPPORTED, False),
    ],
)
@pytest.mark.parametrize("faces", [0, 1])
def test_rescoring_keeps_results_of_images_that_it_cannot_read_or_decode(
    tables: Any, outcome: Outcome, is_tried_again: bool, faces: int
) -> None:
    """An image that crashes the decoder is not decoded again by every retry of the run."""
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    tables.write(tables.build_score(image) if faces else ImageScore(image, Outcome.NO_FACE))
    results_sql = "SELECT outcome, etag, face_count, p_happy FROM fer.image_result"
    before = tables.query(results_sql), tables.query(FACES)
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "run-2")
    scores = [ImageScore(image, outcome)]
    assert tables.write(*scores, rescore_before=began, run_id="run-2") == 0
    assert (tables.query(results_sql), tables.query(FACES)) == before
    assert (tables.list_work(rescore_before=began) == [image]) is is_tried_again


@pytest.mark.parametrize("outcome", [Outcome.DECODER_CRASHED, Outcome.UNREADABLE])
def test_rescoring_replaces_the_result_of_an_image_without_faces(
    tables: Any, outcome: Outcome
) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    tables.write(ImageScore(image, Outcome.DECODER_CRASHED))
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "run-2")
    assert tables.write(ImageScore(image, outcome), rescore_before=began, run_id="run-2") == 1
    assert tables.list_work(rescore_before=began) == []
    assert [r.outcome for r in tables.query(IMAGES)] == [outcome]


_number = count()
UNREAD = (Outcome.MISSING, Outcome.ARCHIVED, Outcome.REFUSED)
outcomes = st.sampled_from(
    ["scored", "no_face", "fetch_failed", "changed", "missing", "archived", "refused"]
)


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    history=st.lists(
        st.tuples(
            st.sampled_from(["list", "write"]), st.sampled_from("12"), outcomes, st.integers(1, 3)
        ),
        max_size=8,
    )
)
def test_tables_agree_after_any_history_of_an_image(
    tables: Any, history: list[tuple[str, str, str, int]]
) -> None:
    """Model: a result is written if it belongs to the listed content and that content has no final
    result; the faces are always those of the result."""
    batch = Batch(f"facility-{next(_number)}", tables.batch.capture_day)
    listed: str | None = None
    result: tuple[str, Outcome, int] | None = None
    is_listed_again = False
    for action, etag, name, faces in history:
        outcome = Outcome(name)
        if action == "list":
            with tables.transaction() as connection:
                ledger.merge_listing(connection, batch, [ListedImage("a.jpg", etag, 5)])
            is_listed_again = result is not None and result[1] in UNREAD
            listed = etag
            continue
        image = tables.build_image("a.jpg", etag, batch)
        count = faces if outcome is Outcome.SCORED else 0
        score = (
            tables.build_score(image, *(tables.build_face(),) * count)
            if count
            else ImageScore(image, outcome)
        )
        written = tables.write(score)
        is_settled = (
            result is not None
            and result[0] == listed
            and result[1]
            not in (
                Outcome.CHANGED,
                Outcome.FETCH_FAILED,
            )
        )
        is_written = etag == listed and (not is_settled or is_listed_again)
        assert written == is_written
        if is_written:
            result, is_listed_again = (etag, outcome, count), False
    stored = tables.query(
        "SELECT etag, outcome, face_count FROM fer.image_result WHERE facility_id = :f",
        f=batch.facility_id,
    )
    assert [(s.etag, Outcome(s.outcome), s.face_count) for s in stored] == (
        [result] if result else []
    )
    faces_stored = tables.query(
        "SELECT count(*) FROM fer.face_result WHERE facility_id = :f", f=batch.facility_id
    )
    assert faces_stored[0][0] == (result[2] if result else 0)
