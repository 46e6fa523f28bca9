"""Faces as pictures, from a real S3 server: what is shown, and what is not read at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fer_batch.audit.crops import SIDE_PX, UNLISTED, CropReader, HiddenFace
from fer_batch.audit.labeling import AuditFace, build_face
from fer_batch.database import connections
from fer_batch.errors import ConfigurationError
from fer_batch.facilities.loading import load_registry
from fer_batch.imaging.faces import crop_square
from fer_batch.imaging.sandbox.decoders import Decoders
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.support import pictures
from tests.support.labeling import decode_picture

FRAME, BOXES = pictures.draw_frame(np.random.default_rng(4), ["smile", "droop"])
KEY = f"mall/{DAY}/{{}}.png"


@pytest.fixture
def faces(night: Night) -> dict[str, AuditFace]:
    """The first face of each image of a day that was listed."""
    night.write_registry(format_facility("mall", "frames"))
    for name in ("shown", "gone", "changed", "erased", "archive", "broken"):
        night.put(KEY.format(name), pictures.encode(FRAME, ".png"))
    night.put(KEY.format("broken"), b"no image")
    run = night.open()
    run.sync_facilities()
    run.list_images()
    rows = night.query("select * from fer.image")
    left = min(BOXES, key=lambda box: box.x)
    box = {"box_x": left.x, "box_y": left.y, "box_width": left.width, "box_height": left.height}
    return {
        row["image_key"].rpartition("/")[2].removesuffix(".png"): build_face(
            "mall", {**row, **box, "face_number": number, "face_index": 0}, "frames"
        )
        for number, row in enumerate(rows, start=1)
    }


@pytest.fixture
def reader(night: Night, faces: dict[str, AuditFace]) -> Iterator[CropReader]:
    settings = night.settings
    facility = load_registry(settings.facilities_file, settings).facilities["mall"]
    engine = connections.create_engine(settings)
    with Decoders(settings) as decoders, CropReader(settings, engine, decoders, facility) as opened:
        yield opened
    engine.dispose()


def test_a_face_is_shown_in_color_and_what_is_gone_changed_or_erased_is_not(
    night: Night,
    faces: dict[str, AuditFace],
    reader: CropReader,
    sent_operations: Callable[[], list[str]],
) -> None:
    picture = reader.read(faces["shown"])
    assert isinstance(picture, bytes)
    pixels = decode_picture(picture)
    assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(pixels, crop_square(FRAME, faces["shown"].box, SIDE_PX))
    night.s3.client.delete_object(Bucket=night.s3.bucket, Key=KEY.format("gone"))
    night.put(KEY.format("changed"), encode_crop(True))
    assert reader.read(faces["gone"]) == HiddenFace("the object is gone")
    changed = reader.read(faces["changed"])
    assert changed == HiddenFace("the object is no longer the one that was listed")
    broken = reader.read(faces["broken"])
    assert isinstance(broken, HiddenFace)
    assert "no image" not in broken.reason

    # What may not be read causes no request at all.
    sent = len(sent_operations())
    archive = "update fer.image set is_archived = true where image_key = %s returning 1"
    night.query(archive, KEY.format("archive"))
    assert reader.read(faces["archive"]) == HiddenFace(
        "archived: restore the object, or exclude it"
    )
    night.query("delete from fer.image where image_key = %s returning 1", KEY.format("erased"))
    assert reader.read(faces["erased"]) == HiddenFace(UNLISTED)
    assert reader.find_obstacle(faces["erased"]) == HiddenFace(UNLISTED)
    # The registry is read again: the permission is withdrawn while the page is open.
    night.write_registry(format_facility("mall", "frames", permission=""))
    for obstacle in (reader.find_obstacle(faces["shown"]), reader.read(faces["shown"])):
        assert obstacle == HiddenFace("mall may not be read: no permission is recorded")
    night.write_registry(format_facility("other"))
    assert "not in the facility registry" in str(reader.read(faces["shown"]))
    night.settings.facilities_file.write_text("no registry")
    with pytest.raises(ConfigurationError):
        reader.read(faces["shown"])
    night.write_registry(format_facility("mall", "frames"))
    assert reader.find_obstacle(faces["shown"]) is None
    assert len(sent_operations()) == sent
