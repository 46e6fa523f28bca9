"""FER2013's PrivateTest Happy and Sad faces as the day of four facilities, and the comparison.

The faces go through the system as crops, JPEG and PNG in turn; a key ends with the row of
FER2013, by which its label is known. The pixels stay on this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2

from fer_batch import fer2013
from fer_batch.demo.day import DemoFacility, DemoImage, encoded
from fer_batch.records import Emotion

FACILITIES = 4
_EMOTIONS = {fer2013.HAPPY: Emotion.HAPPY, fer2013.SAD: Emotion.SAD}


def fer2013_day(archive: Path) -> tuple[list[DemoFacility], dict[int, Emotion]]:
    """The facilities, and the label of each row."""
    split = fer2013.read(archive)["PrivateTest"]
    images: list[list[DemoImage]] = [[] for _ in range(FACILITIES)]
    labels: dict[int, Emotion] = {}
    for row, label, pixels in zip(split.rows, split.labels, split.pixels, strict=True):
        if int(label) not in _EMOTIONS:
            continue
        number = len(labels)
        labels[int(row)] = _EMOTIONS[int(label)]
        if number // FACILITIES % 2:
            image = DemoImage(f"{row:05}.png", encoded(pixels, ".png"))
        else:
            data = encoded(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
            image = DemoImage(f"{row:05}.jpg", data)
        images[number % FACILITIES].append(image)
    facilities = [
        DemoFacility(f"fer2013-{n + 1}", f"FER2013, part {n + 1}", "UTC", "crops", part)
        for n, part in enumerate(images)
    ]
    return facilities, labels


def figures(labels: Mapping[int, Emotion], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Every row of `image_result` against its label.

    The larger of p_happy and p_sad is compared for all faces, uncertain ones included, as in
    `fer-batch evaluate`; the share of uncertain faces and what is right among the others stand
    beside it.
    """
    seen: set[int] = set()
    right: Counter[Emotion] = Counter()
    wrong: Counter[Emotion] = Counter()
    certain = certain_right = 0
    for row in rows:
        number = int(str(row["image_key"]).rsplit("/", 1)[-1].split(".")[0])
        seen.add(number)
        label = labels[number]
        is_right = row["emotion"] == label.value
        right[label] += is_right
        wrong[label] += not is_right
        certain += not row["is_uncertain"]
        certain_right += is_right and not row["is_uncertain"]
    total = Counter(labels.values())
    return {
        "images": len(labels),
        "with a result": len(seen),
        "accuracy": round(right.total() / len(labels), 4),
        "recall Happy": round(right[Emotion.HAPPY] / total[Emotion.HAPPY], 4),
        "recall Sad": round(right[Emotion.SAD] / total[Emotion.SAD], 4),
        "Happy called Sad": wrong[Emotion.HAPPY],
        "Sad called Happy": wrong[Emotion.SAD],
        "uncertain share": round(1 - certain / max(len(seen), 1), 4),
        "accuracy of the others": round(certain_right / max(certain, 1), 4),
    }
