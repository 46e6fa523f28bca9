"""Whole runs over hostile images, as a broken camera or an attacker may send them.

Each image gets exactly one of the defined outcomes, the other images are scored as usual, and the
process that started the scoring neither crashes nor grows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_batch.records import Outcome
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.hostile.conftest import GROWTH_MB, measure_resident_mb
from tests.support import hostile_decoder, pictures
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

SCORING_PROCESS = """
from fer_batch.imaging.sandbox import handles

handles.SERVER_MODULE = "tests.support.hostile_decoder"
handles.IMAGE_DEADLINE_S = 3.0
"""
"""The scoring process is the real one; its decoders obey comments, see hostile_decoder.py."""


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_that_takes_over_its_decoder_costs_one_image_and_no_process(
    night: Night,
    scoring_process: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    threads: int,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    scoring_process(SCORING_PROCESS)
    night.write_registry(format_facility("mall"), format_facility("none"))
    valid = put_valid_images(night, "mall")
    commands = [*hostile_decoder.DEATHS, *hostile_decoder.LIES] if threads == 2 else ["crash"]
    scene = pictures.encode(pictures.draw_scene())
    for number, command in enumerate(commands):
        image = hostile_decoder.make_image(scene, command)
        night.put(f"mall/{DAY}/{number} {command}.jpg", image)
    night.run(facility_ids=("none",))  # afterwards all modules are imported
    before_mb = measure_resident_mb()

    night.with_settings(threads=threads, chunk_images=3, decode_memory_mb=100).run("taken over")

    outcomes = read_results(night, "mall")
    taken_over = [outcomes[f"{n} {command}.jpg"] for n, command in enumerate(commands)]
    assert {outcome for outcome, _ in taken_over} == {Outcome.DECODER_CRASHED.value}
    assert {reason for _, reason in taken_over} <= {
        "ended the process that decoded it each time",
        "decoding it took longer than 3 s",
    }
    assert all(outcomes[key] == ("scored", "") for key in valid)
    assert len(outcomes) == len(valid) + len(commands)
    assert count_faces(night, "mall") == len(valid)
    output = capfd.readouterr()
    assert "decoder ended" in output.out + output.err
    assert "scoring process died" not in output.out + output.err

    # The outcome is final: the next run does not decode these images.
    night.run("again")
    output = capfd.readouterr()
    assert "decoder ended" not in output.out + output.err
    assert measure_resident_mb() - before_mb < GROWTH_MB


def test_a_facility_of_huge_images_leaves_the_others_complete(
    night: Night, capfd: pytest.CaptureFixture[str]
) -> None:
    """Images that fit into the memory one at a time, and some that never fit."""
    names = ("a", "b", "c", "d", "huge")
    night.write_registry(*(format_facility(name) for name in names))
    for name in names[:4]:
        night.fill(name, happy=20, sad=10)
    blank = np.zeros((2_400, 2_500, 3), np.uint8)
    for number in range(12):
        blank[:48, :48] = number
        night.put(f"huge/{DAY}/{number:02}.jpg", pictures.encode(blank))
    larger = np.zeros((3_000, 3_000, 3), np.uint8)
    for number in range(3):
        larger[:48, :48] = number
        night.put(f"huge/{DAY}/larger {number}.jpg", pictures.encode(larger))

    night.with_settings(threads=4, decode_memory_mb=60, score_memory_mb=400).run("huge")

    assert [night.count_outcomes(name) for name in names[:4]] == [{"scored": 30}] * 4
    assert night.count_outcomes("huge") == {"scored": 12, "too_large": 3}
    assert all(night.read_summary(name)["is_complete"] for name in names)
    output = capfd.readouterr()
    assert "decoder ended" not in output.out + output.err
    assert "scoring process died" not in output.out + output.err
