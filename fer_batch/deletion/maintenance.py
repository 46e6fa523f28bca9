"""Maintenance: everything that is older than its period is deleted, one kind of data after another.

Which kinds there are, and why a kind comes before another, stands here; how each is deleted is left
to retention.py, expired_rows.py and expired_files.py. A kind that fails does not keep the others
from being deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial

import sqlalchemy as sa

from fer_batch.database import connections, schema
from fer_batch.database.postgres_errors import PRIVILEGE_HINT
from fer_batch.database.statements import load_statements
from fer_batch.deletion import expired_files, expired_rows, retention
from fer_batch.deletion.expired import Expired
from fer_batch.errors import (
    ConfigurationError,
    DatabaseError,
    FerError,
    PermanentError,
    RetryableError,
    explain_exception,
)
from fer_batch.log import get_logger
from fer_batch.settings import Settings

log = get_logger(__name__)

IMAGES = "rows per image and face"
MAX_CLOCK_DIFFERENCE = timedelta(days=1)
"""By how much the clocks of this machine and of the database may differ: midnight may pass."""

MAX_PAUSE = timedelta(days=31)
"""For how long nights and maintenance may pause before a clock that is ahead is suspected."""

_STATEMENTS = load_statements(__file__)


def find(
    settings: Settings, today: date, *, after_pause: bool = False
) -> tuple[list[Expired], list[FerError]]:
    """What has expired, by kind, and the errors of kinds that cannot be read.

    `today` and `after_pause` are as in `delete`. Nothing is written. Raises what `delete` raises.
    """
    with _connect(settings, today, after_pause) as (target, today):
        steps = [
            *(
                partial(expired_rows.find, target, kind, settings, today)
                for kind in expired_rows.KINDS
            ),
            *(partial(kind.find, today) for kind in expired_files.list_kinds(settings)),
            partial(_find_images, target, settings, today),
        ]
        return _try_each(steps)


def delete(
    settings: Settings, today: date, *, after_pause: bool = False
) -> tuple[list[Expired], list[FerError]]:
    """Delete what has expired; returns how much, by kind, and the errors.

    `today` is the day (UTC) by the clock of this machine. The database has another: the earlier day
    counts. It may be interrupted at any time and run again. Raises ConfigurationError if the days
    differ by more than `MAX_CLOCK_DIFFERENCE`, or if the newest images and the last maintenance
    are older than `MAX_PAUSE`, unless `after_pause` confirms the day; DatabaseError if the database
    is not migrated or the login may not delete; and DatabaseUnavailableError.
    """
    with _connect(settings, today, after_pause) as (target, today):
        steps = [
            partial(_delete_summaries, target, settings, today),
            *(
                partial(expired_rows.delete, target, kind, settings, today)
                for kind in expired_rows.KINDS[1:]
            ),
            # After the summaries: the exported files follow from those that are left.
            *(partial(kind.delete, today) for kind in expired_files.list_kinds(settings)),
            # Last: the first run may have days of years to drop, for hours.
            partial(_delete_images, target, settings, today),
        ]
        return _try_each(steps)


def join_errors(errors: Sequence[FerError]) -> FerError:
    """One error for those of several kinds; it is transient if each of them is."""
    if len(errors) == 1:
        return errors[0]
    text = "; ".join(dict.fromkeys(str(error) for error in errors))
    if all(isinstance(error, RetryableError) for error in errors):
        return RetryableError(text)
    return PermanentError(text)


@contextmanager
def _connect(
    settings: Settings, today: date, after_pause: bool
) -> Iterator[tuple[sa.Engine, date]]:
    """The engine, and the day by which it is decided what has expired."""
    with schema.open_engine(settings) as target:
        with connections.transaction(target) as connection:
            found = connection.execute(_STATEMENTS["inspect"]).one()
        if not found.may_delete:
            raise DatabaseError(
                "permission denied: the login may not delete what has expired", PRIVILEGE_HINT
            )
        if abs(found.today - today) > MAX_CLOCK_DIFFERENCE:
            raise ConfigurationError(
                f"it is {today} by the clock of this machine, but {found.today} by that of the "
                "database: nothing was deleted",
                "Correct the clock that is wrong, such as with NTP",
            )
        day = min(today, found.today)
        if not after_pause:
            _check_pause(target, day)
        yield target, day


def _check_pause(target: sa.Engine, today: date) -> None:
    """Raise ConfigurationError if the day may be wrong although both clocks tell it.

    They are one clock if the database is on this machine.
    """
    with connections.transaction(target) as connection:
        last = connection.execute(_STATEMENTS["find_last_sign"]).scalar_one()
    if last is not None and today - last > MAX_PAUSE:
        raise ConfigurationError(
            f"it is {today} by the clock, but the newest images or the last maintenance are of "
            f"{last}: nothing was deleted",
            "If the clock is ahead, correct it. If there was such a pause, trigger one run of "
            "satisfaction_maintenance with after_pause, or use `fer-batch maintain --after-pause`",
        )


def _try_each(
    steps: Sequence[Callable[[], Expired]],
) -> tuple[list[Expired], list[FerError]]:
    done: list[Expired] = []
    errors: list[FerError] = []
    for step in steps:
        try:
            done.append(step())
        except FerError as error:
            log.warning("not deleted", error=str(error))
            errors.append(error)
        except Exception as error:
            log.exception("not deleted")
            errors.append(PermanentError(explain_exception(error)))
    return done, errors


def _find_images(target: sa.Engine, settings: Settings, today: date) -> Expired:
    before = _compute_images_before(settings, today)
    return _describe_images(before, retention.find_expired(target, before))


def _delete_images(target: sa.Engine, settings: Settings, today: date) -> Expired:
    before = _compute_images_before(settings, today)
    return _describe_images(before, retention.retain(target, before))


def _delete_summaries(target: sa.Engine, settings: Settings, today: date) -> Expired:
    # A summary can be written again as long as the rows per image are allowed to exist.
    retention.set_horizon(target, "rows", _compute_images_before(settings, today))
    before = expired_rows.SUMMARIES.compute_before(settings, today)
    retention.set_horizon(target, "summaries", before)
    return expired_rows.delete(target, expired_rows.SUMMARIES, settings, today)


def _compute_images_before(settings: Settings, today: date) -> date:
    return today - timedelta(days=settings.retention_days)


def _describe_images(before: date, days: Sequence[retention.DroppedDay]) -> Expired:
    return Expired(IMAGES, "FER_RETENTION_DAYS", before, len(days), "days")
