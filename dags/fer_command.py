"""The adapter between Airflow and the `fer-batch` command.

Each task runs the command once, in the interpreter that has fer-batch installed (`FER_PYTHON`, by
default Airflow's own). Airflow and fer-batch therefore need not share packages. The adapter

- passes the settings in the child process's environment only (fer_settings.py);
- forwards the child's log lines to the task log, and returns its stdout as the return value;
- sends the progress of a scoring process as metrics, through Airflow's own channel;
- raises an exception for each exit code; RETRY_POLICY decides which are retried;
- ends the child process when the task ends.

It does not know what the commands do.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from typing import IO, Any
from zoneinfo import ZoneInfo

import fer_settings
from airflow.sdk import (
    ExceptionRetryPolicy,
    RetryAction,
    RetryDecision,
    RetryRule,
    get_current_context,
)
from airflow.sdk.observability import stats
from fer_connections import InvalidConnectionError
from fer_environment import Secrets

log = logging.getLogger("fer_batch")

ERROR_KEY = "error"
"""The XCom with the last error of a task that failed."""

EXIT_FINDINGS = 3
EXIT_RETRYABLE = 75

FIRST_RETRY_DELAY = timedelta(seconds=20)
MAX_RETRY_DELAY = timedelta(minutes=10)


class PermanentFailureError(Exception):
    """The command failed, and a retry without a change will not help."""


class FindingsError(PermanentFailureError):
    """The command is done, and found an error that a person should look at.

    `output` is the JSON that it printed, None if it printed nothing.
    """

    def __init__(self, message: str, output: Any) -> None:
        super().__init__(message)
        self.output = output


class RetryableFailureError(Exception):
    """The command failed with a transient error, or it was killed."""


class RetryPolicy(ExceptionRetryPolicy):
    """Exponential backoff with jitter for transient errors, immediate failure for permanent ones.

    Airflow's own backoff gives all map indices of a task the same delay, so that they would all
    retry a busy server at the same moment.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        decision = super().evaluate(exception, try_number, max_tries, context)
        if decision.action is not RetryAction.RETRY:
            return decision
        delay = min(FIRST_RETRY_DELAY * 2 ** (try_number - 1), MAX_RETRY_DELAY)
        jitter = random.uniform(0.75, 1.25)  # noqa: S311
        return RetryDecision.retry(delay * jitter, decision.reason)


RETRY_POLICY = RetryPolicy(
    rules=[
        RetryRule(
            exception=PermanentFailureError,
            action=RetryAction.FAIL,
            reason="permanent error: a retry without a change will not help",
        ),
        RetryRule(
            exception=RetryableFailureError,
            action=RetryAction.RETRY,
            reason="transient error",
        ),
    ],
    # Errors of Airflow itself, and a task that exceeded its time limit.
    default=RetryAction.RETRY,
)


@contextlib.contextmanager
def _keep_failure() -> Iterator[None]:
    """Keep the error of a task that fails before its command runs."""
    try:
        yield
    except PermanentFailureError as error:
        _keep_error(str(error))
        raise


@_keep_failure()
def check_conf(context: Any) -> None:
    """Raise PermanentFailureError if the run has a parameter that the DAG does not have.

    Airflow accepts any key in the configuration of a run. A misspelled `capture_day` would
    otherwise be a run of the default day.
    """
    known = list(context["dag"].params)
    for name in context["dag_run"].conf or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise PermanentFailureError(
                f"the configuration of the run has an unknown parameter {name!r} ({hint}). Trigger "
                "a new run with the right name"
            )


def derive_capture_day(context: Any, time_zone: str | None) -> date:
    """Return a run's capture day: its parameter, else the day before the run's local date.

    Nothing else derives it. A scheduled run and a backfill run have a logical date. A run that was
    triggered manually or by an asset may have none; then the time at which it was due counts.
    """
    if parameter := context["params"].get("capture_day"):
        return date.fromisoformat(parameter)
    moment = context.get("logical_date") or context["dag_run"].run_after
    return moment.astimezone(ZoneInfo(time_zone or "UTC")).date() - timedelta(days=1)


def derive_lookback_days(context: Any) -> int:
    """Return how many earlier days are listed again for late images; 0 in a backfill."""
    if context["dag_run"].run_type == "backfill":  # an enumeration of strings
        return 0
    return int(context["params"]["lookback_days"])


def run_command(
    *arguments: str,
    stdin: str = "",
    secrets: Collection[Secrets] = (),
    facilities: Collection[str] | None = None,
    limit_s: float | None = None,
) -> Any:
    """Run `fer-batch ARGUMENTS` and return the JSON that it printed, None if it printed nothing.

    It gets the login of the database and these secrets; of the keys that read images, those of
    `facilities`, or of all. It is ended after `limit_s`; None: its limit is that of the task, of
    which `ERROR_KEY` then has its last error. Raises PermanentFailureError, FindingsError or
    RetryableFailureError with its last error.
    """
    log.info("running fer-batch %s", " ".join(arguments))
    with tempfile.TemporaryFile("w+") as stdin_file, tempfile.TemporaryFile("w+") as stdout_file:
        stdin_file.write(stdin)
        stdin_file.seek(0)
        with _keep_failure() if limit_s is None else contextlib.nullcontext():
            environment = _build_environment(secrets, facilities, limit_s)
            child = _start_child(arguments, stdin_file, stdout_file, environment)
        timer = None if limit_s is None else threading.Timer(limit_s, child.kill)
        try:
            if timer is not None:
                timer.start()
            last_error, told = _forward_log(child)
            code = child.wait()
        finally:  # also if the task was cleared, marked, or exceeded its time limit
            if timer is not None:
                timer.cancel()
            _end_child(child)
        stdout_file.seek(0)
        output = stdout_file.read()
    if code in (0, EXIT_FINDINGS):
        result = json.loads(output) if output.strip() else None
    if code == 0:
        return result
    message = last_error or f"fer-batch {arguments[0]} ended with exit code {code}"
    if limit_s is None and code != EXIT_FINDINGS:
        _keep_error(told or message)
    if code == EXIT_FINDINGS:
        raise FindingsError(message, result)
    if code == EXIT_RETRYABLE or code < 0:
        raise RetryableFailureError(message)
    raise PermanentFailureError(message)


def _build_environment(
    secrets: Collection[Secrets], facilities: Collection[str] | None, limit_s: float | None
) -> dict[str, str]:
    try:
        return fer_settings.build_environment(secrets, facilities, limit_s)
    except InvalidConnectionError as error:
        raise PermanentFailureError(str(error)) from None


def _start_child(
    arguments: tuple[str, ...],
    stdin_file: IO[str],
    stdout_file: IO[str],
    environment: Mapping[str, str],
) -> subprocess.Popen[str]:
    """Start `fer-batch`; its stderr is a pipe."""
    interpreter = os.environ.get("FER_PYTHON") or sys.executable
    try:
        return subprocess.Popen(
            [interpreter, "-m", "fer_batch", f"--die-with-parent={os.getpid()}", *arguments],
            stdin=stdin_file,
            stdout=stdout_file,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=dict(environment),
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise PermanentFailureError(
            f"{interpreter} cannot be started: {error.strerror}. Set FER_PYTHON to the Python "
            "interpreter that has fer-batch installed"
        ) from None


def _end_child(child: subprocess.Popen[str]) -> None:
    """Terminate a child that still runs, and kill it after 10 s."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _keep_error(text: str) -> None:
    """Keep the error of a task for the message about its run; see fer_incidents.py."""
    with contextlib.suppress(Exception):  # the error itself counts
        get_current_context()["ti"].xcom_push(ERROR_KEY, text)


def _forward_log(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Log the child's lines as they arrive and report its progress.

    Returns its last error as the log has it, and without the facts, which may name images.
    """
    last_error = told = ""
    metrics = _ProgressMetrics()
    try:
        for line in child.stderr or ():
            try:
                entry = json.loads(line)
                event, level = entry.pop("event"), entry.pop("level")
            except (ValueError, KeyError, TypeError, AttributeError):
                log.info("%s", line.rstrip())
                continue
            for name in ("timestamp", "module"):
                entry.pop(name, None)
            text = _format_entry(event, entry)
            log.log(getattr(logging, level.upper(), logging.INFO), "%s", text)
            if level == "error":
                last_error, told = text, _format_entry(event, entry, with_facts=False)
            metrics.send(entry)
    finally:
        metrics.reset_gauges()
    return last_error, told


def _format_entry(event: str, entry: Mapping[str, Any], *, with_facts: bool = True) -> str:
    """Return a log line: facility and day, the event, its reason, then all other facts."""
    facts = dict(entry)
    traceback = facts.pop("exception", None)
    place = [
        str(value)
        for name in ("facility", "facility_id", "day", "capture_day")
        if (value := facts.pop(name, None))
    ]
    reasons = [
        str(value)
        for name in ("meaning", "finding", "reason", "error")
        if (value := facts.pop(name, None))
    ]
    head = ": ".join([*([" ".join(place)] if place else []), event, *reasons])
    if not with_facts:
        return head
    line = " ".join([head, *(f"{name}={value}" for name, value in facts.items())])
    return f"{line}\n{traceback}" if traceback else line


class _ProgressMetrics:
    """Sends the progress lines of a scoring process as metrics; docs/deploy.md lists them.

    The numbers of a line count from the start of its process, whose first line has no images yet.
    A counter gets the increase since the previous line.
    """

    GAUGES = ("images_per_s", "remaining_s")

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._has_gauges = False

    def send(self, entry: dict[str, Any]) -> None:
        """Send the metrics of a log line, if it reports progress."""
        if not {"images_per_s", "outcomes"} <= entry.keys():
            return
        outcomes = Counter(entry["outcomes"])
        tags = get_current_context()["ti"].stats_tags
        for outcome, count in (outcomes - self._counted).items():
            stats.incr("fer_batch.images", count, tags={**tags, "outcome": outcome})
            # StatsD without tags, Airflow's default, distinguishes outcomes only by this name.
            stats.incr(f"fer_batch.images.{outcome}", count, tags=tags)
        self._counted = outcomes
        self._send_gauges(entry)

    def reset_gauges(self) -> None:
        """Set the gauges to 0 when the process has ended: a gauge keeps its last value."""
        if self._has_gauges:
            self._send_gauges(dict.fromkeys(self.GAUGES, 0))

    def _send_gauges(self, entry: dict[str, Any]) -> None:
        ti = get_current_context()["ti"]
        for name in self.GAUGES:
            if entry.get(name) is not None:
                tags = {**ti.stats_tags, "map_index": str(ti.map_index)}
                stats.gauge(f"fer_batch.{name}", entry[name], tags=tags)
        self._has_gauges = True
