"""A sampling profile of the core-seconds of the process that scores a day.

Two hundred times a second, the processor time that every Python thread used since the last sample
is attributed to the innermost function of fer-batch on its stack, together with the innermost
function of all. Threads of the runtime and of the S3 client, which Python does not know, are
distinguished by their names. Sampling itself takes some of the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import contestants, servers
from benchmarks.again import build_repeated_day
from benchmarks.drawn import CROPS, FRAMES, build_frames_day
from benchmarks.measuring import QUIET, build_result_path, describe_machine, write_json
from fer_batch import log

IMAGES = {"crops": 20_000, "frames": 600}
QUICK_IMAGES = {"crops": 300, "frames": 10}
INTERVAL_S = 0.005
PACKAGE = str(Path(log.__file__).parent)
SHOWN = 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Sampler(threading.Thread):
    """Core-seconds by function, of all Python threads except this one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.core_s: Counter[tuple[str, str]] = Counter()
        self._used: dict[int, float] = {}
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            stacks = sys._current_frames()
            for thread in threading.enumerate():
                if thread is self or thread.ident is None or thread.ident not in stacks:
                    continue
                try:
                    used = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                except OSError:  # the thread has just ended
                    continue
                before = self._used.get(thread.ident, used)
                # A thread id can be reused by a new thread, whose clock starts at 0.
                self.core_s[_attribute_frame(stacks[thread.ident])] += max(used - before, 0.0)  # type: ignore[assignment]
                self._used[thread.ident] = used

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def _attribute_frame(frame: FrameType | None) -> tuple[str, str]:
    """The innermost function of fer-batch on the stack, and the innermost function of all."""
    leaf = ours = ""
    while frame is not None and not ours:
        name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        leaf = leaf or name
        if frame.f_code.co_filename.startswith(PACKAGE):
            ours = name
        frame = frame.f_back
    return ours or "elsewhere", leaf


def _read_thread_core_s() -> Counter[str]:
    """Core-seconds of the threads of this process by the kernel's names for them."""
    core_s: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            text = (task / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        user, system = rest.split()[11:13]
        core_s[name] += (int(user) + int(system)) / _TICKS  # type: ignore[assignment]
    return core_s


def profile(facility_id: str, count: int) -> dict[str, Any]:
    """Score a facility's day in this process under the sampler."""
    work = contestants.make_fer_batch(facility_id)
    before, began, native = time.process_time(), time.perf_counter(), _read_thread_core_s()
    sampler = Sampler()
    sampler.start()
    try:
        done = work()
    finally:
        sampler.stop()
    core_s, seconds = time.process_time() - before, time.perf_counter() - began
    if done != count:
        raise RuntimeError(f"{done} of {count} images were scored")
    by_name = _read_thread_core_s() - native
    return {
        "images": count,
        "seconds": round(seconds, 2),
        "core_ms_per_image": round(1000 * core_s / count, 4),
        "python_core_ms_per_image": {
            f"{ours} ({leaf})": round(1000 * s / count, 4)
            for (ours, leaf), s in sampler.core_s.most_common()
            if s / core_s > 0.002
        },
        "threads_core_ms_per_image": {
            name: round(1000 * s / count, 4) for name, s in by_name.most_common()
        },
    }


def show(kind: str, figures: dict[str, Any]) -> None:
    total = figures["core_ms_per_image"]
    print(f"\n{kind}: {figures['images']} images, {total:.3f} core-ms each in this process")
    print("  function of fer-batch (innermost function), core-ms per image, share")
    for name, core_ms in list(figures["python_core_ms_per_image"].items())[:SHOWN]:
        print(f"  {name:<70}{core_ms:>8.3f}{core_ms / total:>7.0%}")
    print("  threads alive at the end, by the kernel's name for them")
    for name, core_ms in figures["threads_core_ms_per_image"].items():
        print(f"  {name:<70}{core_ms:>8.3f}{core_ms / total:>7.0%}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    options = parser.parse_args()
    is_quick: bool = options.quick
    counts = QUICK_IMAGES if is_quick else IMAGES
    machine_facts = describe_machine()
    log.configure("console", "warning")
    print("drawing the day, starting the servers", flush=True)
    days = [build_repeated_day(counts["crops"]), build_frames_day(counts["frames"])]
    result: dict[str, Any] = {"is_quick": is_quick, "machine": machine_facts}
    with servers.running(days) as stack:
        os.environ.update(QUIET | stack.build_environment())
        for kind, facility_id in (("crops", CROPS), ("frames", FRAMES)):
            result[kind] = profile(facility_id, counts[kind])
            show(kind, result[kind])
    write_json(build_result_path("profile.json", is_quick=is_quick), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
