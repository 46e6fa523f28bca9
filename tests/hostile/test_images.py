"""Whole runs over hostile images, as a broken camera or an attacker may send them.

Each image gets exactly one of the defined outcomes, the other images are scored as usual, and the
process that started the scoring neither crashes nor grows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fer_batch.pipeline import nightly
from fer_batch.records import Outcome
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.hostile.conftest import GROWTH_MB, measure_resident_mb
from tests.support import pictures
from tests.support.hostile_images import generate_hostile_images

VALID_IMAGES = 10


def read_results(night: Night, name: str) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each image of a facility, by the last part of its key."""
    rows = night.query(
        "select image_key, outcome, reason from fer.image_result where facility_id = %s", name
    )
    results = {row["image_key"].split("/")[-1]: (row["outcome"], row["reason"]) for row in rows}
    assert len(results) == len(rows)
    return results


def put_valid_images(night: Night, name: str) -> list[str]:
    """Upload valid images between the others in key order, and return their names."""
    names = [f"{chr(32 + 9 * n)}valid {n}.png" for n in range(VALID_IMAGES)]
    for number, key in enumerate(names):
        night.put(f"{name}/{DAY}/{key}", encode_crop(number % 2 == 0))
    return names


def count_faces(night: Night, name: str) -> int:
    query = "select count(*) as n from fer.face_result where facility_id = %s"
    return int(night.query(query, name)[0]["n"])


def test_each_hostile_image_has_one_outcome_and_affects_no_other(night: Night) -> None:
    cases = list(generate_hostile_images())
    night.write_registry(
        format_facility("crops"), format_facility("frames", "frames"), format_facility("none")
    )
    for name in ("crops", "frames"):
        valid = put_valid_images(night, name)
        for key, data, _ in cases:
            night.put(f"{name}/{DAY}/{key}", data)

    night.run(facility_ids=("none",))  # afterwards all modules are imported
    before_mb = measure_resident_mb()
    night.run("hostile", facility_ids=("crops", "frames"))
    grown_mb = measure_resident_mb() - before_mb
    print(f"{len(cases)} hostile images in two facilities, grown by {grown_mb:.1f} MB")  # noqa: T201

    crops, frames = read_results(night, "crops"), read_results(night, "frames")
    unexpected = [
        (key, outcome.value, crops[key])
        for key, _, outcome in cases
        if crops[key][0] != outcome.value
        # The detector may find no face in a frame.
        or frames[key][0] not in ({"scored", "no_face"} if outcome == "scored" else {outcome})
    ]
    assert unexpected == []
    assert set(crops) == set(frames) == {key for key, _, _ in cases} | set(valid)
    assert all(crops[key] == ("scored", "") for key in valid)
    assert all(frames[key][0] == "no_face" for key in valid)  # flat gray
    assert count_faces(night, "crops") == sum(outcome == "scored" for outcome, _ in crops.values())
    assert all(0 < len(reason) <= 200 for outcome, reason in crops.values() if outcome != "scored")
    assert grown_mb < GROWTH_MB


# ---------------------------------------------------------------- images that end the decoder

DECODER = """
import os, resource, signal, time
from pathlib import Path
import cv2

decode = cv2.imdecode
attempts = Path({attempts!r})


def decode_or_die(data, flags):
    content = data.tobytes()
    for action in (b"abort", b"kill", b"hang", b"grow", b"error"):
        if b"killer: " + action not in content:
            continue
        with attempts.open("a") as file:
            file.write(f"{{action.decode()}} {{resource.getrlimit(resource.RLIMIT_CORE)[0]}}\\n")
        if action == b"abort":
            os.abort()
        elif action == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == b"hang":
            time.sleep(3600)
        elif action == b"grow":
            hoard = bytearray(b"x") * 3_000_000_000
            time.sleep(3600)
        else:
            raise ZeroDivisionError("a bug of the decoder")
    return decode(data, flags)


cv2.imdecode = decode_or_die
"""


def build_killer_image(action: str) -> bytes:
    """A valid JPEG with a comment that makes the decoder of this test end its process."""
    data, word = pictures.encode(pictures.draw_scene()), f"killer: {action}".encode()
    return data[:2] + b"\xff\xfe" + (2 + len(word)).to_bytes(2) + word + data[2:]


@pytest.mark.parametrize(
    ("threads", "actions"),
    [
        pytest.param(1, ["abort", "hang", "grow"], id="one thread"),
        pytest.param(2, ["kill", "error"], id="two threads"),
    ],
)
def test_an_image_that_crashes_the_decoder_is_quarantined_and_the_others_are_scored(
    night: Night,
    scoring_process: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    actions: list[str],
) -> None:
    attempts = tmp_path / "attempts"
    scoring_process(DECODER.format(attempts=str(attempts)))
    monkeypatch.setattr(nightly, "IMAGE_DEADLINE_S", 3.0)
    night.write_registry(format_facility("mall"), format_facility("none"))
    valid = put_valid_images(night, "mall")
    for number, action in enumerate(actions):
        night.put(f"mall/{DAY}/{number} {action}.jpg", build_killer_image(action))
    night.run(facility_ids=("none",))  # afterwards all modules are imported
    before_mb = measure_resident_mb()

    night.with_settings(threads=threads, chunk_images=3, score_memory_mb=1000).run("killed")

    outcomes = read_results(night, "mall")
    assert {outcomes[f"{number} {action}.jpg"] for number, action in enumerate(actions)} == {
        (Outcome.DECODER_CRASHED.value, "ended the process that decoded it each time")
    }
    assert all(outcomes[key] == ("scored", "") for key in valid)
    assert len(outcomes) == len(valid) + len(actions)
    assert count_faces(night, "mall") == len(valid)
    attempts_by_action = Counter(line.split()[0] for line in attempts.read_text().splitlines())
    assert set(attempts_by_action) == set(actions)
    assert max(attempts_by_action.values()) <= 3
    print(f"{threads} threads, crashes by image: {dict(attempts_by_action)}")  # noqa: T201
    # No core file is written: it would store images on disk.
    assert {line.split()[1] for line in attempts.read_text().splitlines()} == {"0"}

    # The outcome of a quarantined image is final: the next run does not decode it.
    night.run("again")
    assert len(attempts.read_text().splitlines()) == attempts_by_action.total()
    assert measure_resident_mb() - before_mb < GROWTH_MB
