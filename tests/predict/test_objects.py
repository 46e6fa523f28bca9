"""Objects of registered facilities: permission and erasure hold for single predictions too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from fer_batch.database import connections
from fer_batch.deletion import erasure
from fer_batch.errors import (
    ConfigurationError,
    ErasureSecretError,
    FerError,
    PermanentError,
)
from fer_batch.predict.prediction import read_images
from fer_batch.settings import Settings
from tests.fixtures.night import DAY, PERMISSION, Night, encode_crop, format_facility
from tests.fixtures.servers import ERASER, SECRET, switch_login

NEXT = DAY + timedelta(days=1)
Sent = Callable[[], list[str]]


@pytest.fixture
def bucket(night: Night) -> str:
    """A bucket with images of the facilities a and b, and one of nobody."""
    for key in (f"a/{DAY}/1.png", f"a/{DAY}/2.png", f"a/{NEXT}/1.png", f"b/{DAY}/1.png"):
        night.put(key, encode_crop(True))
    night.put("mine/1.png", encode_crop(True))
    return f"s3://{night.s3.bucket}"


def read(source: str, settings: Settings) -> list[str]:
    """The names of the images of a source below the bucket."""
    images = read_images(source, settings, is_private_allowed=True)
    return ["/".join(urlsplit(each.image.key).path.split("/")[1:]) for each in images]


def test_images_are_read_where_every_owner_permits_it(night: Night, bucket: str) -> None:
    night.write_registry(format_facility("a"), format_facility("b", permission=""))
    assert read(f"{bucket}/a/{DAY}/", night.settings) == [f"a/{DAY}/1.png", f"a/{DAY}/2.png"]
    assert len(read(f"{bucket}/a/", night.settings)) == 3
    assert read(f"{bucket}/mine/", night.settings) == ["mine/1.png"]
    assert read(f"{bucket}/a/{DAY}/1.png", night.settings) == [f"a/{DAY}/1.png"]


ENDED = PERMISSION.replace("2099-12-31", "2026-11-20")
NOTICE = PERMISSION.replace("notice_day = 2020-01-01", f"notice_day = {NEXT}")


@pytest.mark.parametrize(
    ("facility", "why"),
    [
        (format_facility("b", permission=""), "no permission is recorded"),
        (format_facility("b", permission=ENDED), "permission ended"),
        (format_facility("b", permission=NOTICE), "notice at the entrance"),
        (format_facility("b").replace("customers", "staff"), r"Article 5\(1\)\(f\)"),
        (format_facility("b", more="oops = 1\n"), "invalid: unknown field oops"),
        (format_facility("b", more='key_template = "b"\n'), "invalid: key_template"),
    ],
    ids=["no permission", "ended", "before the notice", "staff", "invalid", "location unknown"],
)
def test_nothing_is_asked_of_s3_where_an_owner_does_not_permit_it(
    night: Night, bucket: str, sent_operations: Sent, facility: str, why: str
) -> None:
    night.write_registry(format_facility("a"), facility)
    sent_operations().clear()
    for place in (f"b/{DAY}/1.png", f"b/{DAY}/", f"/b//{DAY}/1.png"):
        with pytest.raises(PermanentError, match=f"facility b.*{why}"):
            read(f"{bucket}/{place}", night.settings)
    assert sent_operations() == []
    # Above the prefix of the facility. Only the keys tell that a day precedes the notice.
    for place in ("/", "", "/b/"):
        with pytest.raises(PermanentError, match=f"facility b.*{why}"):
            read(f"{bucket}{place}", night.settings)
    assert "GetObject" not in sent_operations()
    assert len(read(f"{bucket}/a/{DAY}/", night.settings)) == 2


def test_other_spellings_lead_to_the_same_owner(night: Night, bucket: str) -> None:
    port = urlsplit(night.settings.s3_endpoint or "").port
    name = night.s3.bucket
    for own in (f'endpoint = "http://LOCALHOST:{port}/"\n', f'bucket = "{name.upper()}"\n', ""):
        night.write_registry(format_facility("a"), format_facility("b", more=own, permission=""))
        for endpoint in (f"http://127.0.0.1:{port}", f"http://localhost:{port}/"):
            settings = night.settings.model_copy(update={"s3_endpoint": endpoint})
            with pytest.raises(PermanentError, match="facility b"):
                read(f"{bucket.replace('s3', 'S3')}/b/{DAY}/", settings)
    for url in (
        f"http://127.0.0.1:{port}/{name}/b/{DAY}/1.png?X-Amz-Signature=1",
        f"http://localhost:{port}//{name}/b%2F{DAY}/1.png",
        f"https://{name}.s3.example.com/b/{DAY}/1.png",
    ):
        with pytest.raises(PermanentError, match="facility b"):
            read(url, night.settings)
    with pytest.raises(ConfigurationError, match="names no bucket"):
        read(f"s3://arn:aws:s3:eu-west-1:1:accesspoint/x/b/{DAY}/1.png", night.settings)


def test_what_was_erased_is_not_opened(night: Night, bucket: str) -> None:
    night.write_registry(format_facility("a"))
    for day in (DAY, NEXT):
        run = night.open(capture_day=day)
        run.sync_facilities()
        run.list_images()
    assert night.settings.database_url is not None
    url = switch_login(night.settings.database_url.get_secret_value(), ERASER)
    eraser = connections.create_engine(url)
    erasure.erase(eraser, erasure.Target("a", DAY, f"a/{DAY}/1.png"), None, SECRET)
    assert read(f"{bucket}/a/", night.settings) == [f"a/{DAY}/2.png", f"a/{NEXT}/1.png"]
    without = night.settings.model_copy(update={"erasure_secret": None})
    with pytest.raises(ErasureSecretError, match="images of a were erased"):
        read(f"{bucket}/a/", without)
    night.write_registry(format_facility("a"), format_facility("b"))
    night.put(f"b/{DAY}/1.png", encode_crop(is_happy=True))
    assert read(f"{bucket}/b/", without) == [f"b/{DAY}/1.png"]
    with pytest.raises(ErasureSecretError):  # of which nobody knows where it was erased
        read(f"{bucket}/mine/1.png", without)
    erasure.erase(eraser, erasure.Target("a", NEXT), None, SECRET)
    assert read(f"{bucket}/a/", night.settings) == [f"a/{DAY}/2.png"]
    erased = [f"{bucket}/a/{DAY}/1.png", f"{bucket}/a/{NEXT}/", f"{bucket}/a/{NEXT}/1.png"]
    erased.append(f"{night.settings.s3_endpoint}/{night.s3.bucket}/a/{DAY}/1.png")
    for source in erased:
        with pytest.raises(ConfigurationError, match="was erased"):
            read(source, night.settings)
    # Also if the facility has left the registry, or has another name.
    night.write_registry(format_facility("z"))
    with pytest.raises(ConfigurationError, match="was erased"):
        read(erased[0], night.settings)


def test_without_a_database_only_objects_without_an_owner_are_read(
    night: Night, bucket: str
) -> None:
    night.write_registry(format_facility("a"))
    alone = night.settings.model_copy(update={"database_url": None})
    with pytest.raises(ConfigurationError, match="not known what was erased") as caught:
        read(f"{bucket}/a/{DAY}/", alone)
    assert caught.value.hint == "Set FER_DATABASE_URL"
    assert read(f"{bucket}/mine/1.png", alone) == ["mine/1.png"]


def test_without_a_registry_every_object_is_read_and_a_warning_says_so(
    night: Night, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = night.settings.model_dump(exclude={"facilities_file", "database_url"})
    unset = Settings(_env_file=None, **named)
    with capture_logs() as lines:
        assert len(read(f"{bucket}/a/", unset)) == 3
    assert [line["log_level"] for line in lines if "no registry" in line["event"]] == ["warning"]
    with pytest.raises(FerError, match="nowhere"):
        read(f"{bucket}/a/", Settings(_env_file=None, **named, facilities_file=Path("nowhere")))
