"""Listing a prefix and its folders: pages, markers, and servers whose pages cannot be trusted."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from fer_batch.errors import StorageError
from fer_batch.storage.listing_pages import ListedObject
from fer_batch.storage.reader import BucketReader
from fer_batch.storage.writer import upload_many
from tests.fixtures.s3 import Scripted


def test_a_listing_spans_pages_and_is_limited_to_its_prefix(s3_settings):
    items = [(f"mall/2026-03-09/{n:05}.jpg", b"x" * (n % 7 + 1)) for n in range(1100)]
    others = [("mall/2026-03-08/a.jpg", b"x"), ("mall/x", b"x")]
    before = datetime.now(UTC) - timedelta(seconds=2)
    assert upload_many(s3_settings, s3_settings.s3_bucket, items + others) == 1102

    with BucketReader(s3_settings) as reader:
        objects = list(reader.list("mall/2026-03-09/"))

    assert sorted((o.key, o.size_bytes) for o in objects) == [(k, len(d)) for k, d in items]
    assert all(
        o.last_modified_utc and before <= o.last_modified_utc <= datetime.now(UTC) for o in objects
    )
    assert {o.etag for o in objects if o.size_bytes == 1} == {hashlib.md5(b"x").hexdigest()}  # noqa: S324


def test_a_folder_marker_is_distinguished_from_an_image(s3_settings, s3):
    for key in ("mall/folder/", "mall/empty.jpg"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"")

    with BucketReader(s3_settings) as reader:
        markers = {o.key: o.is_folder_marker for o in reader.list("mall/")}

    assert markers == {"mall/folder/": True, "mall/empty.jpg": False}


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ([{"is_truncated": True}], "ends early"),
        ([{"is_truncated": True, "token": "t"}] * 2, "ends early"),
        ([{"keys": ["b/1"]}], "lists another key for the prefix 'a/'"),
        ([{"keys": ["a/%FF"]}], "a key that is not UTF-8"),
    ],
)
def test_an_unreliable_listing_is_an_error(scripted, reader, pages, problem):
    rest = iter([scripted.build_listing(*page.pop("keys", ["a/1"]), **page) for page in pages])
    scripted.respond = lambda _: next(rest)

    with pytest.raises(StorageError, match=problem):
        list(reader.list("a/"))


@pytest.mark.parametrize(
    "tokens",
    [
        ["a/2", "a/3", "a/4"],  # the first key of the next page
        ["a/1", "a/2", "a/3"],  # the last key of this page
        ["same", "same", "same"],
        ["a/1", "a/1", "a/1"],
    ],
)
@pytest.mark.parametrize("second", ["a/2", None])
def test_a_continuation_token_may_be_any_text(scripted, reader, tokens, second):
    pages = ["a/1", second, "a/3", "a/4"]
    rest = iter(
        scripted.build_listing(*[key] if key else [], is_truncated=bool(token), token=token)
        for key, token in zip(pages, [*tokens, ""], strict=True)
    )
    scripted.respond = lambda _: next(rest)

    assert [listed.key for listed in reader.list("a/")] == [key for key in pages if key]


@pytest.mark.parametrize("keys", [["a/1"], []])
def test_a_listing_that_goes_in_a_circle_is_an_error(scripted, reader, keys):
    scripted.respond = lambda _: scripted.build_listing(*keys, is_truncated=True, token="t")

    with pytest.raises(StorageError, match="repeats its pages"):
        list(reader.list("a/"))


@pytest.mark.parametrize(
    ("after_the_last_page", "keys"),
    [
        (["a/1"], ["a/1", "a/15", "a/2"]),  # StartAfter is ignored: the listing starts over
        (["a/2"], ["a/1", "a/15", "a/2"]),  # it includes the key itself
        (["a/2", "a/3"], ["a/1", "a/15", "a/2", "a/2", "a/3"]),
        (["a/3"], ["a/1", "a/15", "a/2", "a/3"]),
    ],
)
def test_a_full_page_without_a_token_may_be_the_last_one(
    scripted, reader, monkeypatch, after_the_last_page, keys
):
    monkeypatch.setattr("fer_batch.storage.reader.PAGE_KEYS", 2)
    pages = [
        scripted.build_listing("a/1", is_truncated=True, token="t"),
        scripted.build_listing("a/15", "a/2"),
        scripted.build_listing(*after_the_last_page),
    ]
    scripted.respond = lambda _: pages.pop(0) if pages else scripted.build_listing()

    assert [listed.key for listed in reader.list("a/")] == keys


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("<Size>4</Size>", "<Size>four</Size>"),
        ("<Size>4</Size>", "<Size>4"),
        ("2026-03-09T12:00:00Z", "yesterday"),
        ("</Contents>", "</Contents><Intruder/><Contents></Contents>"),
    ],
)
def test_malformed_entries_are_an_error(scripted, reader, was, becomes):
    _, page = scripted.build_listing("a/1")
    scripted.respond = lambda _: (200, page.replace(was.encode(), becomes.encode()))

    with pytest.raises(StorageError, match="does not answer as an S3 server does"):
        list(reader.list("a/"))


def test_entries_may_have_a_namespace_prefix_and_any_order(scripted, reader):
    page = (
        b'<s3:ListBucketResult xmlns:s3="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<s3:Contents><s3:Size>4</s3:Size><s3:ETag>&quot;0&quot;</s3:ETag><s3:Key>a/1</s3:Key>"
        b"<s3:LastModified>2026-03-09T12:00:00Z</s3:LastModified></s3:Contents>"
        b"<s3:IsTruncated>false</s3:IsTruncated></s3:ListBucketResult>"
    )
    scripted.respond = lambda _: (200, page)

    (listed,) = reader.list("a/")

    noon = datetime(2026, 3, 9, 12, tzinfo=UTC)
    assert listed == ListedObject("a/1", "0", 4, noon)


# Folders


def build_folders(*names, is_truncated=False, token=""):
    folders = "".join(f"<CommonPrefixes><Prefix>{n}</Prefix></CommonPrefixes>" for n in names)
    count = f"<KeyCount>{len(names)}</KeyCount>"
    return Scripted.build_page(count + folders, is_truncated, token)


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ([build_folders("a/x/", is_truncated=True)], "more keys without a continuation token"),
        (
            [build_folders("a/x/").replace(b"<IsTruncated>false</IsTruncated>", b"")],
            "does not say whether there are more keys",
        ),
        (
            [build_folders("a/x/").replace(b"<KeyCount>1", b"<KeyCount>2")],
            "1 of 2 keys arrived",
        ),
        ([build_folders("b/x/")], "lists another key for the prefix 'a/'"),
        (
            [
                build_folders("a/x/", is_truncated=True, token="second"),
                build_folders("a/y/", is_truncated=True, token="first"),
            ]
            * 3,
            "repeats its pages",
        ),
    ],
)
def test_an_unreliable_listing_of_folders_is_an_error(scripted, reader, pages, problem):
    rest = iter(pages)
    scripted.respond = lambda _: (200, next(rest))

    with pytest.raises(StorageError, match=problem):
        reader.list_level("a/")


def test_a_folder_may_be_listed_on_several_pages(scripted, reader):
    pages = iter(
        build_folders(*names, is_truncated=bool(token), token=token)
        for names, token in [(["a/x/"], "1"), (["a/x/"], "2"), (["a/x/", "a/y/"], "")]
    )
    scripted.respond = lambda _: (200, next(pages))

    assert reader.list_level("a/") == (["a/x/", "a/y/"], [], True)


@pytest.mark.parametrize("after_the_last_page", [["a/y/", "a/z/"], ["a/z/"]])
def test_a_full_page_of_folders_without_a_token_may_be_the_last_one(
    scripted, reader, monkeypatch, after_the_last_page
):
    monkeypatch.setattr("fer_batch.storage.reader.PAGE_KEYS", 2)
    pages = [build_folders("a/x/", "a/y/"), build_folders(*after_the_last_page)]
    scripted.respond = lambda _: (200, pages.pop(0) if pages else build_folders())

    assert reader.list_level("a/").folders == ["a/x/", "a/y/", "a/z/"]
