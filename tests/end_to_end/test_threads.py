"""FER_THREADS limits the threads of a scoring process, whatever the number of cores."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from fer_batch.pipeline import supervisor
from fer_batch.pipeline.jobs import Job
from fer_batch.settings_sources import to_environment
from tests.fixtures.night import Night, format_facility

SCORING_PROCESS = """
import ctypes, json, os, sys, threading, time
from pathlib import Path
from fer_batch import log, settings_sources
from fer_batch.database import results
from fer_batch.pipeline import scoring

log.configure()

def count_blas_threads():
    maps = Path("/proc/self/maps").read_text()
    (path,) = {line.split()[-1] for line in maps.splitlines() if "libscipy_openblas" in line}
    return ctypes.CDLL(path).scipy_openblas_get_num_threads64_()

def read_thread_name(task):
    try:
        return Path("/proc/self/task", task, "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # the thread has ended
        return ""

def list_python_threads():
    return {str(t.native_id): t.name for t in threading.enumerate()}

def list_library_threads():
    before = list_python_threads()
    others = {task: read_thread_name(task) for task in os.listdir("/proc/self/task")}
    known = before | list_python_threads()  # Python threads may start and end meanwhile
    return {task: name for task, name in others.items() if task not in known and name}

def count_threads():
    lasting = list_library_threads()
    for _ in range(10):  # a thread that has ended in Python may still exist in Linux
        time.sleep(0.02)
        now = list_library_threads()
        lasting = {task: name for task, name in now.items() if task in lasting}
    clients = sum(name.startswith("tokio") for name in lasting.values())
    return {
        "blas": count_blas_threads(),
        "decoders": sum(name.startswith("decode") for name in list_python_threads().values()),
        "clients": clients,
        "libraries": len(lasting) - clients,
    }

write_chunk = results.write_chunk

def count_and_write(*args):  # at this moment all threads exist
    Path(sys.argv[0]).with_suffix(".json").write_text(json.dumps(count_threads()))
    return write_chunk(*args)

results.write_chunk = count_and_write
register = Path(sys.argv[sys.argv.index("--in-flight") + 1])
scoring.run_job(settings_sources.load_settings(), sys.stdin.read(), register)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_one_setting_limits_the_threads_of_every_library(
    night: Night, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "TOKIO_WORKER"):
        monkeypatch.setenv(f"{library}_THREADS", "7")  # from the environment of the machine
    night = night.with_settings(threads=threads)
    night.write_registry(format_facility("a"))
    night.fill("a", happy=30, sad=10)
    run = night.open()
    run.sync_facilities()
    run.list_images()
    (shard,) = run.plan_shards()
    script = tmp_path / "scoring_process.py"
    script.write_text(textwrap.dedent(SCORING_PROCESS))
    supervisor.score_shard(
        Job(shard, "test", run.model_version, run.selection.capture_day),
        supervisor.ProcessLimits(deadline_s=60, memory_mb=1500, threads=threads),
        {**to_environment(night.settings), "ORT_DISABLE_TELEMETRY": "1"},  # as the command sets it
        (sys.executable, str(script)),
    )
    counts = json.loads(script.with_suffix(".json").read_text())
    assert 1 <= counts["blas"] <= threads
    assert 1 <= counts["decoders"] <= threads
    assert 1 <= counts["clients"] <= threads
    # The pools of ONNX Runtime, of the BLAS in NumPy and of the BLAS in OpenCV, each without its
    # first thread, which is the calling thread.
    assert counts["libraries"] <= 3 * (threads - 1)
