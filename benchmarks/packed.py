"""`python -m benchmarks.packed`: what it would gain to keep a thousand crops in one object.

The same crops lie in the bucket singly and in tar files of a thousand. Both are listed and fetched
by the reader that scoring uses, and the tar files are taken apart in memory. fer-batch reads no
packs: this tells what a provider with many small images could win by another layout.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.drawn import CROPS, DAY, crops_day
from benchmarks.measuring import Spread, as_plain, machine, result_path, write_json
from benchmarks.rounds import in_turn
from benchmarks.servers import Servers, running
from fer_batch import log
from fer_batch.demo.day import DemoFacility, DemoImage
from fer_batch.records import Batch, Image
from fer_batch.storage import BucketReader

PACKS = "bench-packs"
CROPS_OF_PACK = 1000
WAYS = {"one crop an object": CROPS, "a thousand crops an object": PACKS}


@dataclass(frozen=True, slots=True)
class Turn:
    """Listing and fetching all crops once."""

    crops: int
    requests: int
    seconds: float
    own_core_s: float
    s3_core_s: float


def packed(day: DemoFacility) -> DemoFacility:
    """The day's images in tar files, one after the other."""
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


def crops_in(facility_id: str, data: bytes) -> Iterator[bytes]:
    """The encoded crops of an object."""
    if facility_id == CROPS:
        yield data
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield file.read()


def turn(stack: Servers, facility_id: str) -> Turn:
    """List and fetch a facility's day; the core-seconds of this process and of the S3 server."""
    settings, batch = stack.settings(), Batch(facility_id, DAY)
    before, began, own = stack.core_s(), time.perf_counter(), time.process_time()
    with BucketReader(settings) as reader:
        listed = [
            Image(batch, found.key, found.etag, found.size_bytes)
            for found in reader.list(f"{facility_id}/{DAY}/")
        ]
        crops = 0
        for fetched in reader.fetch_many(listed):
            if fetched.data is None:
                raise RuntimeError(f"{fetched.image.key}: {fetched.reason}")
            crops += sum(1 for _ in crops_in(facility_id, fetched.data))
    pages = -(-len(listed) // 1000)
    return Turn(
        crops,
        len(listed) + pages,
        time.perf_counter() - began,
        time.process_time() - own,
        (stack.core_s() - before).s3,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    is_quick: bool = parser.parse_args().quick
    count, rounds = (200, 1) if is_quick else (20_000, 5)
    described = machine()
    log.configure("console", "warning")
    day = crops_day(count)
    turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
    with running([day, packed(day)]) as stack:
        for number, order in in_turn(list(WAYS), rounds):
            for name in order:
                turns[name].append(turn(stack, WAYS[name]))
            said = ", ".join(f"{n} {ts[-1].crops / ts[-1].seconds:,.0f}" for n, ts in turns.items())
            print(f"  round {number + 1} of {rounds}, crops/s: {said}", flush=True)
    rates = {name: Spread.of([t.crops / t.seconds for t in ts]) for name, ts in turns.items()}
    costs = {
        name: Spread.of([1000 * (t.own_core_s + t.s3_core_s) / t.crops for t in ts])
        for name, ts in turns.items()
    }
    single, pack = WAYS
    gain = Spread.of_ratios(rates[pack], rates[single])
    print("\ncrops/s listed and fetched, median (min to max); core-ms a crop; requests")
    for name, rate in rates.items():
        print(f"  {name:<30}{rate!s:<30}{costs[name].median:>8.3f}{turns[name][0].requests:>10,}")
    print(f"a thousand crops an object is {gain} times as fast to list and fetch")
    write_json(
        result_path("packed.json", is_quick=is_quick),
        {
            "is_quick": is_quick,
            "machine": described,
            "crops": count,
            "crops_per_s": as_plain(rates),
            "core_ms_per_crop": as_plain(costs),
            "requests": {name: ts[0].requests for name, ts in turns.items()},
            **as_plain({"times_as_fast": gain}),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
