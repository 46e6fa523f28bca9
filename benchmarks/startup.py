"""How long it takes until something happens: the DAG files, the command, a scoring process.

Each is started anew every time, in a process of its own, as Airflow or a person starts it; the
first start of each is not counted. By the clock, and in core-seconds, which a busy machine
changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.drawn import CROPS, DAY, FRAMES, crops_day, frames_day
from benchmarks.measuring import QUIET, Spread, as_plain, machine, result_path, write_json
from fer_batch import log, nightly
from fer_batch.demo.day import DemoFacility, registry_text
from fer_batch.records import Batch, KeyRange, Shard

ROUNDS, QUICK_ROUNDS = 5, 1
DAGS = Path(__file__).parents[1] / "dags"
ZONES = (
    "Africa/Cairo", "America/Bogota", "America/Chicago", "America/Denver", "America/Los_Angeles",
    "America/New_York", "America/Sao_Paulo", "America/Toronto", "Asia/Dubai", "Asia/Jakarta",
    "Asia/Kolkata", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tokyo",
    "Australia/Perth", "Australia/Sydney", "Europe/Berlin", "Europe/Istanbul", "Europe/Lisbon",
    "Europe/London", "Europe/Paris", "Pacific/Auckland", "UTC",
)  # fmt: skip
MANY_FACILITIES = 1000

HELP = "fer-batch --help"
SHIPPED = "DAG files, the registry that ships"
MANY = f"DAG files, {MANY_FACILITIES:,} facilities in {len(ZONES)} time zones"
SCORING = "scoring process: start, load, ask for work, end"
FIRST_FRAME = "scoring process that scores one frame"
LIMITS_S = {HELP: 0.4, SHIPPED: 1.0, MANY: 1.0, SCORING: 2.0, FIRST_FRAME: 2.0}

PARSE = """
import importlib, sys, time
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2].split():
    importlib.import_module(name)
own, clock = time.process_time(), time.perf_counter()
import satisfaction_nightly
print(time.perf_counter() - clock, time.process_time() - own, len(satisfaction_nightly.DAGS))
"""
"""Imports the DAG file as the DAG processor does; what it takes from Airflow is there already."""

OF_AIRFLOW = """
import sys
sys.path.insert(0, sys.argv[1])
import satisfaction_nightly
print(*(name for name in sys.modules if name == "airflow" or name.startswith("airflow.")))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One start: by the clock, and of the cores."""

    seconds: float
    core_s: float


def parsing(registry: Path, home: Path) -> Callable[[], Start]:
    """The import of the DAG file in a fresh process, Airflow's own modules left out."""
    environment = {
        "AIRFLOW_HOME": str(home),
        "FER_FACILITIES_FILE": str(registry),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }

    def start() -> Start:
        said = _output([sys.executable, "-c", PARSE, str(DAGS), of_airflow], environment)
        seconds, core_s, _ = said.split()
        return Start(float(seconds), float(core_s))

    of_airflow = _output([sys.executable, "-c", OF_AIRFLOW, str(DAGS)], environment).strip()
    return start


def helping() -> Start:
    """`fer-batch --help`, the script of the environment that runs this."""
    script = Path(sys.executable).with_name("fer-batch")
    return _timed(lambda: _output([str(script), "--help"], {}))


def scoring(run: nightly.Run, facility_id: str) -> Start:
    """A scoring process as a task starts it, over a facility's day: all of it that is left."""
    key_range = KeyRange(Batch(facility_id, DAY), "", "\U0010ffff", 1)
    return _timed(lambda: run.score(Shard(facility_id, (key_range,))))


def _timed(function: Callable[[], object]) -> Start:
    began, before = time.perf_counter(), os.times()
    function()
    seconds, after = time.perf_counter() - began, os.times()
    core_s = after.children_user - before.children_user
    return Start(seconds, core_s + after.children_system - before.children_system)


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def measure(stack: servers.Servers, folder: Path, rounds: int) -> dict[str, list[Start]]:
    """Every start in turn, round by round; the round before the first is not counted."""
    many = folder / "facilities.toml"
    many.write_text(_many_facilities())
    run = nightly.Run(stack.settings(), nightly.Selection(f"bench-{uuid.uuid4()}", DAY))
    run.sync_facilities()
    run.begin()

    def one_frame() -> Start:
        stack.forget_results()
        return scoring(run, FRAMES)

    starts: dict[str, Callable[[], Start]] = {
        HELP: helping,
        SHIPPED: parsing(DAGS.parent / "config" / "facilities.toml", folder),
        MANY: parsing(many, folder),
        SCORING: lambda: scoring(run, CROPS),  # its day was never listed: nothing to do
        FIRST_FRAME: one_frame,
    }
    of_frames = nightly.Run(
        stack.settings(), nightly.Selection(run.selection.run_id, DAY, facility_ids=(FRAMES,))
    )
    of_frames.list_images()
    found: dict[str, list[Start]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            took = start()
            if number:
                found[name].append(took)
        print(f"  round {number} of {rounds} done", flush=True)
    return found


def _many_facilities() -> str:
    return registry_text(
        [
            DemoFacility(f"shop-{n:04}", f"Shop {n}", ZONES[n % len(ZONES)], "crops", ())
            for n in range(MANY_FACILITIES)
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measures nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least 5")
    options = parser.parse_args()
    is_quick: bool = options.quick
    rounds = QUICK_ROUNDS if is_quick else max(options.rounds, ROUNDS)
    described = machine()
    log.configure("console", "warning")
    os.environ.update(QUIET)
    os.environ["FER_ENV_FILE"] = os.devnull
    print("starting the servers", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fer-batch-bench-") as folder,
        servers.running([crops_day(1), frames_day(2)]) as stack,
    ):
        found = measure(stack, Path(folder), rounds)
    seconds = {name: Spread.of([one.seconds for one in all_]) for name, all_ in found.items()}
    core_s = {name: Spread.of([one.core_s for one in all_]) for name, all_ in found.items()}
    print("\nseconds by the clock, median (min to max); core-seconds; limit")
    for name, spread in seconds.items():
        verdict = "kept" if spread.median < LIMITS_S[name] else "NOT KEPT"
        limit = f"under {LIMITS_S[name]} s: {verdict}"
        print(f"  {name:<52}{spread!s:<26}{core_s[name].median:>6.2f}   {limit}")
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": described,
        "rounds": rounds,
        "seconds": as_plain(seconds),
        "core_seconds": as_plain(core_s),
        "limits_s": LIMITS_S,
    }
    write_json(result_path("startup.json", is_quick=is_quick), json.loads(json.dumps(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
