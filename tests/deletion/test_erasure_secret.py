"""With a missing or wrong secret nothing is read of facilities with erased images; others go on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from fer_batch.cli import doctor
from fer_batch.database import connections
from fer_batch.deletion import erasure
from fer_batch.deletion.erasure import Target
from fer_batch.pipeline import late_images
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.fixtures.servers import ERASER, SECRET, switch_login

WRONG = "another secret of at least 32 characters"
REASONS = {
    None: "FER_ERASURE_SECRET is not set, and images of a were erased",
    WRONG: "FER_ERASURE_SECRET is not the secret with which images of a were erased",
}


@pytest.fixture
def listed(night: Night) -> Night:
    """Two facilities with three listed images each."""
    night.write_registry(format_facility("a"), format_facility("b"))
    for name in ("a", "b"):
        night.fill(name, happy=2, sad=1)
    run = night.open("first")
    run.sync_facilities()
    run.list_images()
    return night


@pytest.fixture
def with_an_erased_image(listed: Night) -> Night:
    """The same; an image of `a` is erased, and each has a new one."""
    assert listed.settings.database_url is not None
    url = switch_login(listed.settings.database_url.get_secret_value(), ERASER)
    engine = connections.create_engine(url)
    erasure.erase(engine, Target("a", DAY, f"a/{DAY}/0000.png"), None, SECRET)
    engine.dispose()
    for name in ("a", "b"):
        listed.put(f"{name}/{DAY}/new.png", encode_crop(is_happy=True, number=9))
    return listed


def check_secret(night: Night) -> tuple[bool, str]:
    """What `fer-batch check` says of the secret."""
    parts = (each for each in doctor.run_checks(night.settings) if each.part == "erasure secret")
    found = next(parts)
    return found.is_ok, found.detail


@pytest.mark.parametrize("secret", REASONS)
def test_a_facility_with_erased_images_is_not_read(
    with_an_erased_image: Night, secret: str | None, sent_operations: Any
) -> None:
    value = None if secret is None else SecretStr(secret)
    night = with_an_erased_image.with_settings(erasure_secret=value)
    run = night.open("without")
    for rescore in (False, True):
        previews = night.open("preview", rescore=rescore).preview_images()
        assert [(each.status, each.images) for each in previews] == [("failed", 0), ("listed", 4)]
    listings = run.list_images()
    assert [(each.status, each.new_images) for each in listings] == [("failed", 0), ("listed", 1)]
    assert {previews[0].reason, listings[0].reason} == {
        f"{REASONS[secret]}. Set it to the secret with which they were erased; for a lost one, "
        "see docs/privacy.md"
    }
    assert not listings[0].is_retryable  # somebody must set it
    with capture_logs() as lines:
        shards = run.plan_shards()
    assert {part.batch.facility_id for shard in shards for part in shard.ranges} == {"b"}
    assert "a" in [line.get("facility") for line in lines if line["log_level"] == "error"]
    findings = [each for each in run.check_data() if each["check"] == "listing_failed"]
    assert [each["facility_id"] for each in findings] == ["a"]

    first_day, now = DAY + timedelta(1), datetime.now(UTC)
    with capture_logs() as lines:
        late_images.find_late_images(run.engine, night.settings, run.facilities, first_day, now)
    warned = [line["facility"] for line in lines if line["event"] == "not looked for late images"]
    assert warned == ["a"]

    assert check_secret(night) == (False, previews[0].reason)

    # With its secret it is read again, without the erased image.
    fits = "FER_ERASURE_SECRET fits the records of 1 erased images"
    assert check_secret(with_an_erased_image) == (True, fits)
    run = with_an_erased_image.open("with")
    assert run.preview_images()[0].new_images == 3
    assert [each.new_images for each in run.list_images()] == [1, 0]
    keys = night.query("select image_key from fer.image where facility_id = 'a' order by 1")
    assert [row["image_key"][-8:] for row in keys] == ["0001.png", "0002.png", "/new.png"]


def test_erasures_and_their_repetition_need_the_secret(eraser: Command, listed: Night) -> None:
    ours = eraser.env["FER_ERASURE_SECRET"]

    def call(*arguments: str, secret: str | None = ours) -> tuple[int, str]:
        ended = eraser(*arguments, FER_ERASURE_SECRET=secret)
        return ended.code, " ".join((ended.out + ended.err).split())

    log = eraser.folder / "erasures.jsonl"
    erase = ("erase", "--facility", "a", "--yes")
    images = "select 1 from fer.image where facility_id = 'a'"
    for more in (("--key", f"a/{DAY}/0000.png"), ("--key", f"a/{DAY}/x.png", "--unlisted")):
        code, said = call(*erase, *more, secret=None)
        assert (code, "Create one with `openssl rand -hex 32`" in said) == (2, True)
    assert (len(listed.query(images)), log.exists()) == (3, False)

    assert call(*erase, "--key", f"a/{DAY}/0000.png")[0] == 0
    for secret, reason in REASONS.items():
        code, said = call(*erase, "--key", f"a/{DAY}/0001.png", secret=secret)
        assert (code, reason in said) == (2, True)
        # A log of another secret cannot be repeated; the day in it can.
        code, said = call("erase", "--replay", str(log), "--yes", secret=secret)
        assert (code, "the image in line 1 cannot be recognized" in said) == (
            2,
            True,
        )
    assert (len(listed.query(images)), len(log.read_text().splitlines())) == (2, 1)
    # Lines of an earlier version do not tell the secret; the records do.
    former = json.loads(log.read_text())
    del former["key_hmac"], former["secret_check"]
    log.write_text(json.dumps({**former, "key_sha256": "7" * 64}) + "\n")
    code, said = call("erase", "--replay", str(log), "--yes", secret=WRONG)
    assert (code, REASONS[WRONG] in said) == (2, True)
    # Days need no secret, and afterwards nothing of the facility does.
    assert call(*erase, "--day", str(DAY), secret=None)[0] == 0
    assert call("list-images", "--capture-day", str(DAY + timedelta(1)), secret=None)[0] == 0
    assert (
        call(*erase, "--key", f"a/{DAY + timedelta(1)}/x.png", "--unlisted", secret=WRONG)[0] == 0
    )
