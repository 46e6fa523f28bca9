"""Reading from S3: hostile keys, objects that change or cannot be fetched, uploads."""

from collections import Counter

import boto3
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, example, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from fer_batch.errors import StorageError
from fer_batch.records import FetchedImage, Image, ImageScore, Outcome
from fer_batch.storage.reader import BucketReader
from fer_batch.storage.writer import ensure_bucket, upload_many

KEYS = [
    "plain.jpg",
    "a b.jpg",
    " leading.jpg",
    "trailing.jpg ",
    "a+b.jpg",
    "a%2Fb.jpg",
    "a%.jpg",
    "100%25.jpg",
    "q?x=1&y=2.jpg",
    "h#fragment.jpg",
    "a;b:c,d@e=f$g!.jpg",
    "quote\"'.jpg",
    "<x>&amp;.jpg",
    "{x}[y]|^`~*().jpg",
    "uml\u00e9.jpg",
    "ume\u0301.jpg",
    "日本.jpg",
    "😀.jpg",
    "\u200b\u2028\ufeff.jpg",
    "...",
    ".hidden/..x.jpg",
    "%2e%2e/x.jpg",
    "?",
    "#",
    "a/" * 500 + "x.jpg",
]
KEYS_FOR_BOTO3 = ["tab\tx.jpg", "return\rx.jpg", "\x01\x1b\x7f.jpg"]
MOTO_KEYS = [  # SeaweedFS rejects or changes these
    "a//b.jpg",
    "/leading.jpg",
    "a/./b.jpg",
    "a/../b.jpg",
    "../b.jpg",
    "dir/.",
    "dir/..",
    "filled-folder/",
    "double//",
    "back\\slash.jpg",
    "nul\0x.jpg",
    "x" * 1024,
]
SEAWEED_KEYS = ["line\nbreak.jpg"]  # moto rejects this one


@pytest.fixture
def listed(image):
    """The images of a reader's listing."""

    def images(reader):
        return [Image(image("").batch, o.key, o.etag, o.size_bytes) for o in reader.list("")]

    return images


# Keys


def find_keys_fetched(settings, listed, keys):
    data = {key: f"data {number}".encode() for number, key in enumerate(keys)}
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    for key in keys:
        client.put_object(Bucket=settings.s3_bucket, Key=key, Body=data[key])
    with BucketReader(settings) as reader:
        fetched = list(reader.fetch_many(listed(reader)))
    assert len(fetched) == len(keys)
    return {
        f.image.key
        for f in fetched
        if isinstance(f, FetchedImage) and f.data == data.get(f.image.key)
    }


def test_hostile_keys_are_fetched_from_seaweedfs(s3_settings, listed):
    keys = KEYS + KEYS_FOR_BOTO3 + SEAWEED_KEYS

    assert find_keys_fetched(s3_settings, listed, keys) == set(keys)


def test_hostile_keys_are_fetched_from_moto(moto, build_s3_settings, listed):
    keys = KEYS + KEYS_FOR_BOTO3 + MOTO_KEYS
    settings = build_s3_settings(moto, "hostile")
    ensure_bucket(settings, settings.s3_bucket)

    assert find_keys_fetched(settings, listed, keys) == set(keys)


NASTY = st.one_of(
    st.sampled_from("/.%+ ?#&=\\\"'<>~\u00e9\u0301\t\n\r\x00\x7f\x85"),
    st.characters(exclude_categories=["Cs"]),
)


@trials(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(NASTY, min_size=1, max_size=40))
@example("a//b")
@example("/a")
@example("a/")
@example("a/./b")
@example("../a")
@example(".")
@example("a/..")
@example("..a/b..")
@example("%2e%2e/%2F")
def test_any_key_is_requested_unchanged(scripted, reader, image, key):
    scripted.objects = {key: b"data"}

    (fetched,) = reader.fetch_many([image(key)])

    assert fetched.data == b"data"
    assert scripted.requests[-1][0] == key


@pytest.mark.parametrize("keys", [KEYS, KEYS_FOR_BOTO3, MOTO_KEYS])
def test_obstore_fetches_every_key_that_it_supports(scripted, reader, image, keys):
    scripted.objects = dict.fromkeys(keys, b"data")

    fetched = list(reader.fetch_many(map(image, keys)))

    assert [f.data for f in fetched] == [b"data"] * len(keys)
    # One request each: obstore is not tried for keys that it does not support.
    assert len(scripted.requests) == len(keys)
    by_obstore = {key for key, client in scripted.requests if client == "object_store"}
    assert (
        by_obstore >= set(KEYS)
        if keys is KEYS
        else not by_obstore
        - {
            "back\\slash.jpg",
            "x" * 1024,
        }
    )


# Existence


def test_a_key_exists_or_not(s3_settings, s3):
    s3.client.put_object(Bucket=s3.bucket, Key="day/_SUCCESS", Body=b"")

    with BucketReader(s3_settings) as reader:
        assert reader.exists("day/_SUCCESS")
        assert not reader.exists("day/_SUCCES")


# Images that cannot be fetched


def test_each_image_has_either_its_bytes_or_an_outcome(s3_settings, s3, listed, image):
    for key in ("good", "changed", "missing", "//odd", "same size"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"data")
    with BucketReader(s3_settings.model_copy(update={"max_image_bytes": 100})) as reader:
        images = listed(reader)
        images += [image("empty", b""), image("large", b"x" * 101), image("a//gone")]
        s3.client.put_object(Bucket=s3.bucket, Key="changed", Body=b"other data")
        s3.client.put_object(Bucket=s3.bucket, Key="same size", Body=b"atad")
        s3.client.delete_object(Bucket=s3.bucket, Key="missing")

        fetched = list(reader.fetch_many(iter(images)))

    assert len(fetched) == len(images)
    assert {f.image.key: f.outcome if isinstance(f, ImageScore) else f.data for f in fetched} == {
        "good": b"data",
        "odd": b"data",  # SeaweedFS strips the slashes
        "changed": Outcome.CHANGED,
        "same size": Outcome.CHANGED,
        "missing": Outcome.MISSING,
        "a//gone": Outcome.MISSING,
        "empty": Outcome.EMPTY,
        "large": Outcome.TOO_LARGE,
    }


def test_empty_and_too_large_images_are_not_requested(scripted, image):
    with BucketReader(scripted.build_settings(max_image_bytes=3)) as reader:
        fetched = list(reader.fetch_many([image("empty", b""), image("large")]))

    assert {f.outcome for f in fetched} == {Outcome.EMPTY, Outcome.TOO_LARGE}
    assert scripted.requests == []


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
@pytest.mark.parametrize("was", [b"atad", b"longer"])
def test_a_changed_object_is_detected_if_the_server_ignores_if_match(
    scripted, reader, image, key, was
):
    scripted.objects = {key: b"data"}

    (fetched,) = reader.fetch_many([image(key, was)])

    assert isinstance(fetched, ImageScore)
    assert fetched.outcome == Outcome.CHANGED


def test_a_transient_failure_is_retried(scripted, reader, image):
    scripted.objects = {"a.jpg": b"data"}
    requests: Counter[str] = Counter()

    def busy_at_first(key):
        requests[key] += 1
        return scripted.build_error(503, "SlowDown") if requests[key] == 1 else None

    scripted.respond = busy_at_first

    (fetched,) = reader.fetch_many([image("a.jpg")])

    assert fetched.data == b"data"
    assert requests["a.jpg"] == 2


# Uploading


def test_uploading_creates_the_bucket_and_preserves_hostile_keys(moto, build_s3_settings, listed):
    keys = KEYS + KEYS_FOR_BOTO3 + MOTO_KEYS
    settings = build_s3_settings(moto, "unused")

    assert upload_many(settings, "uploads", ((k, k.encode()) for k in keys)) == len(keys)

    with BucketReader(settings, bucket="uploads") as reader:
        fetched = list(reader.fetch_many(listed(reader)))
    assert {f.image.key: f.data for f in fetched} == {k: k.encode() for k in keys}


def test_uploading_twice_changes_no_etag(s3_settings):
    def etags():
        upload_many(s3_settings, s3_settings.s3_bucket, [("a", b"data"), ("b", b"x")])
        with BucketReader(s3_settings) as reader:
            return {o.key: o.etag for o in reader.list("")}

    assert etags() == etags()


def test_uploading_with_wrong_keys_is_reported(s3, s3_settings, build_s3_settings):
    settings = build_s3_settings(s3.endpoint, s3.bucket, s3_access_key_id=s3.access_key_id)

    with pytest.raises(StorageError, match=r"refuses|denies"):
        upload_many(settings, s3.bucket, [("a", b"data")])
    with BucketReader(s3_settings) as reader:
        assert list(reader.list("")) == []
