"""Whether faces are still found where frames are looked at in a reduced size, and what it saves.

The frames are made of photographs: each face of each photograph is enlarged or reduced to a row
of sizes and placed in the middle of a frame of 640×480 and of 1280×960. A face counts as found
where a box overlaps it by at least 0.4 (intersection over union). Every frame is searched at full
size, in three quarters and in half of it, and as the settings have it; and at full size once
more, moved by three pixels, which shows how much is chance. Time is that of one core.

The photographs are no part of the project: without `../shared/data/photos` there is nothing to
measure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measuring import Spread, as_plain, machine, result_path, write_json
from fer_batch.faces import FaceFinder
from fer_batch.images import Limits, Pixels, read_image
from fer_batch.records import Box
from fer_batch.settings import Settings

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "photos"
FRAMES = ((640, 480), (1280, 960))
SIZES_PX = (24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128, 160, 224)
"""Longer sides to which each face is brought; the bounds of the table's rows as well."""
LARGEST_ENLARGEMENT = 4.0
SAME_FROM = 0.4
PROMISED_PX = 40
"""From this size on, a reduced search should find the same faces."""
MOVED_PX = 3
ROUNDS, QUICK_ROUNDS = 5, 1
TIMED_FRAMES = 40
GREY = 110


FULL, IN_USE = "full size", "as in use"

Search = Callable[[Pixels], list[Box]]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and where its faces are."""

    pixels: Pixels
    faces: tuple[Box, ...]


@dataclass(slots=True)
class Count:
    """Faces of some sizes: how many there are and are found, and what full size finds besides
    (`lost`) or does not find (`gained`)."""

    faces: int = 0
    found: int = 0
    lost: int = 0
    gained: int = 0


def searches(settings: Settings) -> dict[str, Search]:
    """The ways to search a frame. The first is what the others are compared with."""
    in_use = FaceFinder(settings)
    # Where the smallest face to count is what YuNet can just see, nothing may be reduced.
    sharp = FaceFinder(Settings(_env_file=None, min_face_px=16))

    def reduced(scale: float) -> Search:
        def search(pixels: Pixels) -> list[Box]:
            return [_times(1 / scale, box) for box in _boxes(sharp, _scaled(pixels, scale))]

        return search

    def moved(pixels: Pixels) -> list[Box]:
        found = _boxes(sharp, np.roll(pixels, MOVED_PX, (0, 1)))
        return [Box(b.x - MOVED_PX, b.y - MOVED_PX, b.width, b.height) for b in found]

    return {
        FULL: lambda pixels: _boxes(sharp, pixels),
        f"full size, moved by {MOVED_PX} px": moved,
        IN_USE: lambda pixels: _boxes(in_use, pixels),
        "three quarters": reduced(0.75),
        "half": reduced(0.5),
    }


def _boxes(finder: FaceFinder, pixels: Pixels) -> list[Box]:
    return [found.box for found in finder.find(pixels)]


def _times(scale: float, box: Box) -> Box:
    return Box(*(round(scale * side) for side in (box.x, box.y, box.width, box.height)))


# ---------------------------------------------------------------- frames


def frames(width_px: int, height_px: int, is_quick: bool) -> Iterator[Frame]:
    """Every face of the photographs in every size, and each photograph without a face once."""
    sharpest = FaceFinder(Settings(_env_file=None, min_face_px=10))
    limits = Limits.of(Settings(_env_file=None))
    manifest = json.loads((PHOTOGRAPHS / "manifest.json").read_text())
    for entry in manifest[:3] if is_quick else manifest:
        photograph = read_image((PHOTOGRAPHS / entry["file"]).read_bytes(), limits).pixels
        boxes = _boxes(sharpest, photograph)
        if len(boxes) != entry["faces"]:
            raise RuntimeError(f"{entry['file']}: {len(boxes)} faces, its manifest says otherwise")
        for box in boxes:
            for size_px in SIZES_PX:
                scale = size_px / max(box.width, box.height)
                if scale <= LARGEST_ENLARGEMENT:
                    yield _framed(photograph, boxes, box, scale, width_px, height_px)
        if not boxes:
            yield Frame(_scaled(photograph, width_px / photograph.shape[1]), ())


def _framed(
    photograph: Pixels, boxes: Sequence[Box], middle: Box, scale: float, width: int, height: int
) -> Frame:
    """The photograph at that scale, with one face in the middle, cut or put on grey."""
    pixels = _scaled(photograph, scale)
    left = _offset(width, pixels.shape[1], scale * (middle.x + middle.width / 2))
    top = _offset(height, pixels.shape[0], scale * (middle.y + middle.height / 2))
    seen = pixels[max(-top, 0) : height - top, max(-left, 0) : width - left]
    frame = np.full((height, width, 3), GREY, np.uint8)
    y, x = max(top, 0), max(left, 0)
    frame[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    scaled = [_times(scale, box) for box in boxes]
    moved = [Box(b.x + left, b.y + top, b.width, b.height) for b in scaled]
    inside = [
        b for b in moved
        if min(b.x, b.y) >= 0 and b.x + b.width <= width and b.y + b.height <= height
    ]  # fmt: skip
    return Frame(frame, tuple(inside))


def _scaled(pixels: Pixels, scale: float) -> Pixels:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how), np.uint8)


def _offset(frame_px: int, picture_px: int, middle_px: float) -> int:
    """Where the picture begins in the frame, so that its middle is the frame's if that can be."""
    low, high = sorted((0, frame_px - picture_px))
    return round(min(max(frame_px / 2 - middle_px, low), high))


# ---------------------------------------------------------------- comparison


def compare(every: Sequence[Frame], ways: dict[str, Search]) -> dict[str, dict[int, Count]]:
    """For each way to search: what became of the faces, by the lower bound of their size."""
    counts: dict[str, dict[int, Count]] = {name: {} for name in ways}
    for frame in every:
        found = {name: _matched(frame.faces, search(frame.pixels)) for name, search in ways.items()}
        for number, box in enumerate(frame.faces):
            size_px = max(box.width, box.height)
            if size_px < SIZES_PX[0]:
                continue
            bound = max(bound for bound in SIZES_PX if bound <= size_px)
            for name, matched in found.items():
                count = counts[name].setdefault(bound, Count())
                count.faces += 1
                count.found += number in matched
                count.lost += number in found[FULL] and number not in matched
                count.gained += number in matched and number not in found[FULL]
    return counts


def _matched(faces: Sequence[Box], found: Sequence[Box]) -> set[int]:
    """The faces that a box was found for, by their numbers."""
    free = list(found)
    matched = set()
    for number, face in enumerate(faces):
        best = max(free, key=lambda box: _overlap(face, box), default=None)
        if best is not None and _overlap(face, best) >= SAME_FROM:
            matched.add(number)
            free.remove(best)
    return matched


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (a.width * a.height + b.width * b.height - shared)


def together(counts: dict[int, Count]) -> Count:
    """All faces of the promised size and larger."""
    some = [asdict(count) for bound, count in counts.items() if bound >= PROMISED_PX]
    return Count(**{name: sum(one[name] for one in some) for name in asdict(Count())})


def _core_ms(search: Search, every: Sequence[Frame]) -> float:
    began = time.process_time()
    for frame in every:
        search(frame.pixels)
    return 1000 * (time.process_time() - began) / len(every)


def show(title: str, counts: dict[str, dict[int, Count]], core_ms: dict[str, Spread]) -> None:
    print(f"\n{title}: faces found by their longer side in px; core-ms a frame")
    bounds = sorted(counts[FULL])
    print(f"  {'from px':<26}" + "".join(f"{bound:>5}" for bound in bounds))
    print(f"  {'faces':<26}" + "".join(f"{counts[FULL][b].faces:>5}" for b in bounds))
    for name, of in counts.items():
        cells = "".join(f"{of[bound].found:>5}" for bound in bounds)
        print(f"  {name:<26}{cells}   {core_ms[name]} core-ms")
    print(f"faces of {PROMISED_PX} px and more: {together(counts[FULL]).faces}")
    for name, of in counts.items():
        total = together(of)
        print(
            f"  {name:<26}{total.found:>5} found; of those that full size finds {total.lost} are "
            f"lost, {total.gained} more are found"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    options = parser.parse_args()
    is_quick: bool = options.quick
    if not (PHOTOGRAPHS / "manifest.json").is_file():
        print(f"skipped: there are no photographs in {PHOTOGRAPHS}")
        return 0
    described = machine()
    cv2.setNumThreads(1)
    settings = Settings(_env_file=None)
    ways = searches(settings)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": described,
        "min_face_px": settings.min_face_px,
        "promised_px": PROMISED_PX,
    }
    for width, height in FRAMES[:1] if is_quick else FRAMES:
        every = list(frames(width, height, is_quick))
        counts = compare(every, ways)
        timed = every[:: max(len(every) // TIMED_FRAMES, 1)]
        core_ms = {
            name: Spread.of(
                [_core_ms(search, timed) for _ in range(QUICK_ROUNDS if is_quick else ROUNDS)]
            )
            for name, search in ways.items()
        }
        show(f"{len(every)} frames of {width}×{height}", counts, core_ms)
        result[f"{width}x{height}"] = {
            "frames": len(every),
            "core_ms_per_frame": as_plain(core_ms),
            "from_promised_px": {name: asdict(together(of)) for name, of in counts.items()},
            "by_size_px": {
                name: {str(bound): asdict(of[bound]) for bound in sorted(of)}
                for name, of in counts.items()
            },
        }
    write_json(result_path("detection.json", is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
