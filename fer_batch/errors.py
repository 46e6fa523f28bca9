"""The errors of fer-batch, as a tree of types by which a caller decides whether to retry.

    FerError                          every error says what happened and what to do (`hint`)
    ├── PermanentError                fails again until somebody changes something
    │   ├── ConfigurationError        a setting, the facility registry or an argument is wrong
    │   │   └── FormerTargetError     the registry has target_share instead of target_rate
    │   ├── ModelError                a model file is missing, altered, or does not match its card
    │   ├── SandboxError              the kernel cannot confine decoders, and FER_SANDBOX=require
    │   ├── StorageError              S3 refuses: no such bucket, wrong keys, access denied
    │   ├── DatabaseError             not migrated, login refused, or a statement rejected
    │   ├── ErasureSecretError        images were erased with another secret, or none is set
    │   └── DeliveryError             a mail server or a chat refuses a digest
    └── RetryableError                may succeed when the same call is repeated later
        ├── StorageUnavailableError   S3 does not answer, or is busy
        │   └── EndpointUnreachableError   S3 does not answer any request
        ├── DatabaseUnavailableError  does not answer, is starting, or accepts no writes
        │   └── LockTimeoutError      another session held a lock for too long
        ├── DeliveryUnavailableError  a mail server or a chat does not answer, or is busy
        └── ScoringProcessError       the scoring process died, hung or exceeded its memory

The command line turns them into exit codes, and the Airflow adapter turns the exit codes into a
retry or an immediate failure. A problem of a single image is not an error but an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_PERMANENT = 2
"""Exit code of a `PermanentError`: a retry without a change will not help."""
EXIT_FINDINGS = 3
"""Exit code when the work was done and its findings need a person's attention."""
EXIT_RETRYABLE = 75
"""Exit code of a `RetryableError` (EX_TEMPFAIL of sysexits.h)."""


class FerError(Exception):
    """An error of fer-batch. `str(error)` is what happened and then `hint`, what to do about it."""

    exit_code = EXIT_PERMANENT

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what}. {self.hint}" if self.hint else what


class PermanentError(FerError):
    """Fails again until somebody changes something."""


class RetryableError(FerError):
    """May succeed later: a service is down, slow or busy."""

    exit_code = EXIT_RETRYABLE


class ConfigurationError(PermanentError):
    """A setting, the facility registry or a command's argument is wrong."""


class FormerTargetError(ConfigurationError):
    """The registry has `target_share`, which was about another figure than `target_rate`.

    `facility_ids` are the facilities that have it.
    """

    def __init__(self, what: str, hint: str, facility_ids: Sequence[str]) -> None:
        super().__init__(what, hint)
        self.facility_ids = tuple(facility_ids)


class ModelError(PermanentError):
    """A model file is missing, altered, or does not match its card."""


class SandboxError(PermanentError):
    """The kernel or the container cannot confine decoders, and the settings require it."""


class StorageError(PermanentError):
    """S3 refuses: no such bucket, wrong keys, access denied."""


class StorageUnavailableError(RetryableError):
    """S3 does not answer, or answers that it is busy."""


class EndpointUnreachableError(StorageUnavailableError):
    """S3 does not answer any request."""


class DatabaseError(PermanentError):
    """The database is not migrated, refuses the login, or rejects a statement."""


class ErasureSecretError(PermanentError):
    """FER_ERASURE_SECRET is missing or wrong: erased images could not be recognized."""


class DeliveryError(PermanentError):
    """A mail server or a chat refuses a digest: unknown recipient, wrong login, wrong webhook."""


class DatabaseUnavailableError(RetryableError):
    """The database does not answer, is starting, closed the connection, or accepts no writes."""


class LockTimeoutError(DatabaseUnavailableError):
    """Another session held a lock for longer than the lock timeout."""


class DeliveryUnavailableError(RetryableError):
    """A mail server or a chat does not answer, or answers that it is busy."""


class ScoringProcessError(RetryableError):
    """The scoring process died, exceeded its deadline or exceeded its memory."""


def explain_exception(error: Exception) -> str:
    """What happened, for people; of an unexpected exception its type and text, on one line.

    The caller logs the traceback of an unexpected one.
    """
    if isinstance(error, FerError):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split()).replace("\0", "?")[:300]
    return f"unexpected error: {text}. The log has the traceback"
