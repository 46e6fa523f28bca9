"""The Happy and Sad faces of FER2013's PrivateTest as a day of four facilities, and the comparison.

The faces are processed as crops, JPEG and PNG in turn. A key ends with the row number in FER2013,
which identifies the label. The pixels do not leave this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2

from fer_batch.local.demo.day import DemoFacility, DemoImage, encode_image
from fer_batch.model import fer2013
from fer_batch.records import CalledClass, Emotion

FACILITIES = 4
_EMOTIONS = {fer2013.HAPPY: Emotion.HAPPY, fer2013.SAD: Emotion.SAD}


def load_fer2013_day(archive: Path) -> tuple[list[DemoFacility], dict[int, Emotion]]:
    """Return the facilities, and the label of each row of FER2013."""
    split = fer2013.read(archive)["PrivateTest"]
    images: list[list[DemoImage]] = [[] for _ in range(FACILITIES)]
    labels: dict[int, Emotion] = {}
    for row, label, pixels in zip(split.rows, split.labels, split.pixels, strict=True):
        if int(label) not in _EMOTIONS:
            continue
        number = len(labels)
        labels[int(row)] = _EMOTIONS[int(label)]
        if number // FACILITIES % 2:
            image = DemoImage(f"{row:05}.png", encode_image(pixels, ".png"))
        else:
            data = encode_image(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
            image = DemoImage(f"{row:05}.jpg", data)
        images[number % FACILITIES].append(image)
    facilities = [
        DemoFacility(f"fer2013-{n + 1}", f"FER2013, part {n + 1}", "UTC", "crops", part)
        for n, part in enumerate(images)
    ]
    return facilities, labels


def measure_agreement(
    labels: Mapping[int, Emotion], rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare every row of `image_result` with its label.

    The forced choice counts for all faces, those that are called neither included, as in
    `fer-batch evaluate`. The result also has the share of faces that are called neither, and the
    accuracy of the other faces.
    """
    seen: set[int] = set()
    correct: Counter[Emotion] = Counter()
    wrong: Counter[Emotion] = Counter()
    polar = polar_correct = 0
    for row in rows:
        number = int(str(row["image_key"]).rsplit("/", 1)[-1].split(".")[0])
        seen.add(number)
        label = labels[number]
        is_correct = row["emotion"] == label.value
        correct[label] += is_correct
        wrong[label] += not is_correct
        is_polar = row["called_class"] != CalledClass.NEITHER
        polar += is_polar
        polar_correct += is_correct and is_polar
    total = Counter(labels.values())
    return {
        "images": len(labels),
        "with a result": len(seen),
        "accuracy": round(correct.total() / len(labels), 4),
        "recall Happy": round(correct[Emotion.HAPPY] / total[Emotion.HAPPY], 4),
        "recall Sad": round(correct[Emotion.SAD] / total[Emotion.SAD], 4),
        "Happy called Sad": wrong[Emotion.HAPPY],
        "Sad called Happy": wrong[Emotion.SAD],
        "called neither": round(1 - polar / max(len(seen), 1), 4),
        "accuracy of the others": round(polar_correct / max(polar, 1), 4),
    }
