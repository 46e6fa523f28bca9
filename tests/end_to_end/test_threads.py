"""One setting bounds the threads of a scoring process, whatever the machine has."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from fer_batch import worker
from fer_batch.jobs import Job
from fer_batch.settings import to_environment
from tests.end_to_end.conftest import Night, facility

SCORING_PROCESS = """
import ctypes, json, os, sys, threading, time
from pathlib import Path
import cv2
from fer_batch import log, scoring, settings

log.configure()

def blas():
    maps = Path("/proc/self/maps").read_text()
    (path,) = {line.split()[-1] for line in maps.splitlines() if "libscipy_openblas" in line}
    return ctypes.CDLL(path).scipy_openblas_get_num_threads64_()

def comm(task):
    try:
        return Path("/proc/self/task", task, "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return ""

def ours():
    return {str(t.native_id): t.name for t in threading.enumerate()}

def strangers():
    before = ours()
    others = {task: comm(task) for task in os.listdir("/proc/self/task")}
    known = before | ours()  # others may begin and end
    return {task: name for task, name in others.items() if task not in known and name}

def threads():
    lasting = strangers()
    for _ in range(10):  # one of ours that has ended for Python may still be ending for Linux
        time.sleep(0.02)
        now = strangers()
        lasting = {task: name for task, name in now.items() if task in lasting}
    clients = sum(name.startswith("tokio") for name in lasting.values())
    return {
        "opencv": cv2.getNumThreads(),
        "blas": blas(),
        "decoders": sum(name.startswith("decode") for name in ours().values()),
        "clients": clients,
        "libraries": len(lasting) - clients,
    }

write = scoring.ShardScorer.write

def noted(self, scores):  # while all of them are there
    Path(sys.argv[0]).with_suffix(".json").write_text(json.dumps(threads()))
    return write(self, scores)

scoring.ShardScorer.write = noted
slots = Path(sys.argv[sys.argv.index("--announce") + 1])
sys.exit(scoring.run_job(settings.load(), sys.stdin.read(), slots))
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_one_setting_bounds_the_threads_of_every_library(
    night: Night, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "TOKIO_WORKER"):
        monkeypatch.setenv(f"{library}_THREADS", "7")  # what the machine's environment says
    night = night.with_settings(threads=threads)
    night.registry(facility("a"))
    night.fill("a", happy=30, sad=10)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    script = tmp_path / "scoring_process.py"
    script.write_text(textwrap.dedent(SCORING_PROCESS))
    worker.score_shard(
        Job(shard, "test", run.model_version, run.selection.capture_day),
        worker.Limits(deadline_s=60, memory_mb=1500, image_s=60, threads=threads),
        {**to_environment(night.settings), "ORT_DISABLE_TELEMETRY": "1"},  # as the command has it
        (sys.executable, str(script)),
    )
    found = json.loads(script.with_suffix(".json").read_text())
    assert found["opencv"] == 1  # in each of the decoders
    assert 1 <= found["blas"] <= threads
    assert 1 <= found["decoders"] <= threads
    assert 1 <= found["clients"] <= threads
    # ONNX Runtime's, and those of the BLAS in NumPy and of the one in OpenCV: all but the first
    # of each, which is the thread that calls them.
    assert found["libraries"] <= 3 * (threads - 1)
