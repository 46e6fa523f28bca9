"""What can go wrong, as types, so that retry policy is data and not guesswork.

Every error says what happened and what to do about it. `RetryableError` may pass if the same
call is made again later; `PermanentError` will not, whatever the number of tries. The command
line turns them into exit codes, and the Airflow adapter turns the exit codes into a retry or
a failure at once. What happened to a single image is no error but an `Outcome`.
"""

from __future__ import annotations

EXIT_PERMANENT = 2
"""Exit code of a `PermanentError`: trying again without a change will not help."""
EXIT_FINDINGS = 3
"""Exit code when the work was done and something in it needs a person's eye."""
EXIT_RETRYABLE = 75
"""Exit code of a `RetryableError` (EX_TEMPFAIL of sysexits.h)."""


class FerError(Exception):
    """An error of fer-batch. `str(error)` is what happened; `todo` is what to do about it."""

    exit_code = EXIT_PERMANENT

    def __init__(self, what: str, todo: str = "") -> None:
        super().__init__(what)
        self.todo = todo

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what}. {self.todo}" if self.todo else what


class PermanentError(FerError):
    """Will fail again until somebody changes something."""


class RetryableError(FerError):
    """May pass on its own: a service that is down, slow or busy."""

    exit_code = EXIT_RETRYABLE


class ConfigurationError(PermanentError):
    """A setting, the facility registry or a command's argument is wrong."""


class ModelError(PermanentError):
    """A model file is missing, altered, or does not fit its card."""


class StorageError(PermanentError):
    """S3 refuses: no such bucket, wrong keys, access denied."""


class StorageUnavailableError(RetryableError):
    """S3 does not answer, or answers that it is busy."""


class StorageSilentError(StorageUnavailableError):
    """S3 does not answer at all, whatever it is asked for."""


class DatabaseError(PermanentError):
    """The database is not migrated, refuses the login, or rejects a statement."""


class DatabaseUnavailableError(RetryableError):
    """The database does not answer, is starting, or cut the connection."""


class WorkerError(RetryableError):
    """The scoring child died, hung past its deadline or outgrew its memory."""
