"""A camera that sends rubbish, or somebody who means it: whole runs over hostile images.

Each image ends with one outcome out of the closed list, its neighbours are scored as ever, and
the process that started the scoring neither dies nor grows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fer_batch import nightly
from fer_batch.records import Outcome
from tests.end_to_end.conftest import DAY, Night, crop, facility
from tests.hostile.conftest import GROWTH_MB, resident_mb
from tests.support import pictures
from tests.support.hostile_images import corpus

GOOD = 10


def results(night: Night, name: str) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each image of a facility, by the last part of its key."""
    rows = night.rows(
        "select image_key, outcome, reason from fer.image_result where facility_id = %s", name
    )
    found = {row["image_key"].split("/")[-1]: (row["outcome"], row["reason"]) for row in rows}
    assert len(found) == len(rows)
    return found


def good_ones(night: Night, name: str) -> list[str]:
    """Put good images between the others, and say how they are called."""
    names = [f"{chr(32 + 9 * n)}good {n}.png" for n in range(GOOD)]
    for number, key in enumerate(names):
        night.put(f"{name}/{DAY}/{key}", crop(number % 2 == 0))
    return names


def faces(night: Night, name: str) -> int:
    query = "select count(*) as n from fer.face_result where facility_id = %s"
    return int(night.rows(query, name)[0]["n"])


def test_every_hostile_image_has_one_outcome_and_harms_nobody(night: Night) -> None:
    cases = list(corpus())
    night.registry(facility("crops"), facility("frames", "frames"), facility("none"))
    for name in ("crops", "frames"):
        good = good_ones(night, name)
        for key, data, _ in cases:
            night.put(f"{name}/{DAY}/{key}", data)

    night.run(facility_ids=("none",))  # everything is imported
    before_mb = resident_mb()
    night.run("hostile", facility_ids=("crops", "frames"))
    grown_mb = resident_mb() - before_mb
    print(f"{len(cases)} hostile images in two facilities, grown by {grown_mb:.1f} MB")  # noqa: T201

    crops, frames = results(night, "crops"), results(night, "frames")
    wrong = [
        (key, outcome.value, crops[key])
        for key, _, outcome in cases
        if crops[key][0] != outcome.value
        # In a frame there may be no face.
        or frames[key][0] not in ({"scored", "no_face"} if outcome == "scored" else {outcome})
    ]
    assert wrong == []
    assert set(crops) == set(frames) == {key for key, _, _ in cases} | set(good)
    assert all(crops[key] == ("scored", "") for key in good)
    assert all(frames[key][0] == "no_face" for key in good)  # flat grey
    assert faces(night, "crops") == sum(outcome == "scored" for outcome, _ in crops.values())
    assert all(0 < len(why) <= 200 for outcome, why in crops.values() if outcome != "scored")
    assert grown_mb < GROWTH_MB


# ---------------------------------------------------------------- killers

DECODER = """
import os, resource, signal, time
from pathlib import Path
import cv2

decode = cv2.imdecode
tries = Path({tries!r})


def decode_or_die(data, flags):
    content = data.tobytes()
    for way in (b"abort", b"kill", b"hang", b"grow", b"error"):
        if b"killer: " + way not in content:
            continue
        with tries.open("a") as file:
            file.write(f"{{way.decode()}} {{resource.getrlimit(resource.RLIMIT_CORE)[0]}}\\n")
        if way == b"abort":
            os.abort()
        elif way == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif way == b"hang":
            time.sleep(3600)
        elif way == b"grow":
            hoard = bytearray(b"x") * 3_000_000_000
            time.sleep(3600)
        else:
            raise ZeroDivisionError("a bug of the decoder")
    return decode(data, flags)


cv2.imdecode = decode_or_die
"""


def killer(way: str) -> bytes:
    """A good JPEG that makes the decoder of this test end its process."""
    data, word = pictures.encoded(pictures.scene()), f"killer: {way}".encode()
    return data[:2] + b"\xff\xfe" + (2 + len(word)).to_bytes(2) + word + data[2:]


@pytest.mark.parametrize(
    ("threads", "ways"),
    [
        pytest.param(1, ["abort", "hang", "grow"], id="one thread"),
        pytest.param(2, ["kill", "error"], id="two threads"),
    ],
)
def test_an_image_that_ends_its_process_is_given_up_and_the_rest_is_scored(
    night: Night,
    scoring_process: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    ways: list[str],
) -> None:
    tries = tmp_path / "tries"
    scoring_process(DECODER.format(tries=str(tries)))
    monkeypatch.setattr(nightly, "IMAGE_DEADLINE_S", 3.0)
    night.registry(facility("mall"), facility("none"))
    good = good_ones(night, "mall")
    for number, way in enumerate(ways):
        night.put(f"mall/{DAY}/{number} {way}.jpg", killer(way))
    night.run(facility_ids=("none",))  # everything is imported
    before_mb = resident_mb()

    night.with_settings(threads=threads, chunk_images=3, score_memory_mb=1000).run("killed")

    found = results(night, "mall")
    assert {found[f"{number} {way}.jpg"] for number, way in enumerate(ways)} == {
        (Outcome.KILLED_WORKER.value, "ended the process that decoded it each time")
    }
    assert all(found[key] == ("scored", "") for key in good)
    assert len(found) == len(good) + len(ways)
    assert faces(night, "mall") == len(good)
    tried = Counter(line.split()[0] for line in tries.read_text().splitlines())
    assert set(tried) == set(ways)
    assert max(tried.values()) <= 3
    print(f"{threads} threads, processes that died of each image: {dict(tried)}")  # noqa: T201
    # What was in memory is not left on the disk.
    assert {line.split()[1] for line in tries.read_text().splitlines()} == {"0"}

    # What was given up is final: the next run does not try it.
    night.run("again")
    assert len(tries.read_text().splitlines()) == tried.total()
    assert resident_mb() - before_mb < GROWTH_MB
