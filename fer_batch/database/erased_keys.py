"""Which images were erased: their keys, recorded so that nobody can tell them from the record.

A record has HMAC-SHA256(secret, SHA-256 of the key). The secret is FER_ERASURE_SECRET; it is never
sent to the database, so whoever has only the database or the erasure log cannot even verify a
guessed key. With each record goes a value derived from the secret, by which another secret is
recognized: with that, no key could be compared, and erased images would be read again. Writing
records is left to the package `deletion`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa
from pydantic import SecretStr

from fer_batch.database import former_ids
from fer_batch.database.statements import load_statements
from fer_batch.errors import ErasureSecretError
from fer_batch.records import Batch

CHECK_BYTES = 8
"""Length of the value by which a secret is recognized: another one has it once in 2^64."""

_NEIGHBORING_DAYS = 2
"""The capture day of a key differs by at most a day between two time zones or clocks. One day more
is compared, to be safe."""
_CHECKED_TEXT = b"fer-batch: check of the erasure secret"
_NAME = "FER_ERASURE_SECRET"
CREATE_HINT = (
    "Single images are recorded with a secret of your own. Create one with `openssl rand -hex 32`, "
    "set it, and keep a copy apart from the backups of the database; see docs/privacy.md"
)
_FIND_HINT = "Set it to the secret with which they were erased; for a lost one, see docs/privacy.md"

_STATEMENTS = load_statements(__file__)


@dataclass(frozen=True, slots=True)
class ErasureSecret:
    """The secret of the settings, None if it is not set, and what is computed with it."""

    value: SecretStr | None

    @property
    def check(self) -> bytes | None:
        """`CHECK_BYTES` bytes that are the same for the same secret; None if it is not set."""
        return None if self.value is None else self._compute(_CHECKED_TEXT)[:CHECK_BYTES]

    def hash_key(self, key: str) -> bytes:
        """The 32 bytes under which a key is recorded. Raises ErasureSecretError without a secret.

        The key may have lone surrogates, as keys that are not UTF-8 have.
        """
        return self.hash_digest(hashlib.sha256(key.encode(errors="surrogatepass")).digest())

    def hash_digest(self, key_sha256: bytes) -> bytes:
        """The same, of the SHA-256 of a key."""
        return self._compute(key_sha256)

    def _compute(self, data: bytes) -> bytes:
        if self.value is None:
            raise ErasureSecretError(f"{_NAME} is not set", CREATE_HINT)
        return hmac.digest(self.value.get_secret_value().encode(), data, "sha256")


NO_SECRET = ErasureSecret(None)


@dataclass(frozen=True, slots=True)
class ErasedKeys:
    """The keys of erased images, by their HMACs. Nothing is computed if there are none."""

    hmacs: frozenset[bytes]
    secret: ErasureSecret

    def __bool__(self) -> bool:
        return bool(self.hmacs)

    def __contains__(self, key: str) -> bool:
        return bool(self.hmacs) and self.secret.hash_key(key) in self.hmacs


def load_erased_keys(connection: sa.Connection, batch: Batch, secret: ErasureSecret) -> ErasedKeys:
    """The keys that a listing of a batch leaves out, because their images were erased individually.

    They are those of the facility, and of other facilities that may share its bucket, as far as
    they were erased on a day next to the batch's: the id of a facility may have changed. Raises
    ErasureSecretError as `check_secret`.
    """
    check_secret(connection, secret, [batch.facility_id])
    params = {
        "facility_id": batch.facility_id,
        "first_day": _shift(batch.capture_day, -_NEIGHBORING_DAYS),
        "last_day": _shift(batch.capture_day, _NEIGHBORING_DAYS),
        "secret_check": secret.check,
    }
    rows = connection.execute(_STATEMENTS["list_erased_keys"], params).scalars()
    return ErasedKeys(frozenset(map(bytes, rows)), secret)


def _shift(day: date, days: int) -> date:
    try:
        return day + timedelta(days)
    except OverflowError:
        return day


def find_erased_keys(
    connection: sa.Connection,
    keys: Collection[str],
    secret: ErasureSecret,
    facility_ids: Collection[str] | None,
) -> set[str]:
    """Those of the keys that were erased individually, in whatever facility.

    `facility_ids` are the facilities of the keys; None: unknown. Raises ErasureSecretError if an
    image of these facilities, or of any, was erased with another secret.
    """
    check_secret(connection, secret, facility_ids)
    if not count_erased_keys(connection, secret):
        return set()
    by_hmac = {secret.hash_key(key): key for key in keys}
    found = connection.execute(_STATEMENTS["find_erased_keys"], {"key_hmacs": [*by_hmac]})
    return {by_hmac[bytes(key_hmac)] for key_hmac in found.scalars()}


def count_erased_keys(connection: sa.Connection, secret: ErasureSecret) -> int:
    """How many images were erased with this secret, in all facilities; 0 without one."""
    params = {"secret_check": secret.check}
    return int(connection.execute(_STATEMENTS["count_erased_keys"], params).scalar_one())


def list_unreadable_facilities(connection: sa.Connection, secret: ErasureSecret) -> list[str]:
    """The facilities whose erased images cannot be recognized with this secret.

    Those of days of which no image is ever read again do not count. An image that was erased under
    a former id of a facility does.
    """
    unreadable = _list_unreadable(connection, secret)
    renamed = former_ids.find_former_ids(connection, unreadable)
    return sorted({*unreadable, *(facility_id for _, facility_id in renamed)})


def check_secret(
    connection: sa.Connection, secret: ErasureSecret, facility_ids: Collection[str] | None = None
) -> None:
    """Raise ErasureSecretError if an image of these facilities was erased with another secret.

    It may have been erased under a former id. None: an image of any facility.
    """
    concerned = unreadable = _list_unreadable(connection, secret)
    if facility_ids is not None and unreadable:
        renamed = former_ids.find_former_ids(connection, unreadable, facility_ids)
        owners = {*facility_ids, *(former_id for former_id, _ in renamed)}
        concerned = [each for each in unreadable if each in owners]
    if concerned:
        raise _explain(secret, concerned)


def _list_unreadable(connection: sa.Connection, secret: ErasureSecret) -> list[str]:
    params = {"secret_check": secret.check}
    return list(connection.execute(_STATEMENTS["list_unreadable_facilities"], params).scalars())


def _explain(secret: ErasureSecret, facility_ids: Collection[str]) -> ErasureSecretError:
    names = ", ".join(facility_ids)
    if secret.value is None:
        what = f"{_NAME} is not set, and images of {names} were erased"
    else:
        what = f"{_NAME} is not the secret with which images of {names} were erased"
    return ErasureSecretError(what, _FIND_HINT)
