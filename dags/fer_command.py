"""The adapter between Airflow and the `fer-batch` command.

A task of ours is one call of the command in the interpreter that has fer-batch installed
(`FER_PYTHON`, else Airflow's own), so Airflow and fer-batch share no packages. The adapter

- hands Airflow's Connections over as settings, in the child's environment only;
- turns the child's log lines into lines of the task's log, and its stdout into the return value;
- sends what the lines say of a scoring process's progress as metrics through Airflow's own channel;
- turns exit codes into exceptions, of which RETRY_POLICY says whether they are tried again;
- ends the child when the task is ended.

Nothing here knows what the commands do.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import (
    ExceptionRetryPolicy,
    RetryAction,
    RetryDecision,
    RetryRule,
    get_current_context,
)
from airflow.sdk.observability import stats

log = logging.getLogger("fer_batch")

EXIT_FINDINGS = 3
EXIT_RETRYABLE = 75

FIRST_WAIT = timedelta(seconds=20)
LONGEST_WAIT = timedelta(minutes=10)


class PermanentFailureError(Exception):
    """The command says that trying again will not help until somebody changes something."""


class FindingsError(PermanentFailureError):
    """The work is done, and the data checks found something that needs a person."""


class RetryableFailureError(Exception):
    """The command says that it may work later, or it was killed."""


class RetryPolicy(ExceptionRetryPolicy):
    """Back-off with jitter for what is tried again, failure at once for what is not.

    Airflow's own back-off gives the map indices of a task one and the same wait, after which
    they would come back to a busy server together.
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
        wait = min(FIRST_WAIT * 2 ** (try_number - 1), LONGEST_WAIT)
        jitter = random.uniform(0.75, 1.25)  # noqa: S311
        return RetryDecision.retry(wait * jitter, decision.reason)


RETRY_POLICY = RetryPolicy(
    rules=[
        RetryRule(
            exception=PermanentFailureError,
            action=RetryAction.FAIL,
            reason="trying again does not help until somebody changes something",
        ),
        RetryRule(
            exception=RetryableFailureError,
            action=RetryAction.RETRY,
            reason="it may pass when tried again",
        ),
    ],
    # Airflow's own troubles, and a task that ran out of time.
    default=RetryAction.RETRY,
)


def registry_file() -> Path:
    """The facility registry: `FER_FACILITIES_FILE`, else the one beside the DAGs."""
    default = Path(__file__).parent.parent / "config" / "facilities.toml"
    return Path(os.environ.get("FER_FACILITIES_FILE") or default)


def registry() -> dict[str, dict[str, Any]]:
    """The facilities as written. What is wrong in it is said by `fer-batch check`, not here."""
    file = registry_file()
    return tomllib.loads(file.read_text()).get("facility", {}) if file.is_file() else {}


def time_zones() -> list[str]:
    """The time zones that have a facility, sorted."""
    return sorted({zone for f in registry().values() if (zone := f.get("time_zone"))})


def capture_day(context: Any, time_zone: str | None) -> date:
    """The day that a run is about: its parameter, else the day before the run's local date.

    This is the only place that derives it. A scheduled run and a backfill carry a logical
    date; a run made by hand or by an asset may carry none, then the moment it was due counts.
    """
    if named := context["params"].get("capture_day"):
        return date.fromisoformat(named)
    moment = context.get("logical_date") or context["dag_run"].run_after
    return moment.astimezone(ZoneInfo(time_zone or "UTC")).date() - timedelta(days=1)


def lookback_days(context: Any) -> int:
    """Days before the capture day that are looked at again for late images; none in a backfill."""
    if context["dag_run"].run_type == "backfill":  # an enumeration of strings
        return 0
    return int(context["params"]["lookback_days"])


def run(*arguments: str, stdin: str = "") -> Any:
    """Run `fer-batch ARGUMENTS --json` and return what it printed.

    Raises PermanentFailureError, FindingsError or RetryableFailureError with what it said.
    """
    command = [os.environ.get("FER_PYTHON", sys.executable), "-m", "fer_batch"]
    command += [f"--die-with-parent={os.getpid()}", *arguments]
    log.info("running fer-batch %s", " ".join(arguments))
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as printed:
        given.write(stdin)
        given.seek(0)
        try:
            child = subprocess.Popen(
                command,
                stdin=given,
                stdout=printed,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={
                    **os.environ,
                    **connection_settings(),
                    **time_limit(),
                    "FER_FACILITIES_FILE": str(registry_file()),
                    "FER_LOG_FORMAT": "json",
                },
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise PermanentFailureError(
                f"{command[0]} cannot be started: {error.strerror}. Set FER_PYTHON to the Python "
                "that has fer-batch"
            ) from None
        try:
            last_error = _pass_on(child)
            code = child.wait()
        finally:  # a task that is cleared, marked or out of time takes its child along
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        printed.seek(0)
        answer = printed.read()
    if code == 0:
        return json.loads(answer) if answer.strip() else None
    said = last_error or f"fer-batch {arguments[0]} ended with exit code {code}"
    if code == EXIT_FINDINGS:
        raise FindingsError(said)
    if code == EXIT_RETRYABLE or code < 0:
        raise RetryableFailureError(said)
    raise PermanentFailureError(said)


def _pass_on(child: subprocess.Popen[str]) -> str:
    """Log the child's lines as they come, and count its progress; returns its last error."""
    last_error = ""
    progress = _Progress()
    try:
        for line in child.stderr or ():
            try:
                entry = json.loads(line)
                event, level = entry.pop("event"), entry.pop("level")
            except (ValueError, KeyError, TypeError, AttributeError):
                log.info("%s", line.rstrip())
                continue
            for noise in ("timestamp", "module"):
                entry.pop(noise, None)
            text = " ".join([event, *(f"{name}={value}" for name, value in entry.items())])
            log.log(getattr(logging, level.upper(), logging.INFO), "%s", text)
            if level == "error":
                last_error = text
            progress.add(entry)
    finally:
        progress.end()
    return last_error


class _Progress:
    """A scoring process's progress lines as metrics. Their names and units are in docs/deploy.md.

    A line counts from the start of its process, whose first line counts nothing; a counter takes
    what came since the line before.
    """

    GAUGES = ("images_per_s", "remaining_s")

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._is_shown = False

    def add(self, entry: dict[str, Any]) -> None:
        """Send what a log line says, if it is one of progress."""
        if not {"images_per_s", "outcomes"} <= entry.keys():
            return
        outcomes = Counter(entry["outcomes"])
        tags = get_current_context()["ti"].stats_tags
        for outcome, count in (outcomes - self._counted).items():
            stats.incr("fer_batch.images", count, tags={**tags, "outcome": outcome})
            # StatsD without tags, Airflow's default, tells outcomes apart by this one alone.
            stats.incr(f"fer_batch.images.{outcome}", count, tags=tags)
        self._counted = outcomes
        self._show(entry)

    def end(self) -> None:
        """The process is gone: nothing is scored any more, and a gauge keeps its last value."""
        if self._is_shown:
            self._show(dict.fromkeys(self.GAUGES, 0))

    def _show(self, entry: dict[str, Any]) -> None:
        ti = get_current_context()["ti"]
        for name in self.GAUGES:
            if entry.get(name) is not None:
                tags = {**ti.stats_tags, "map_index": str(ti.map_index)}
                stats.gauge(f"fer_batch.{name}", entry[name], tags=tags)
        self._is_shown = True


def time_limit() -> dict[str, str]:
    """What is left to the task of its `execution_timeout`, as a setting; {} where it has none.

    fer-batch keeps its own time limits within it.
    """
    context = get_current_context()
    limit: timedelta | None = context["task"].execution_timeout
    if limit is None:
        return {}
    began = context["ti"].start_date or datetime.now(UTC)
    left = limit - (datetime.now(UTC) - began)
    return {"FER_TIME_LEFT_S": f"{max(left.total_seconds(), 1.0):.1f}"}


def connection_settings() -> dict[str, str]:
    """Settings out of the Connections `fer_postgres`, `fer_s3` and `fer_s3_<credentials>`.

    A Connection that does not exist leaves the setting to the environment.
    """
    settings: dict[str, str] = {}
    if database := _connection("fer_postgres"):
        settings["FER_DATABASE_URL"] = database.get_uri().replace("postgres://", "postgresql://")
    if s3 := _connection("fer_s3"):
        extra = s3.extra_dejson
        settings |= _s3_keys(s3, "FER_S3_")
        if endpoint := extra.get("endpoint_url"):
            settings["FER_S3_ENDPOINT"] = endpoint
        if region := extra.get("region_name"):
            settings["FER_S3_REGION"] = region
        if isinstance(extra.get("verify"), str):
            settings["FER_S3_CA_BUNDLE"] = extra["verify"]
    for name in {f["credentials"] for f in registry().values() if f.get("credentials")}:
        if keys := _connection(f"fer_s3_{name}"):
            settings |= _s3_keys(keys, f"FER_S3_CREDENTIALS__{name.upper()}__")
    return settings


def _connection(name: str) -> Any | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def _s3_keys(connection: Any, prefix: str) -> dict[str, str]:
    """The keys of an AWS Connection; one that assumes a role is resolved by Airflow's own hook."""
    extra = connection.extra_dejson
    key, secret = connection.login, connection.password
    token = extra.get("aws_session_token")
    if extra.get("role_arn") or extra.get("profile_name"):
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        found = AwsBaseHook(aws_conn_id=connection.conn_id, client_type="s3").get_credentials()
        key, secret, token = found.access_key, found.secret_key, found.token
    settings = {}
    if key and secret:
        settings = {f"{prefix}ACCESS_KEY_ID": key, f"{prefix}SECRET_ACCESS_KEY": secret}
        if token:
            settings[f"{prefix}SESSION_TOKEN"] = token
    return settings
