"""Recall and time of face detection on frames that are reduced before the search.

The frames are made from photographs: each face of each photograph is scaled to several sizes and
placed in the middle of a frame of 640×480 and of 1280×960. A face counts as found if a box overlaps
it with an intersection over union of at least 0.4. Every frame is searched at full size, at three
quarters and at half of it, and with the project's settings; and again at full size shifted by three
pixels, which shows the random variation. Times are those of one core.

The photographs are not part of the project: without `../shared/data/photos` the benchmark is
skipped.
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

from benchmarks.measuring import (
    Spread,
    build_result_path,
    convert_spreads,
    describe_machine,
    write_json,
)
from fer_batch.imaging.decoding import ImageLimits, Pixels, decode_image
from fer_batch.imaging.faces import FaceDetector
from fer_batch.records import Box
from fer_batch.settings import Settings

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "photos"
FRAMES = ((640, 480), (1280, 960))
SIZES_PX = (24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128, 160, 224)
"""The sizes (longer side) to which each face is scaled; also lower bounds of the size classes."""
LARGEST_ENLARGEMENT = 4.0
MIN_IOU = 0.4
GUARANTEED_PX = 40
"""From this size on, a search in a reduced frame should find the same faces."""
SHIFT_PX = 3
ROUNDS, QUICK_ROUNDS = 5, 1
TIMED_FRAMES = 40
GRAY = 110


FULL, IN_USE = "full size", "as in use"

Search = Callable[[Pixels], list[Box]]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and the boxes of its faces."""

    pixels: Pixels
    faces: tuple[Box, ...]


@dataclass(slots=True)
class Count:
    """Numbers of faces of a size class: all, found, found only at full size (`lost`), and found
    only by this search (`gained`). The names are keys of the result."""

    faces: int = 0
    found: int = 0
    lost: int = 0
    gained: int = 0


def build_searches(settings: Settings) -> dict[str, Search]:
    """The searches by name. The first one is the reference of the others."""
    in_use = FaceDetector(settings)
    # With the smallest face that YuNet can detect as the minimum, the detector reduces no frame.
    sharp = FaceDetector(Settings(_env_file=None, min_face_px=16))

    def build_reduced_search(scale: float) -> Search:
        def search(pixels: Pixels) -> list[Box]:
            return [
                _scale_box(1 / scale, box) for box in _detect_boxes(sharp, _resize(pixels, scale))
            ]

        return search

    def search_shifted(pixels: Pixels) -> list[Box]:
        boxes = _detect_boxes(sharp, np.roll(pixels, SHIFT_PX, (0, 1)))
        return [Box(b.x - SHIFT_PX, b.y - SHIFT_PX, b.width, b.height) for b in boxes]

    return {
        FULL: lambda pixels: _detect_boxes(sharp, pixels),
        f"full size, moved by {SHIFT_PX} px": search_shifted,
        IN_USE: lambda pixels: _detect_boxes(in_use, pixels),
        "three quarters": build_reduced_search(0.75),
        "half": build_reduced_search(0.5),
    }


def _detect_boxes(detector: FaceDetector, pixels: Pixels) -> list[Box]:
    return [face.box for face in detector.detect(pixels)]


def _scale_box(scale: float, box: Box) -> Box:
    return Box(*(round(scale * side) for side in (box.x, box.y, box.width, box.height)))


# ---------------------------------------------------------------- frames


def generate_frames(width_px: int, height_px: int, is_quick: bool) -> Iterator[Frame]:
    """A frame per face of the photographs and size, and one per photograph without a face."""
    sharpest = FaceDetector(Settings(_env_file=None, min_face_px=10))
    limits = ImageLimits.from_settings(Settings(_env_file=None))
    manifest = json.loads((PHOTOGRAPHS / "manifest.json").read_text())
    for entry in manifest[:3] if is_quick else manifest:
        photograph = decode_image((PHOTOGRAPHS / entry["file"]).read_bytes(), limits)
        boxes = _detect_boxes(sharpest, photograph)
        if len(boxes) != entry["faces"]:
            raise RuntimeError(
                f"{entry['file']}: {len(boxes)} faces, its manifest states {entry['faces']}"
            )
        for box in boxes:
            for size_px in SIZES_PX:
                scale = size_px / max(box.width, box.height)
                if scale <= LARGEST_ENLARGEMENT:
                    yield _build_frame(photograph, boxes, box, scale, width_px, height_px)
        if not boxes:
            yield Frame(_resize(photograph, width_px / photograph.shape[1]), ())


def _build_frame(
    photograph: Pixels, boxes: Sequence[Box], middle: Box, scale: float, width: int, height: int
) -> Frame:
    """The scaled photograph with the face `middle` in the center, cropped or padded with gray."""
    pixels = _resize(photograph, scale)
    left = _compute_offset(width, pixels.shape[1], scale * (middle.x + middle.width / 2))
    top = _compute_offset(height, pixels.shape[0], scale * (middle.y + middle.height / 2))
    visible = pixels[max(-top, 0) : height - top, max(-left, 0) : width - left]
    frame = np.full((height, width, 3), GRAY, np.uint8)
    y, x = max(top, 0), max(left, 0)
    frame[y : y + visible.shape[0], x : x + visible.shape[1]] = visible
    scaled = [_scale_box(scale, box) for box in boxes]
    moved = [Box(b.x + left, b.y + top, b.width, b.height) for b in scaled]
    inside = [
        b for b in moved
        if min(b.x, b.y) >= 0 and b.x + b.width <= width and b.y + b.height <= height
    ]  # fmt: skip
    return Frame(frame, tuple(inside))


def _resize(pixels: Pixels, scale: float) -> Pixels:
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(
        cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8
    )


def _compute_offset(frame_px: int, picture_px: int, middle_px: float) -> int:
    """The offset of the image in the frame that centers `middle_px` as far as possible."""
    low, high = sorted((0, frame_px - picture_px))
    return round(min(max(frame_px / 2 - middle_px, low), high))


# ---------------------------------------------------------------- comparison


def compare(
    all_frames: Sequence[Frame], searches: dict[str, Search]
) -> dict[str, dict[int, Count]]:
    """The counts of each search by size class (its lower bound)."""
    counts: dict[str, dict[int, Count]] = {name: {} for name in searches}
    for frame in all_frames:
        matched_faces = {
            name: _match_faces(frame.faces, search(frame.pixels))
            for name, search in searches.items()
        }
        for number, box in enumerate(frame.faces):
            size_px = max(box.width, box.height)
            if size_px < SIZES_PX[0]:
                continue
            bound = max(bound for bound in SIZES_PX if bound <= size_px)
            for name, matched in matched_faces.items():
                count = counts[name].setdefault(bound, Count())
                count.faces += 1
                count.found += number in matched
                count.lost += number in matched_faces[FULL] and number not in matched
                count.gained += number in matched and number not in matched_faces[FULL]
    return counts


def _match_faces(faces: Sequence[Box], boxes: Sequence[Box]) -> set[int]:
    """The indices of the faces that match a box; each box matches one face at most."""
    unmatched = list(boxes)
    matched = set()
    for number, face in enumerate(faces):
        best = max(unmatched, key=lambda box: _compute_iou(face, box), default=None)
        if best is not None and _compute_iou(face, best) >= MIN_IOU:
            matched.add(number)
            unmatched.remove(best)
    return matched


def _compute_iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    intersection = max(width, 0) * max(height, 0)
    return intersection / (a.width * a.height + b.width * b.height - intersection)


def sum_counts(counts: dict[int, Count]) -> Count:
    """The sum over the size classes from `GUARANTEED_PX` on."""
    large = [asdict(count) for bound, count in counts.items() if bound >= GUARANTEED_PX]
    return Count(**{name: sum(count[name] for count in large) for name in asdict(Count())})


def _measure_core_ms(search: Search, all_frames: Sequence[Frame]) -> float:
    began = time.process_time()
    for frame in all_frames:
        search(frame.pixels)
    return 1000 * (time.process_time() - began) / len(all_frames)


def show(title: str, counts: dict[str, dict[int, Count]], core_ms: dict[str, Spread]) -> None:
    print(f"\n{title}: faces found by longer side in px; core-ms per frame")
    bounds = sorted(counts[FULL])
    print(f"  {'from px':<26}" + "".join(f"{bound:>5}" for bound in bounds))
    print(f"  {'faces':<26}" + "".join(f"{counts[FULL][b].faces:>5}" for b in bounds))
    for name, of in counts.items():
        cells = "".join(f"{of[bound].found:>5}" for bound in bounds)
        print(f"  {name:<26}{cells}   {core_ms[name]} core-ms")
    print(f"faces of {GUARANTEED_PX} px and more: {sum_counts(counts[FULL]).faces}")
    for name, of in counts.items():
        total = sum_counts(of)
        print(
            f"  {name:<26}{total.found:>5} found; compared with full size {total.lost} lost, "
            f"{total.gained} gained"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    options = parser.parse_args()
    is_quick: bool = options.quick
    if not (PHOTOGRAPHS / "manifest.json").is_file():
        print(f"skipped: no photographs in {PHOTOGRAPHS}")
        return 0
    machine_facts = describe_machine()
    cv2.setNumThreads(1)
    settings = Settings(_env_file=None)
    searches = build_searches(settings)
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "min_face_px": settings.min_face_px,
        "promised_px": GUARANTEED_PX,
    }
    for width, height in FRAMES[:1] if is_quick else FRAMES:
        all_frames = list(generate_frames(width, height, is_quick))
        counts = compare(all_frames, searches)
        timed = all_frames[:: max(len(all_frames) // TIMED_FRAMES, 1)]
        core_ms = {
            name: Spread.from_values(
                [
                    _measure_core_ms(search, timed)
                    for _ in range(QUICK_ROUNDS if is_quick else ROUNDS)
                ]
            )
            for name, search in searches.items()
        }
        show(f"{len(all_frames)} frames of {width}×{height}", counts, core_ms)
        result[f"{width}x{height}"] = {
            "frames": len(all_frames),
            "core_ms_per_frame": convert_spreads(core_ms),
            "from_promised_px": {name: asdict(sum_counts(of)) for name, of in counts.items()},
            "by_size_px": {
                name: {str(bound): asdict(of[bound]) for bound in sorted(of)}
                for name, of in counts.items()
            },
        }
    write_json(build_result_path("detection.json", is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
