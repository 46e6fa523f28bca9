"""The diagnosis of `fer-batch check`: tests everything that a run needs before the nightly run.

Each part is tested with the code that a run uses. A failure comes with a hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from fer_batch.cli.common import explain_error
from fer_batch.errors import ConfigurationError, FerError, StorageError
from fer_batch.facilities.loading import load_registry
from fer_batch.facilities.registry import Facility
from fer_batch.settings import Settings

LOOKBACK_DAYS = 3
"""The default of the DAG's parameter `lookback_days`."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result for one part. `detail` is its state, or the error with its hint."""

    part: str
    is_ok: bool
    detail: str


def diagnose(settings: Settings) -> list[Diagnosis]:
    """Test everything that a run needs; `run_checks` lists the parts."""
    return list(run_checks(settings))


def run_checks(settings: Settings) -> Iterator[Diagnosis]:
    """The same, one at a time."""
    database = _try("database", lambda: _check_database(settings))
    yield database
    if database.is_ok:
        yield _try("erasure secret", lambda: _check_erasure_secret(settings))
    else:
        yield Diagnosis("erasure secret", True, "not checked, without a database")
    yield _try("CNN", lambda: _check_cnn(settings))
    yield _try("face detector", lambda: _check_detector(settings))
    yield _try("decoder sandbox", lambda: _check_sandbox(settings))
    yield _try("Airflow", lambda: _check_airflow(settings))
    try:
        registry = load_registry(settings.facilities_file, settings)
    except FerError as error:
        yield Diagnosis("facility registry", False, explain_error(error))
        return
    try:
        registry.check()
    except FerError as error:  # the valid facilities are tested all the same
        yield Diagnosis("facility registry", False, explain_error(error))
    else:
        yield Diagnosis("facility registry", True, ", ".join(registry.facilities))
    for facility in registry.facilities.values():
        yield _try(f"facility {facility.facility_id}", partial(_check_facility, settings, facility))


def _try(part: str, check: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(part, True, check())
    except FerError as error:
        return Diagnosis(part, False, str(error))


def _check_database(settings: Settings) -> str:
    from fer_batch.database import connections, conninfo, privileges, schema
    from fer_batch.deletion import overdue

    warnings = []
    with schema.open_engine(settings) as engine:
        schema.check_writable(engine)
        with connections.transaction(engine) as connection:
            if excess := privileges.list_excess(connection):
                warnings.append(
                    f"the login {' and '.join(excess)}; a run needs fer_writer only. "
                    f"{privileges.LOGIN_HINT}"
                )
            today = datetime.now(UTC).date()
            warnings.append(overdue.describe_overdue(connection, settings.retention_days, today))
    place = conninfo.describe(conninfo.parse_url(settings))
    return f"{place} is up to date and may be written" + _format_warnings(warnings)


def _check_erasure_secret(settings: Settings) -> str:
    from fer_batch.database import connections, erased_keys, schema
    from fer_batch.database.erased_keys import CREATE_HINT, ErasureSecret

    secret = ErasureSecret(settings.erasure_secret)
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        erased_keys.check_secret(connection, secret)
        images = erased_keys.count_erased_keys(connection, secret)
    warning = _format_warnings([_describe_former_log(settings.erasure_log)])
    if secret.check is None:
        return f"FER_ERASURE_SECRET is not set, and no record needs it. {CREATE_HINT}{warning}"
    return f"FER_ERASURE_SECRET fits the records of {images} erased images{warning}"


def _describe_former_log(log: Path) -> str:
    """A warning if the log has lines that only an upgrade by a user who may write it converts."""
    from fer_batch.deletion import erasure_log

    try:
        former = erasure_log.count_former(log)
    except (ConfigurationError, OSError):  # those who do not erase need not be able to read it
        return ""
    if not former:
        return ""
    return (
        f"the erasure log {log} has the SHA-256 of keys, without the secret, in {former} of its "
        "lines. Run `fer-batch db upgrade` on this machine"
    )


def _format_warnings(warnings: Iterable[str]) -> str:
    return "".join(f". Warning: {warning}" for warning in warnings if warning)


def _check_cnn(settings: Settings) -> str:
    from fer_batch.model import active_model
    from fer_batch.model.classifier import Classifier

    active = active_model.load_active(settings)
    classifier = Classifier(settings, active.cnn)
    version = classifier.model_version[:12]
    return f"{classifier.card.name}, model version {version}: {active.why}"


def _check_detector(settings: Settings) -> str:
    from fer_batch.imaging.faces import FaceDetector

    FaceDetector(settings)
    return "YuNet is loaded"


def _check_sandbox(settings: Settings) -> str:
    from fer_batch.imaging.sandbox.decoders import Decoders

    with Decoders(settings) as decoders:
        missing = decoders.find_missing()
    if missing:
        return f"images are decoded with less protection; the kernel or container lacks: {missing}"
    return "images are decoded without access to files, network or other processes"


def _check_airflow(settings: Settings) -> str:
    from fer_batch.freshness import airflow, airflow_history

    client = airflow.create_client(settings)
    if client is None:
        return (
            "its history is not checked: set FER_AIRFLOW_URL, FER_AIRFLOW_USER and "
            "FER_AIRFLOW_PASSWORD"
        )
    today = datetime.now(UTC).date()
    warning = airflow_history.describe_overdue(client, settings.airflow_retention_days, today)
    return f"{client.url} answers" + _format_warnings([warning])


def _check_facility(settings: Settings, facility: Facility) -> str:
    now = datetime.now(UTC)
    today = facility.compute_local_day(now)
    strict_from = settings.strict_registry_from
    if denial_reason := facility.get_denial_reason(today, now, strict_from):
        # Without a permission, not even the bucket is accessed.
        return f"skipped: {denial_reason}"
    from fer_batch.pipeline import day_survey
    from fer_batch.storage.bucket_rules import ImageNeeds, judge
    from fer_batch.storage.reader import BucketReader

    with BucketReader(settings, facility) as reader:
        prefix = facility.build_day_keys(today).prefixes[0].head
        reader.check(prefix)
        # A key that does not exist: with read access S3 reports it as missing, without it denies.
        reader.exists(f"{prefix}fer-batch-check")
        survey = day_survey.survey_days(reader, facility, today, today - timedelta(days=1))
        if survey.is_suspicious and facility.empty_days == "error":
            raise StorageError(
                f"{reader.location} may be listed and read; {survey}",
                "Compare key_template with the keys in the bucket; if the facility has no images "
                'yet, set empty_days = "allowed"',
            )
        tls = "; it has no TLS (FER_S3_ALLOW_HTTP)" if reader.location.is_unencrypted else ""
        told = reader.read_rules()
        unknown = "".join(
            f"; {what} is not checked: {problem}"
            for what, problem in (
                ("what its lifecycle rules do", told.problem),
                ("whether it keeps old versions", told.versioning_problem),
            )
            if problem
        )
        needs = ImageNeeds(facility.list_key_beginnings(), LOOKBACK_DAYS, settings.retention_days)
        warnings = [facility.describe_gap(strict_from), *judge(told, needs, today)]
        state = f"{reader.location} may be listed and read; {survey}{tls}{unknown}"
        return state + _format_warnings(warnings)
