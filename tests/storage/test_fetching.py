"""Fetching: what S3 refuses of one object or of all, unusual ETags, times and framings."""

import hashlib

import pytest

from fer_batch.errors import StorageError, StorageUnavailableError
from fer_batch.records import FetchedImage, ImageScore, Outcome
from fer_batch.storage.reader import BucketReader

KEYS = [f"mall/{n:03}.jpg" for n in range(60)]
REFUSED = KEYS[:30]


@pytest.fixture
def bucket(no_retries, scripted):
    """A server with an object for each key, with contents of their own."""
    scripted.objects = {key: f"data of {key}".encode() for key in KEYS}
    return scripted


def refuse(server, keys, status, code):
    server.respond = lambda key: server.build_error(status, code) if key in keys else None


def fetch(server, image, keys=None, **settings):
    """The outcome of each image, or "read". Other objects are those of the whole day."""
    with BucketReader(server.build_settings(s3_concurrency=4, **settings)) as reader:
        day = [listed.build_image(image("").batch) for listed in reader.list("mall/")]
        wanted = [i for i in day if keys is None or i.key in keys]
        server.requests.clear()
        others = sorted(day, key=lambda i: hashlib.md5(i.key.encode()).hexdigest())  # noqa: S324
        results = list(reader.fetch_many(wanted, lambda: others))
    assert len(results) == len(wanted)
    assert all(
        f.data == server.objects[f.image.key] for f in results if isinstance(f, FetchedImage)
    )
    return {f.image.key: f.outcome if isinstance(f, ImageScore) else "read" for f in results}


def count_gets(server):
    return len([key for key, _ in server.requests if key])


# What S3 refuses


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (403, "AccessDenied", Outcome.REFUSED),
        (401, "Unauthorized", Outcome.REFUSED),
        (400, "KMS.DisabledException", Outcome.REFUSED),
        (400, "InvalidRequest", Outcome.REFUSED),
        (416, "InvalidRange", Outcome.REFUSED),
        (451, "UnavailableForLegalReasons", Outcome.REFUSED),
        (403, "InvalidObjectState", Outcome.ARCHIVED),
        (404, "NoSuchKey", Outcome.MISSING),
        (404, "NoSuchVersion", Outcome.MISSING),
        (410, "Gone", Outcome.MISSING),
        (500, "InternalError", Outcome.FETCH_FAILED),
    ],
)
def test_a_block_of_objects_that_fail_leaves_the_others_readable(
    bucket, image, status, code, outcome
):
    refuse(bucket, REFUSED, status, code)

    assert fetch(bucket, image) == dict.fromkeys(REFUSED, outcome) | dict.fromkeys(
        KEYS[30:], "read"
    )


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [(403, "AccessDenied", Outcome.REFUSED), (404, "NotFound", Outcome.MISSING)],
)
def test_objects_that_fail_are_not_the_locations_if_the_others_were_read_earlier(
    bucket, image, status, code, outcome, count
):
    refuse(bucket, REFUSED, status, code)

    assert fetch(bucket, image, REFUSED[:count]) == dict.fromkeys(REFUSED[:count], outcome)


def test_one_readable_object_of_many_is_enough(bucket, image):
    readable = KEYS[17]
    refuse(bucket, {*KEYS} - {readable}, 403, "AccessDenied")

    outcomes = fetch(bucket, image)

    assert outcomes.pop(readable) == "read"
    assert set(outcomes.values()) == {Outcome.REFUSED}


@pytest.mark.parametrize("keys", [KEYS, KEYS[:2]], ids=["all", "two"])
@pytest.mark.parametrize(
    ("status", "code", "error", "problem"),
    [
        (403, "AccessDenied", StorageError, r"'bucket' at .* denies access: AccessDenied"),
        (400, "KMS.DisabledException", StorageError, r"'bucket' at .* refuses: 400 KMS"),
        (404, "NotFound", StorageError, "does not answer as an S3 server"),
        (503, "SlowDown", StorageUnavailableError, "busy or broken: 503"),
    ],
)
def test_if_no_object_can_be_read_the_location_is_the_cause(
    bucket, image, keys, status, code, error, problem
):
    refuse(bucket, KEYS, status, code)

    with pytest.raises(error, match=problem):
        fetch(bucket, image, keys)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (500, "InternalError", Outcome.FETCH_FAILED),
        (400, "InvalidRequest", Outcome.REFUSED),
        (403, "AccessDenied", Outcome.REFUSED),
    ],
)
def test_the_failure_of_the_only_image_is_its_outcome(
    no_retries, scripted, image, status, code, outcome
):
    scripted.objects = {"mall/broken.jpg": b"data"}
    refuse(scripted, scripted.objects, status, code)
    with BucketReader(scripted.build_settings()) as reader:
        (fetched,) = reader.fetch_many([image("mall/broken.jpg")])

    assert (fetched.outcome, fetched.reason) == (outcome, f"S3 answers {status} {code}")


@pytest.mark.parametrize("name", ["GLACIER", "DEEP_ARCHIVE"])
def test_what_the_listing_calls_archived_is_not_requested(bucket, image, name):
    for key in REFUSED:
        bucket.entry_fields[key] = f"<StorageClass>{name}</StorageClass>"

    outcomes = fetch(bucket, image)

    assert {key for key in outcomes if outcomes[key] is Outcome.ARCHIVED} == {*REFUSED}
    assert count_gets(bucket) == len(KEYS) - len(REFUSED)


def test_objects_that_are_restored_or_in_another_class_are_read(bucket, image):
    archived = "<StorageClass>GLACIER</StorageClass>"
    bucket.entry_fields = {
        KEYS[0]: "<StorageClass>GLACIER_IR</StorageClass>",
        KEYS[1]: "<StorageClass>INTELLIGENT_TIERING</StorageClass>",
        KEYS[2]: f"{archived}<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
        "<RestoreExpiryDate>2026-12-24T00:00:00Z</RestoreExpiryDate></RestoreStatus>",
        KEYS[3]: f"{archived}<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress>"
        "</RestoreStatus>",
    }

    outcomes = fetch(bucket, image)

    assert outcomes.pop(KEYS[3]) is Outcome.ARCHIVED
    assert set(outcomes.values()) == {"read"}


# ETags and times

ETAGS = {
    "as usual": lambda etag: f'"{etag}"',
    "weak": lambda etag: f'W/"{etag}"',
    "without quotes": lambda etag: etag,
    "quoted twice": lambda etag: f'""{etag}""',
    "quotes escaped": lambda etag: f"&quot;{etag}&quot;",
    "empty": lambda _: '""',
    "no text": lambda _: "",
    "absent": lambda _: None,
    "other": lambda etag: f'"{etag[::-1]}-1"',
}

ETAG_PAIRS = sorted(
    {pair for kind in ETAGS for pair in ((kind, "as usual"), ("as usual", kind), (kind, kind))}
)


def make_etag(kind):
    return lambda body: ETAGS[kind](hashlib.md5(body).hexdigest())  # noqa: S324


@pytest.mark.parametrize(("listed", "told"), ETAG_PAIRS)
def test_an_object_that_did_not_change_is_read_whatever_its_etags(bucket, image, listed, told):
    bucket.list_etag, bucket.tell_etag = make_etag(listed), make_etag(told)
    keys = [KEYS[0], "mall//odd.jpg"]
    bucket.objects = dict.fromkeys(keys, b"data")

    for bucket.compares_etags in (True, False):
        assert fetch(bucket, image) == dict.fromkeys(keys, "read")


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("as usual", "as usual"),
        ("absent", "absent"),
        ("empty", "as usual"),
        ("weak", "weak"),
        ("other", "as usual"),
    ],
)
def test_an_object_that_changed_is_noticed_whatever_its_etags(bucket, image, listed, told):
    bucket.list_etag, bucket.tell_etag = make_etag(listed), make_etag(told)
    bucket.objects = {KEYS[0]: b"data"}
    with BucketReader(bucket.build_settings()) as reader:
        (before,) = reader.list("mall/")
        bucket.objects = {KEYS[0]: b"atad"}  # as long
        bucket.listed_time = "2026-03-09T12:00:07Z"
        bucket.last_modified = "Mon, 09 Mar 2026 12:00:07 GMT"
        (fetched,) = reader.fetch_many([before.build_image(image("").batch)])

    assert isinstance(fetched, ImageScore)
    assert fetched.outcome is Outcome.CHANGED


def test_objects_without_an_etag_have_versions_of_their_own(bucket):
    bucket.list_etag = make_etag("absent")
    bucket.objects = dict.fromkeys(KEYS, b"data")

    with BucketReader(bucket.build_settings()) as reader:
        versions = {listed.etag for listed in reader.list("mall/")}
        assert versions == {listed.etag for listed in reader.list("mall/")}

    assert len(versions) == len(KEYS)


@pytest.mark.parametrize("etag", ["as usual", "absent"])
@pytest.mark.parametrize(
    ("time", "header"),
    [
        ("", None),
        ("2026-03-09T12:00:00", "2026-03-09T12:00:00"),
        ("2026-03-09T13:00:00+01:00", "yesterday"),
        ("Mon, 09 Mar 2026 12:00:00 GMT", None),
    ],
)
def test_times_may_be_missing_or_have_no_zone(bucket, image, time, etag, header):
    bucket.objects = dict.fromkeys(KEYS[:3], b"data")
    bucket.list_etag = bucket.tell_etag = make_etag(etag)
    bucket.listed_time, bucket.last_modified = time, header

    with BucketReader(bucket.build_settings()) as reader:
        listed = next(iter(reader.list("mall/")))

    assert listed.last_modified_utc is None or (
        listed.last_modified_utc.isoformat() == "2026-03-09T12:00:00+00:00"
    )
    assert set(fetch(bucket, image).values()) == {"read"}


# Bodies


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("etag", ["as usual", "absent"])
def test_a_body_is_read_whatever_its_framing(bucket, image, framing, etag):
    bucket.objects = dict.fromkeys(KEYS[:3], b"data")
    bucket.framing = framing
    bucket.list_etag = bucket.tell_etag = make_etag(etag)

    assert set(fetch(bucket, image).values()) == {"read"}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_body_of_another_length_than_listed_is_no_image(bucket, image, framing):
    bucket.framing = framing
    whole = dict(bucket.objects)
    wrong = {KEYS[0]: whole[KEYS[0]][:-5], KEYS[1]: whole[KEYS[1]] + bytes(1000)}
    bucket.respond = lambda key: (200, wrong[key]) if key in wrong else None

    outcomes = fetch(bucket, image)

    assert {key: outcomes.pop(key) for key in wrong} == dict.fromkeys(wrong, Outcome.FETCH_FAILED)
    assert set(outcomes.values()) == {"read"}


def test_an_answer_that_nobody_expects_is_an_outcome_of_its_image(bucket, image, monkeypatch):
    """Here the client itself fails."""
    from fer_batch.storage import fetching

    usual = fetching._has_version

    def fail(image, *others):
        if image.key in REFUSED:
            raise KeyError("ContentLength")
        return usual(image, *others)

    monkeypatch.setattr(fetching, "_has_version", fail)

    outcomes = fetch(bucket, image)

    assert {key for key in outcomes if outcomes[key] is Outcome.FETCH_FAILED} == {*REFUSED}
