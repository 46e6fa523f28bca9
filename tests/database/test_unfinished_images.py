"""Which images are unfinished: those that a run of a model version still has to score."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_batch.database import ledger
from fer_batch.records import Batch, ImageScore, KeyRange, ListedImage, Outcome
from tests.database.hostile_keys import HOSTILE, keys


def in_bytes(key: str) -> bytes:
    return key.encode()


def test_work_is_read_page_by_page_in_byte_order(tables: Any) -> None:
    tables.list(HOSTILE)
    ordered = sorted(HOSTILE, key=in_bytes)
    key_range = KeyRange(tables.batch, ordered[0], ordered[-1], len(ordered))
    seen: list[str] = []
    with tables.transaction() as connection:
        while page := ledger.list_unfinished(
            connection, key_range, tables.version, limit=4, after_key=seen[-1] if seen else None
        ):
            assert len(page) <= 4
            seen += [image.key for image in page]
    assert seen == ordered


_number = count()


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(listed=st.sets(keys, min_size=1, max_size=12), data=st.data())
def test_key_range_includes_its_ends_and_all_keys_between(
    tables: Any, listed: set[str], data: st.DataObject
) -> None:
    batch = Batch(f"facility-{next(_number)}", tables.batch.capture_day)
    with tables.transaction() as connection:
        ledger.merge_listing(connection, batch, (ListedImage(key, "1", 5) for key in listed))
    first, last = sorted(
        (data.draw(st.sampled_from(sorted(listed))) for _ in range(2)), key=in_bytes
    )
    expected = [
        k for k in sorted(listed, key=in_bytes) if in_bytes(first) <= in_bytes(k) <= in_bytes(last)
    ]
    with tables.transaction() as connection:
        page = ledger.list_unfinished(
            connection, KeyRange(batch, first, last, 0), tables.version, limit=99
        )
    assert [image.key for image in page] == expected


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_images_without_a_final_outcome_are_work(tables: Any, outcome: Outcome) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    is_scored = outcome is Outcome.SCORED
    score = tables.build_score(image) if is_scored else ImageScore(image, outcome)
    assert tables.write(score) == 1
    assert tables.list_work() == (
        [image] if outcome in (Outcome.CHANGED, Outcome.FETCH_FAILED) else []
    )


def test_each_model_version_has_its_own_work(tables: Any) -> None:
    tables.list(["a.jpg"])
    tables.write(*map(tables.build_score, tables.list_work()))
    assert tables.list_work() == []
    assert len(tables.list_work(model_version="b" * 64)) == 1


def test_overwritten_image_is_work_again(tables: Any) -> None:
    tables.list({"a.jpg": "1", "b.jpg": "1"})
    tables.write(*map(tables.build_score, tables.list_work()))
    tables.list({"a.jpg": "2", "b.jpg": "1"})
    assert [(i.key, i.etag) for i in tables.list_work()] == [("a.jpg", "2")]
    tables.list({"a.jpg": "1", "b.jpg": "1"})  # and back: the result belongs to that content
    assert tables.list_work() == []


@pytest.mark.parametrize("outcome", [Outcome.MISSING, Outcome.ARCHIVED, Outcome.REFUSED])
def test_image_that_was_not_read_is_work_again_once_it_is_listed_again(
    tables: Any, outcome: Outcome
) -> None:
    tables.list(["a.jpg", "b.jpg"])
    tables.write(*(ImageScore(image, outcome) for image in tables.list_work()))
    assert tables.list_work() == []
    tables.list(["b.jpg"])
    assert [image.key for image in tables.list_work()] == ["b.jpg"]
    assert tables.list(["b.jpg"]) == (1, 0)  # listed again, which is known already
    tables.write(*map(tables.build_score, tables.list_work()))
    assert tables.list(["b.jpg"]) == (1, 0)
    assert tables.list_work() == []


def test_archived_image_is_no_work_before_it_is_restored(tables: Any) -> None:
    def list_image(*, is_archived: bool) -> int:
        with tables.transaction() as connection:
            listed = [ListedImage("a.jpg", "1", 5, is_archived)]
            return ledger.merge_listing(connection, tables.batch, listed)[1]

    assert list_image(is_archived=True) == 1
    (image,) = tables.list_work()
    assert image.is_archived
    tables.write(ImageScore(image, Outcome.ARCHIVED))
    assert list_image(is_archived=True) == 0
    assert tables.list_work() == []
    assert list_image(is_archived=False) == 1
    (image,) = tables.list_work()
    assert not image.is_archived
    tables.write(tables.build_score(image))
    assert list_image(is_archived=True) == 0  # its result stays
    assert tables.list_work() == []
    assert tables.query("SELECT is_archived FROM fer.image") == [(True,)]


def test_sample_begins_with_images_that_could_be_read(tables: Any) -> None:
    keys = [f"{n:02d}.jpg" for n in range(40)]
    tables.list(keys)
    work = tables.list_work()
    tables.write(*map(tables.build_score, work[30:]))
    tables.write(*(ImageScore(image, Outcome.REFUSED) for image in work[:10]))
    with tables.transaction() as connection:
        sample = ledger.sample_images(connection, tables.batch, 25)
    assert {image.key for image in sample[:10]} == {*keys[30:]}
    assert len({image.key for image in sample}) == 25


def test_rescoring_counts_older_results_as_work(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    a, b = tables.list_work()
    tables.write(tables.build_score(a), tables.build_score(b))
    with tables.transaction() as connection:
        began = ledger.begin_run(connection, "rescore")
    assert tables.list_work(rescore_before=began) == [a, b]
    tables.write(tables.build_score(a), rescore_before=began)
    assert tables.list_work(rescore_before=began) == [b]
    assert tables.list_work() == []


def test_work_of_an_unknown_day_is_none(tables: Any) -> None:
    assert tables.list_work(replace(tables.batch, capture_day=date(1999, 1, 1))) == []
