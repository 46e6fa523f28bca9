"""Start times: importing the DAG files, the command line, a scoring process.

Each start is a new process, as Airflow or a person starts it; the first start of each is not
counted. Measured in elapsed seconds and in core-seconds, which depend less on other load.
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
from benchmarks.drawn import CROPS, DAY, FRAMES, build_crops_day, build_frames_day
from benchmarks.measuring import (
    QUIET,
    Spread,
    build_result_path,
    convert_spreads,
    describe_machine,
    write_json,
)
from fer_batch import log
from fer_batch.local.demo.day import DemoFacility, format_registry
from fer_batch.pipeline import nightly
from fer_batch.pipeline.selection import Selection
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
"""Imports the DAG file as the DAG processor does, after the modules of Airflow are imported."""

LIST_AIRFLOW_MODULES = """
import sys
sys.path.insert(0, sys.argv[1])
import satisfaction_nightly
print(*(name for name in sys.modules if name == "airflow" or name.startswith("airflow.")))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """The elapsed seconds and core-seconds of one start."""

    seconds: float
    core_s: float


def build_parsing_start(registry: Path, home: Path) -> Callable[[], Start]:
    """A function that measures the import of the DAG file in a new process, without Airflow's own
    modules."""
    environment = {
        "AIRFLOW_HOME": str(home),
        "FER_FACILITIES_FILE": str(registry),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }

    def start() -> Start:
        output = _run_command(
            [sys.executable, "-c", PARSE, str(DAGS), airflow_modules], environment
        )
        seconds, core_s, _ = output.split()
        return Start(float(seconds), float(core_s))

    airflow_modules = _run_command(
        [sys.executable, "-c", LIST_AIRFLOW_MODULES, str(DAGS)], environment
    ).strip()
    return start


def time_help() -> Start:
    """Measure `fer-batch --help`, with the script of the running environment."""
    script = Path(sys.executable).with_name("fer-batch")
    return _time_call(lambda: _run_command([str(script), "--help"], {}))


def time_scoring(run: nightly.Run, facility_id: str) -> Start:
    """Measure a scoring process, started as a task starts it, over the unscored images of a day."""
    key_range = KeyRange(Batch(facility_id, DAY), "", "\U0010ffff", 1)
    return _time_call(lambda: run.score_shard(Shard(facility_id, (key_range,))))


def _time_call(function: Callable[[], object]) -> Start:
    began, before = time.perf_counter(), os.times()
    function()
    seconds, after = time.perf_counter() - began, os.times()
    core_s = after.children_user - before.children_user
    return Start(seconds, core_s + after.children_system - before.children_system)


def _run_command(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def measure(stack: servers.Servers, folder: Path, rounds: int) -> dict[str, list[Start]]:
    """Measure every start in each round; a warm-up round before them is not counted."""
    many = folder / "facilities.toml"
    many.write_text(_format_many_facilities())
    run = nightly.Run(stack.build_settings(), Selection(f"bench-{uuid.uuid4()}", DAY))
    run.sync_facilities()
    run.begin()

    def time_first_frame() -> Start:
        stack.empty_results()
        return time_scoring(run, FRAMES)

    starts: dict[str, Callable[[], Start]] = {
        HELP: time_help,
        SHIPPED: build_parsing_start(DAGS.parent / "config" / "facilities.toml", folder),
        MANY: build_parsing_start(many, folder),
        SCORING: lambda: time_scoring(run, CROPS),  # its day was never listed: nothing to do
        FIRST_FRAME: time_first_frame,
    }
    of_frames = nightly.Run(
        stack.build_settings(), Selection(run.selection.run_id, DAY, facility_ids=(FRAMES,))
    )
    of_frames.list_images()
    measured: dict[str, list[Start]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            timed = start()
            if number:
                measured[name].append(timed)
        print(f"  round {number} of {rounds} done", flush=True)
    return measured


def _format_many_facilities() -> str:
    return format_registry(
        [
            DemoFacility(f"shop-{n:04}", f"Shop {n}", ZONES[n % len(ZONES)], "crops", ())
            for n in range(MANY_FACILITIES)
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="at least 5 (default %(default)s)"
    )
    options = parser.parse_args()
    is_quick: bool = options.quick
    rounds = QUICK_ROUNDS if is_quick else max(options.rounds, ROUNDS)
    machine_facts = describe_machine()
    log.configure("console", "warning")
    os.environ.update(QUIET)
    os.environ["FER_ENV_FILE"] = os.devnull
    print("starting the servers", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fer-batch-bench-") as folder,
        servers.running([build_crops_day(1), build_frames_day(2)]) as stack,
    ):
        measured = measure(stack, Path(folder), rounds)
    seconds = {
        name: Spread.from_values([start.seconds for start in starts])
        for name, starts in measured.items()
    }
    core_s = {
        name: Spread.from_values([start.core_s for start in starts])
        for name, starts in measured.items()
    }
    print("\nelapsed seconds, median (min to max); core-seconds; limit")
    for name, spread in seconds.items():
        verdict = "met" if spread.median < LIMITS_S[name] else "NOT MET"
        limit = f"under {LIMITS_S[name]} s: {verdict}"
        print(f"  {name:<52}{spread!s:<26}{core_s[name].median:>6.2f}   {limit}")
    result: dict[str, Any] = {
        "is_quick": is_quick,
        "machine": machine_facts,
        "rounds": rounds,
        "seconds": convert_spreads(seconds),
        "core_seconds": convert_spreads(core_s),
        "limits_s": LIMITS_S,
    }
    write_json(build_result_path("startup.json", is_quick=is_quick), json.loads(json.dumps(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
