"""Where the images of a demo come from, and to which capture days they belong.

The last capture day of a source is chosen on its first run and stored in the stack's directory, so
that a second run has nothing left to do and prints the same table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fer_batch.console import print_progress
from fer_batch.local.demo import fer2013_day, fer2013_shop, photographs
from fer_batch.local.demo.day import DemoFacility
from fer_batch.local.demo.shops import draw_days, list_facilities
from fer_batch.local.stack import Stack
from fer_batch.records import Emotion

DRAWN = "drawn shops"
"""The name of the source whose faces are drawn."""


@dataclass(frozen=True, slots=True)
class Source:
    """The input of a demo: facilities by day, the last day first, and labels by row of FER2013.

    `facilities` are those of the registry. `load` waits for the images: faces are drawn while the
    servers start.
    """

    name: str
    facilities: Sequence[DemoFacility]
    load: Callable[[], Sequence[Sequence[DemoFacility]]]
    labels: Mapping[int, Emotion] = field(default_factory=dict)


@contextmanager
def open_source(
    images: Path | None, fer2013: Path | None, *, is_shop: bool, days: int
) -> Iterator[Source]:
    """The demo's input: FER2013, the photographs of a folder, or else drawn faces."""
    if fer2013 is not None:
        archive = fer2013 / "fer2013.tar.gz" if fer2013.is_dir() else fer2013
        if is_shop:
            print_progress(f"mixing the faces of FER2013 for {fer2013_shop.FACILITIES} shops")
            shops = fer2013_shop.load_fer2013_shops(archive)
            yield Source(f"{archive.resolve()} as shops", shops, lambda: [shops])
        else:
            print_progress("reading FER2013")
            facilities, labels = fer2013_day.load_fer2013_day(archive)
            yield Source(str(archive.resolve()), facilities, lambda: [facilities], labels)
    elif images is not None:
        shown = photographs.load_photographs_day(images)
        yield Source(str(images.resolve()), shown, lambda: [shown])
    else:
        print_progress(f"making {'a day' if days == 1 else f'{days} days'} of synthetic faces")
        with draw_days(days) as collect:
            yield Source(DRAWN, list_facilities(), collect)


def choose_day(stack: Stack, source: str) -> date:
    """Return the last capture day of a source, which has ended in every time zone.

    No two sources share one. Synthetic days end on a Sunday, so that 28 days are four ISO weeks.
    """
    file = stack.folder / "demo-days.json"
    chosen: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    if source not in chosen:
        day = datetime.now(UTC).date() - timedelta(days=2)
        while day.isoformat() in chosen.values() or (source == DRAWN and day.isoweekday() != 7):
            day -= timedelta(days=1)
        chosen[source] = day.isoformat()
        file.write_text(json.dumps(chosen))
    return date.fromisoformat(chosen[source])


def assign_days(
    facilities: Sequence[Sequence[DemoFacility]], last_day: date
) -> dict[date, Sequence[DemoFacility]]:
    """The facilities of each day by date, of which the last day comes first."""
    return {last_day - timedelta(days=age): of_day for age, of_day in enumerate(facilities)}
