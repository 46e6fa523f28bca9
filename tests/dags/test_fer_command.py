"""The adapter of the DAGs: capture days, exit codes, logs, metrics and timeouts."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType  # what a task gets
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.context import set_current_context
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.timeout import timeout as airflow_timeout
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory


def build_context(
    logical: datetime | None, run_after: datetime, run_type: str = "manual", **params: Any
) -> dict[str, Any]:
    return {
        "params": {"capture_day": None, "lookback_days": 3, **params},
        "logical_date": logical,
        "dag_run": SimpleNamespace(run_after=run_after, run_type=DagRunType(run_type)),
    }


NIGHT = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)  # 03:00 on the 22nd in Tokyo


@pytest.mark.parametrize(
    ("given", "zone", "day"),
    [
        (build_context(NIGHT, NIGHT, "scheduled"), "Asia/Tokyo", date(2026, 11, 21)),
        (
            build_context(NIGHT, datetime(2026, 12, 1, tzinfo=UTC), "backfill"),
            "Asia/Tokyo",
            date(2026, 11, 21),
        ),
        (build_context(None, NIGHT), None, date(2026, 11, 20)),
        (build_context(None, NIGHT, "asset_triggered"), "Asia/Tokyo", date(2026, 11, 21)),
        (build_context(NIGHT, NIGHT, capture_day="2026-01-31"), "Asia/Tokyo", date(2026, 1, 31)),
    ],
    ids=["scheduled", "backfill", "by hand", "by an asset", "named"],
)
def test_the_capture_day_of_each_kind_of_run(
    fer_command: ModuleType, given: dict[str, Any], zone: str | None, day: date
) -> None:
    assert fer_command.derive_capture_day(given, zone) == day


def test_a_backfill_lists_no_earlier_days(fer_command: ModuleType) -> None:
    assert fer_command.derive_lookback_days(build_context(NIGHT, NIGHT, "scheduled")) == 3
    assert fer_command.derive_lookback_days(build_context(NIGHT, NIGHT, "backfill")) == 0


@pytest.fixture
def child(fer_command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the adapter start a script of the test instead of fer-batch."""
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    monkeypatch.setenv("FER_FACILITIES_FILE", str(tmp_path / "none.toml"))

    def write_script(body: str) -> None:
        (tmp_path / "body.py").write_text("import json, os, sys, time\n" + textwrap.dedent(body))
        interpreter = tmp_path / "python"
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/body.py "$@"\n')
        interpreter.chmod(0o755)
        monkeypatch.setenv("FER_PYTHON", str(interpreter))

    return write_script


def test_an_unknown_parameter_fails_with_the_known_ones(fer_command: ModuleType) -> None:
    def check(conf: dict[str, Any] | None) -> None:
        params = {"capture_day": None, "facilities": None}
        dag, run = SimpleNamespace(params=params), SimpleNamespace(conf=conf)
        fer_command.check_conf({"dag": dag, "dag_run": run})

    accepted: list[dict[str, Any] | None] = [None, {}, {"facilities": [], "capture_day": None}]
    for conf in accepted:
        check(conf)
    with pytest.raises(fer_command.PermanentFailureError, match="did you mean capture_day"):
        check({"captureday": "2026-11-28"})
    with pytest.raises(fer_command.PermanentFailureError, match="known: capture_day, facilities"):
        check({"xyz": 1})


def test_a_registry_with_a_fault_is_left_to_the_command(
    fer_settings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "facilities.toml"
    registry.write_text("[facility.a")
    os.utime(registry, (1, 1))
    monkeypatch.setenv("FER_FACILITIES_FILE", str(registry))
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    monkeypatch.setenv("FER_MAINTENANCE_DATABASE_URL", "postgresql://maintenance@db/fer")
    environment = fer_settings.build_environment(list(fer_settings.Secrets), None)
    assert environment["FER_FACILITIES_FILE"] == str(registry)


def test_stdout_of_the_command_is_the_return_value(fer_command: ModuleType, child: Any) -> None:
    child("print(json.dumps({'argv': sys.argv[1:], 'stdin': sys.stdin.read()}))")
    answer = fer_command.run_command("score", "--json", stdin="{}")
    assert answer["argv"][-2:] == ["score", "--json"]
    assert answer["stdin"] == "{}"


@pytest.mark.parametrize("given", ["", None])
def test_the_command_and_the_dags_read_the_same_registry(
    fer_command: ModuleType, child: Any, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    child("print(json.dumps(os.environ['FER_FACILITIES_FILE']))")
    if given is None:
        monkeypatch.delenv("FER_FACILITIES_FILE")
    else:
        monkeypatch.setenv("FER_FACILITIES_FILE", given)
    beside = Path(str(fer_command.__file__)).parent.parent / "config" / "facilities.toml"
    assert fer_command.run_command("list-images") == str(beside)


@pytest.mark.parametrize(
    ("code", "error", "is_permanent"),
    [
        (2, "PermanentFailureError", True),
        (3, "FindingsError", True),
        (1, "PermanentFailureError", True),
        (75, "RetryableFailureError", False),
    ],
)
def test_exit_codes_determine_whether_a_task_is_retried(
    fer_command: ModuleType, child: Any, code: int, error: str, is_permanent: bool
) -> None:
    child(
        f"""
        print(json.dumps({{"event": "no bucket called x", "level": "error"}}), file=sys.stderr)
        sys.exit({code})
        """
    )
    with pytest.raises(getattr(fer_command, error), match="no bucket called x") as caught:
        fer_command.run_command("list-images")
    decision = fer_command.RETRY_POLICY.evaluate(caught.value, 1, 4)
    assert (decision.action.value == "fail") is is_permanent


def test_a_killed_command_is_retried(fer_command: ModuleType, child: Any) -> None:
    child("os.kill(os.getpid(), 9)")
    with pytest.raises(fer_command.RetryableFailureError):
        fer_command.run_command("list-images")


def test_a_missing_interpreter_is_a_permanent_error(
    fer_command: ModuleType, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_PYTHON", "/nowhere/python")
    with pytest.raises(fer_command.PermanentFailureError, match="Set FER_PYTHON"):
        fer_command.run_command("list-images")


def test_retry_delays_grow_to_ten_minutes_with_jitter(fer_command: ModuleType) -> None:
    error = fer_command.RetryableFailureError("S3 is busy")
    waits = {
        number: {fer_command.RETRY_POLICY.evaluate(error, number, 6).retry_delay for _ in range(20)}
        for number in range(1, 12)
    }
    for number, delays in waits.items():
        middle = min(20 * 2 ** (number - 1), 600)
        assert len(delays) > 1
        assert all(0.75 * middle <= w.total_seconds() <= 1.25 * middle for w in delays)


@pytest.mark.parametrize("error", [AirflowTaskTimeout("time is up"), OSError("no API server")])
def test_unexpected_errors_are_retried(fer_command: ModuleType, error: BaseException) -> None:
    assert fer_command.RETRY_POLICY.evaluate(error, 1, 6).action.value == "retry"


def test_the_command_gets_the_time_left_of_its_task(fer_settings: ModuleType) -> None:
    def compute_limit(**task: Any) -> dict[str, str]:
        ti = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=15))
        context = {"task": SimpleNamespace(**task), "ti": ti}
        with set_current_context(context):
            return fer_settings.compute_time_limit()

    left = compute_limit(execution_timeout=timedelta(minutes=20))
    assert 240 < float(left["FER_TIME_LEFT_S"]) <= 300
    assert compute_limit(execution_timeout=timedelta(minutes=14)) == {"FER_TIME_LEFT_S": "1.0"}
    assert compute_limit(execution_timeout=None) == {}


def test_a_child_that_hangs_is_ended_at_the_timeout_of_the_task(
    fer_command: ModuleType, child: Any, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    child(
        f"""
        open({str(pid_file)!r}, 'w').write(str(os.getpid()))
        sys.stderr.close()  # so that no log line ends the wait
        time.sleep(600)
        """
    )
    with pytest.raises(AirflowTaskTimeout), airflow_timeout(seconds=5):
        fer_command.run_command("list-images")
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_log_lines_keep_their_level_and_details(
    fer_command: ModuleType, child: Any, caplog: pytest.LogCaptureFixture
) -> None:
    child(
        """
        print(json.dumps({"event": "scoring", "level": "info", "images": 7}), file=sys.stderr)
        print(json.dumps({"event": "odd", "level": "warning", "facility": "a"}), file=sys.stderr)
        place = {"facility": "a", "day": "2026-11-28"}
        failed = {"event": "not listed", "level": "error", "status": "failed"}
        print(json.dumps(failed | place | {"reason": "no bucket called x"}), file=sys.stderr)
        found = {"event": "finding", "level": "error", "check": "few", "facility_id": "a"}
        found |= {"capture_day": "2026-11-28", "meaning": "too few", "finding": "3 images"}
        print(json.dumps(found), file=sys.stderr)
        crash = {"event": "failed", "level": "error", "facility": "a", "error": "boom"}
        crash["exception"] = "Traceback (most recent call last)"
        print(json.dumps(crash), file=sys.stderr)
        print("plain text", file=sys.stderr)
        """
    )
    with caplog.at_level(logging.INFO):
        fer_command.run_command("score")
    lines = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert ("INFO", "scoring images=7") in lines
    assert ("WARNING", "a: odd") in lines
    assert ("ERROR", "a 2026-11-28: not listed: no bucket called x status=failed") in lines
    assert ("ERROR", "a 2026-11-28: finding: too few: 3 images check=few") in lines
    assert ("ERROR", "a: failed: boom\nTraceback (most recent call last)") in lines
    assert ("INFO", "plain text") in lines


PROGRESS = """
def line(event, images_per_s, remaining_s, **outcomes):
    facts = {"event": event, "level": "info", "images": sum(outcomes.values()), "of": 9}
    facts |= {"images_per_s": images_per_s, "remaining_s": remaining_s, "outcomes": outcomes}
    print(json.dumps(facts), file=sys.stderr, flush=True)

line("scoring", 0.0, None)
line("scoring", 4.0, 1, scored=5)
line("scoring", 0.0, None)  # the process died, and another one continues
line("scored", 2.0, 0, scored=3, no_face=1)
"""


@contextmanager
def statsd(monkeypatch: pytest.MonkeyPatch, **options: object) -> Iterator[socket.socket]:
    """A StatsD receiver, and an Airflow task that sends its metrics to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        port = receiver.getsockname()[1]
        settings = {"on": True, "host": "127.0.0.1", "port": port, "prefix": "airflow", **options}
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"AIRFLOW__METRICS__STATSD_{name.upper()}", str(value))
            # As Airflow's task runner does before it starts a task.
            stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
            task = RuntimeTaskInstance.model_construct(
                dag_id="nightly", task_id="score", map_index=2
            )
            with set_current_context({"ti": task}):
                yield receiver
        stats.initialize(factory=get_stats_factory(), export_legacy_names=True)


def receive_metrics(receiver: socket.socket) -> list[str]:
    """Return the received metrics. Datagrams on this machine arrive before the sender continues."""
    receiver.setblocking(False)
    metrics = []
    while True:
        try:
            metrics.append(receiver.recv(4096).decode())
        except BlockingIOError:
            return metrics


def test_progress_arrives_as_metrics_with_tags(
    fer_command: ModuleType, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(PROGRESS)
    with statsd(monkeypatch, influxdb_enabled=True) as receiver:
        fer_command.run_command("score")
        lines = receive_metrics(receiver)
    task = "dag_id=nightly,task_id=score"
    assert [line for line in lines if line.startswith("airflow.fer_batch.images,")] == [
        f"airflow.fer_batch.images,{task},outcome=scored:5|c",
        f"airflow.fer_batch.images,{task},outcome=scored:3|c",
        f"airflow.fer_batch.images,{task},outcome=no_face:1|c",
    ]
    gauges = [line for line in lines if line.endswith("|g")]
    rate = f"airflow.fer_batch.images_per_s,{task},map_index=2"
    left = f"airflow.fer_batch.remaining_s,{task},map_index=2"
    assert gauges == [
        f"{rate}:0.0|g",
        *(f"{rate}:4.0|g", f"{left}:1|g"),
        f"{rate}:0.0|g",
        *(f"{rate}:2.0|g", f"{left}:0|g"),
        *(f"{rate}:0|g", f"{left}:0|g"),  # the end
    ]


def test_statsd_without_tags_has_a_name_for_each_outcome(
    fer_command: ModuleType, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(PROGRESS)
    with statsd(monkeypatch) as receiver:
        fer_command.run_command("score")
        lines = receive_metrics(receiver)
    sums: dict[str, int] = {}
    for line in lines:
        if match := re.fullmatch(r"airflow\.fer_batch\.(images\S*):(\d+)\|c", line):
            sums[match[1]] = sums.get(match[1], 0) + int(match[2])
    assert sums == {"images": 9, "images.scored": 8, "images.no_face": 1}


def test_an_interrupted_task_ends_its_child(
    fer_command: ModuleType, child: Any, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    child(f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        fer_command.run_command("score")
    assert not Path(f"/proc/{pid_file.read_text()}").exists()
