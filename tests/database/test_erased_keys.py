"""The record of an erased image: what it tells, and to whom."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from fer_batch.database import erased_keys, ledger
from fer_batch.database.erased_keys import NO_SECRET, ErasedKeys, ErasureSecret
from fer_batch.deletion import erasure
from fer_batch.deletion.erasure import Target
from fer_batch.errors import ConfigurationError, ErasureSecretError
from fer_batch.records import Batch, ListedImage
from tests.fixtures.servers import SECRET

OTHER = ErasureSecret(SecretStr("another secret of at least 32 characters"))
# Keys that are not UTF-8 have lone surrogates.
keys = st.text(st.characters(codec=None), min_size=1, max_size=20)
values = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=32, max_size=40)


@settings(max_examples=30)
@given(keys, keys, values, values)
def test_a_record_is_the_hmac_of_the_hash_of_the_key(
    key: str, another: str, value: str, wrong: str
) -> None:
    secret = ErasureSecret(SecretStr(value))
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    expected = hmac.new(value.encode(), digest, hashlib.sha256).digest()
    assert secret.hash_key(key) == secret.hash_digest(digest) == expected
    erased = ErasedKeys(frozenset([expected]), secret)
    assert key in erased
    assert (another in erased) == (another == key)
    # Without the secret, a guessed key cannot be verified.
    guesser = ErasureSecret(SecretStr(wrong))
    assert (key in ErasedKeys(erased.hmacs, guesser)) == (wrong == value)
    assert (guesser.check == secret.check) == (wrong == value)
    assert digest != expected
    assert value not in repr(secret)


def test_without_a_secret_there_is_nothing_to_compare() -> None:
    assert "a.jpg" not in ErasedKeys(frozenset(), NO_SECRET)
    with pytest.raises(ErasureSecretError, match="openssl rand -hex 32"):
        NO_SECRET.hash_key("a.jpg")


def test_an_erasure_that_commits_during_a_listing_is_not_lost(tables: Any) -> None:
    """It is the first one of the facility, and of an image that is not in the tables yet."""
    key = "north-mall/2026-03-01/door/1.jpg"

    def objects() -> Iterator[ListedImage]:
        yield ListedImage(key, "1", 5)
        erasure.erase_unlisted(tables.eraser, Target("north-mall", None, key), None, SECRET)
        yield ListedImage("north-mall/2026-03-01/door/2.jpg", "1", 5)

    sent: list[str] = []
    for engine in (tables.engine, tables.eraser):
        sa.event.listen(engine, "before_cursor_execute", lambda *event: sent.append(repr(event)))
    with tables.transaction() as connection:
        erased = ErasedKeys(frozenset(), SECRET)
        assert ledger.merge_listing(connection, tables.batch, objects(), erased=erased) == (2, 1)
    assert [image.key[-5:] for image in tables.list_work()] == ["2.jpg"]
    assert SECRET.value is not None
    assert [each for each in sent if SECRET.value.get_secret_value() in each] == []
    assert len(sent) > 10


def test_records_of_days_that_are_never_read_need_no_secret(tables: Any) -> None:
    """So a facility can be read again after its secret was lost: erase the days as a whole.

    Also a day of which no row is left, or none was ever there.
    """
    tables.fill(3, 0)
    erasure.erase(tables.eraser, Target("north-mall", None, "000001.jpg"), None, SECRET)
    later = Target("north-mall", date(2026, 3, 20), "north-mall/2026-03-20/1.jpg")
    erasure.erase_unlisted(tables.eraser, later, None, SECRET)
    for secret in (NO_SECRET, OTHER):
        with tables.transaction() as connection:
            assert erased_keys.list_unreadable_facilities(connection, secret) == ["north-mall"]
    erasure.erase(tables.eraser, Target("north-mall", tables.batch.capture_day), None, SECRET)
    day = Target("north-mall", later.capture_day)
    with pytest.raises(ConfigurationError, match="no image of that day"):
        erasure.erase(tables.eraser, day, None, SECRET)
    (erased_day,) = erasure.erase_unlisted(tables.eraser, day, None, SECRET)
    assert (erased_day.capture_day, erased_day.images) == (date(2026, 3, 20), 0)
    assert erasure.erase_unlisted(tables.eraser, day, None, SECRET) == []
    for secret in (NO_SECRET, OTHER, SECRET):
        with tables.transaction() as connection:
            assert erased_keys.list_unreadable_facilities(connection, secret) == []
            erased = erased_keys.load_erased_keys(connection, tables.batch, secret)
        assert ("000001.jpg" in erased) == (secret is SECRET)


def test_a_missing_secret_concerns_only_who_may_have_the_erased_images(tables: Any) -> None:
    """North-mall gets another id. Its neighbors in the same bucket are read on."""
    template = "mall/{capture_day:%Y-%m-%d}/"
    places = {"bucket": "images", "key_template": template}
    tables.add("north-mall", **places)
    tables.fill(3, 0)
    erasure.erase(tables.eraser, Target("north-mall", None, "000001.jpg"), None, SECRET)
    del tables.facilities["north-mall"]
    tables.add("mall", **places)
    tables.add("mall-of-another-bucket", **places | {"bucket": "others"})
    tables.add("neighbor", bucket="images")
    concerned = {"mall", "north-mall"}
    for secret in (NO_SECRET, OTHER):
        with tables.transaction() as connection:
            assert {*erased_keys.list_unreadable_facilities(connection, secret)} == concerned
            for facility_id in ("mall-of-another-bucket", "neighbor"):
                batch = Batch(facility_id, tables.batch.capture_day)
                assert "000001.jpg" not in erased_keys.load_erased_keys(connection, batch, secret)
            batch = Batch("mall", tables.batch.capture_day)
            with pytest.raises(ErasureSecretError, match="images of north-mall were erased"):
                erased_keys.load_erased_keys(connection, batch, secret)
