"""`python -m benchmarks.packed`: the gain of storing a thousand crops in one object.

The same crops are in the bucket as single objects and in tar files of a thousand. Both are listed
and fetched with the reader that scoring uses, and the tar files are unpacked in memory. fer-batch
does not read archives: this estimates what a facility with many small images would gain.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.drawn import CROPS, DAY, build_crops_day
from benchmarks.measuring import (
    Spread,
    build_result_path,
    convert_spreads,
    describe_machine,
    write_json,
)
from benchmarks.rounds import rotate_order
from benchmarks.servers import Servers, running
from fer_batch import log
from fer_batch.local.demo.day import DemoFacility, DemoImage
from fer_batch.records import Batch, FetchedImage, Image
from fer_batch.storage.reader import BucketReader

PACKS = "bench-packs"
CROPS_OF_PACK = 1000
WAYS = {"one crop an object": CROPS, "a thousand crops an object": PACKS}


@dataclass(frozen=True, slots=True)
class Turn:
    """The cost of listing and fetching all crops once."""

    crops: int
    requests: int
    seconds: float
    own_core_s: float
    s3_core_s: float


def pack_day(day: DemoFacility) -> DemoFacility:
    """The images of the day in tar files."""
    packs = []
    for start in range(0, len(day.images), CROPS_OF_PACK):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for image in day.images[start : start + CROPS_OF_PACK]:
                member = tarfile.TarInfo(image.name)
                member.size = len(image.data)
                tar.addfile(member, io.BytesIO(image.data))
        packs.append(DemoImage(f"pack-{start:07}.tar", file.getvalue()))
    return DemoFacility(PACKS, "Packs", "UTC", "crops", packs)


def extract_crops(facility_id: str, data: bytes) -> Iterator[bytes]:
    """The encoded crops in the bytes of an object."""
    if facility_id == CROPS:
        yield data
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield file.read()


def run_turn(stack: Servers, facility_id: str) -> Turn:
    """List and fetch a facility's day. Raises RuntimeError if an object cannot be fetched."""
    settings, batch = stack.build_settings(), Batch(facility_id, DAY)
    before, began, own = stack.measure_core_s(), time.perf_counter(), time.process_time()
    with BucketReader(settings) as reader:
        listed = [
            Image(batch, entry.key, entry.etag, entry.size_bytes)
            for entry in reader.list(f"{facility_id}/{DAY}/")
        ]
        crops = 0
        for fetched in reader.fetch_many(listed):
            if not isinstance(fetched, FetchedImage):
                raise RuntimeError(f"{fetched.image.key}: {fetched.reason}")
            crops += sum(1 for _ in extract_crops(facility_id, fetched.data))
    pages = -(-len(listed) // 1000)
    return Turn(
        crops,
        len(listed) + pages,
        time.perf_counter() - began,
        time.process_time() - own,
        (stack.measure_core_s() - before).s3,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    is_quick: bool = parser.parse_args().quick
    count, rounds = (200, 1) if is_quick else (20_000, 5)
    machine_facts = describe_machine()
    log.configure("console", "warning")
    day = build_crops_day(count)
    turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
    with running([day, pack_day(day)]) as stack:
        for number, order in rotate_order(list(WAYS), rounds):
            for name in order:
                turns[name].append(run_turn(stack, WAYS[name]))
            latest = ", ".join(
                f"{n} {facility_turns[-1].crops / facility_turns[-1].seconds:,.0f}"
                for n, facility_turns in turns.items()
            )
            print(f"  round {number + 1} of {rounds}, crops/s: {latest}", flush=True)
    rates = {
        name: Spread.from_values([t.crops / t.seconds for t in facility_turns])
        for name, facility_turns in turns.items()
    }
    costs = {
        name: Spread.from_values(
            [1000 * (t.own_core_s + t.s3_core_s) / t.crops for t in facility_turns]
        )
        for name, facility_turns in turns.items()
    }
    single, pack = WAYS
    gain = Spread.from_ratios(rates[pack], rates[single])
    print("\ncrops/s listed and fetched, median (min to max); core-ms per crop; requests")
    for name, rate in rates.items():
        print(f"  {name:<30}{rate!s:<30}{costs[name].median:>8.3f}{turns[name][0].requests:>10,}")
    print(f"with a thousand crops per object, listing and fetching is {gain} times as fast")
    write_json(
        build_result_path("packed.json", is_quick=is_quick),
        {
            "is_quick": is_quick,
            "machine": machine_facts,
            "crops": count,
            "crops_per_s": convert_spreads(rates),
            "core_ms_per_crop": convert_spreads(costs),
            "requests": {
                name: facility_turns[0].requests for name, facility_turns in turns.items()
            },
            **convert_spreads({"times_as_fast": gain}),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
