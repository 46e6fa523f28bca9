"""The drawn facilities of the demo: synthetic faces of visitors, and what goes wrong with cameras.

Most faces are neutral, as in real shops, and not all expressions are clear: the CNN calls some of
them wrong, about as many as its card says. The drawing depends only on its seed, so every machine
draws the same days.

Over several days there is something to find out: the rate of Harbour Café, which is closed on
Mondays, is lower in the last week than before; a camera of Maple Clinic stops delivering; Pier
Kiosk is so small that it publishes by week. Days are counted by their age, the number of days
before the last one. The last day is a Sunday.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fer_batch.concurrency import count_cpus
from fer_batch.facilities.registry import WEEKDAYS
from fer_batch.imaging.decoding import Pixels
from fer_batch.imaging.faces import ImageKind
from fer_batch.local.demo.day import (
    SEED,
    DemoFacility,
    DemoImage,
    encode_image,
    make_broken_files,
)
from fer_batch.local.demo.drawing import Group, Portrait, Room
from fer_batch.local.demo.heads import Expression
from fer_batch.local.demo.visits import (
    Mix,
    Photograph,
    Traffic,
    Visit,
    count_faces,
    draw_visits,
)
from fer_batch.records import CalledClass, Outcome

EARLIER_DAY_SHARE = 0.5
"""The share of the visits that days before the last one have, so that four weeks are affordable."""
DROOPS_AT_REST, SMILES_AT_REST = 0.12, 0.05
"""The shares of visitors whose level mouth looks a little like a droop or a smile."""
FROZEN_COPIES, FROZEN_EVERY_S = 40, 30
DEAD_DAYS = 3
"""A dead camera has delivered nothing on so many days, the last one included."""
WEEK = 7
NICENESS = 5


@dataclass(frozen=True, slots=True)
class Shop:
    """A facility to draw.

    Before the last week its visitors have the rates `earlier_mix`, if they are others than `mix`.
    From some time on the last day `frozen_camera` delivers the same frame. `dead_camera` delivers
    nothing on the last `DEAD_DAYS` days; it must not be the first camera.
    """

    facility_id: str
    name: str
    time_zone: str
    image_kind: ImageKind
    traffic: Traffic
    mix: Mix
    group: str
    earlier_mix: Mix | None = None
    target_rate: float | None = None
    publish_period: Literal["day", "week"] = "day"
    closed_weekdays: tuple[str, ...] = ()
    empty_frames: int = 0
    frozen_camera: str | None = None
    dead_camera: str | None = None

    def find_mix(self, age: int) -> Mix:
        """The rates of the visitors of a day."""
        return self.mix if self.earlier_mix is None or age < WEEK else self.earlier_mix

    def is_closed(self, age: int) -> bool:
        """Whether nobody comes on a day."""
        return WEEKDAYS[(len(WEEKDAYS) - 1 - age) % WEEK] in self.closed_weekdays


SHOPS = (
    Shop(
        "harbour-cafe",
        "Harbour Café",
        "Europe/Berlin",
        "crops",
        Traffic(62, ("till", "terrace"), 8, 20),
        Mix(happy=0.36, sad=0.05),
        group="Europe",
        earlier_mix=Mix(happy=0.54, sad=0.03),
        target_rate=0.15,
        closed_weekdays=("mon",),
    ),
    Shop(
        "maple-clinic",
        "Maple Clinic",
        "America/Toronto",
        "crops",
        Traffic(80, ("desk", "hall", "exit"), 7, 19),
        Mix(happy=0.13, sad=0.14),
        group="Overseas",
        target_rate=0.5,
        dead_camera="exit",
    ),
    Shop(
        "lotus-mall",
        "Lotus Mall",
        "Asia/Tokyo",
        "frames",
        Traffic(32, ("north", "south", "food-court"), 10, 21, most_people=3),
        Mix(happy=0.30, sad=0.06),
        group="Overseas",
        target_rate=0.3,
        empty_frames=6,
        frozen_camera="food-court",
    ),
    Shop(
        "pier-kiosk",
        "Pier Kiosk",
        "Europe/Lisbon",
        "crops",
        Traffic(7, ("window",), 10, 18),
        Mix(happy=0.35, sad=0.05),
        group="Europe",
        publish_period="week",
    ),
)


@contextmanager
def draw_days(days: int) -> Iterator[Callable[[], list[list[DemoFacility]]]]:
    """Draw the facilities with their images on all cores, as far as nothing else needs them.

    Yields a function that waits for the result: the last day first, then the days before it. The
    last day is the same for any number of days.
    """
    tasks = [(shop, age) for age in range(days) for shop in SHOPS]
    # Not forked: OpenCV may have threads already.
    with ProcessPoolExecutor(
        count_cpus(), get_context("spawn"), initializer=os.nice, initargs=(NICENESS,)
    ) as pool:
        drawn = pool.map(draw_facility, *zip(*tasks, strict=True))

        def collect() -> list[list[DemoFacility]]:
            facilities = list(drawn)
            return [facilities[n : n + len(SHOPS)] for n in range(0, len(facilities), len(SHOPS))]

        try:
            yield collect
        finally:
            pool.shutdown(cancel_futures=True)


def list_facilities() -> list[DemoFacility]:
    """The facilities without images, as the registry needs them."""
    return [_describe_facility(shop) for shop in SHOPS]


def _describe_facility(shop: Shop) -> DemoFacility:
    return DemoFacility(
        facility_id=shop.facility_id,
        name=shop.name,
        time_zone=shop.time_zone,
        image_kind=shop.image_kind,
        images=(),
        mix=shop.mix,
        has_times=True,
        group=shop.group,
        target_rate=shop.target_rate,
        publish_period=shop.publish_period,
        closed_weekdays=shop.closed_weekdays,
    )


def draw_facility(shop: Shop, age: int) -> DemoFacility:
    """Draw the images of a shop on the day that is `age` days before the last one."""
    if shop.is_closed(age):
        return replace(_describe_facility(shop), mix=shop.find_mix(age))
    cv2.setNumThreads(1)
    rng = np.random.default_rng((SEED, age, *shop.facility_id.encode()))
    is_small = shop.publish_period == "week"
    traffic = shop.traffic.shrink(1 if age == 0 or is_small else EARLIER_DAY_SHARE)
    visits = list(draw_visits(rng, traffic, shop.find_mix(age)))
    if age < DEAD_DAYS:
        visits = [visit for visit in visits if visit[0].camera != shop.dead_camera]
    if shop.image_kind == "crops":
        images = list(_draw_crops(rng, visits))
    else:
        images = list(_draw_frames(rng, shop, visits))
    if shop.frozen_camera and age == 0:
        images += _freeze(images, shop.frozen_camera, visits)
    broken = make_broken_files(shop.image_kind, shop.traffic.cameras[0])
    return replace(
        _describe_facility(shop),
        images=[*images, *(broken[:1] if is_small else broken)],
        faces=count_faces(itertools.chain.from_iterable(visits)),
        mix=shop.find_mix(age),
    )


def _draw_crops(rng: np.random.Generator, visits: Sequence[Visit]) -> Iterator[DemoImage]:
    number = 0
    for visit in visits:
        portrait, expressions = Portrait(rng), _draw_expressions(rng)
        for photograph in visit:
            pixels = portrait.photograph(rng, expressions[photograph.faces[0]])
            image = _make_image(photograph.name, pixels, is_png=number % 4 == 3)
            yield replace(image, face=photograph.faces[0])
            number += 1


def _draw_frames(
    rng: np.random.Generator, shop: Shop, visits: Sequence[Visit]
) -> Iterator[DemoImage]:
    rooms = {camera: Room.draw_random(rng) for camera in shop.traffic.cameras}
    for visit in visits:
        people = len(visit[0].faces)
        group = Group(rng, rooms[visit[0].camera], people)
        expressions = [_draw_expressions(rng) for _ in range(people)]
        for photograph in visit:
            shown = [each[face] for each, face in zip(expressions, photograph.faces, strict=True)]
            yield _make_image(photograph.name, group.photograph(rng, shown))
    for number in range(shop.empty_frames):
        camera = shop.traffic.cameras[number % len(rooms)]
        # Before opening, when no visitor can be in the frame.
        name = Photograph(camera, shop.traffic.opens * 3600 - 600 + number, ()).name
        pixels = Group(rng, rooms[camera], 0).photograph(rng, [])
        yield _make_image(name, pixels, outcome=Outcome.NO_FACE)


def _draw_expressions(rng: np.random.Generator) -> dict[CalledClass, Expression]:
    """Draw what the expressions of one visitor look like."""
    at_rest = Expression("level")
    kind = rng.random()
    if kind < DROOPS_AT_REST:
        at_rest = Expression("droop", rng.uniform(0.3, 0.8))
    elif kind < DROOPS_AT_REST + SMILES_AT_REST:
        at_rest = Expression("smile", rng.uniform(0.0, 0.2))
    return {
        CalledClass.HAPPY: Expression("smile", rng.uniform(0.1, 0.9)),
        CalledClass.SAD: Expression("droop", rng.uniform(0.3, 0.9)),
        CalledClass.NEITHER: at_rest,
    }


def _freeze(
    images: Sequence[DemoImage], camera: str, visits: Sequence[Visit]
) -> Iterator[DemoImage]:
    """Repeat the last frame of a camera, as if it delivered the same picture ever after."""
    last = max(
        (photograph for visit in visits for photograph in visit if photograph.camera == camera),
        key=lambda photograph: photograph.second,
    )
    frozen = next(image for image in images if Path(image.name).stem == last.name)
    for number in range(1, FROZEN_COPIES + 1):
        copy = replace(last, second=last.second + FROZEN_EVERY_S * number)
        yield replace(frozen, name=f"{copy.name}.jpg")


def _make_image(
    name: str, pixels: Pixels, *, is_png: bool = False, outcome: Outcome = Outcome.SCORED
) -> DemoImage:
    """Encode an image as a camera would deliver it."""
    if is_png:
        return DemoImage(f"{name}.png", encode_image(pixels, ".png"), outcome)
    data = encode_image(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 92)
    return DemoImage(f"{name}.jpg", data, outcome)
