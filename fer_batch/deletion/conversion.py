"""The upgrade of the database and of the erasure log to records of erased images by HMAC.

What either holds is left to database/schema.py and erasure_log.py.
"""

from __future__ import annotations

from fer_batch.database import connections, erased_keys, schema
from fer_batch.database.erased_keys import ErasureSecret
from fer_batch.deletion import erasure_log
from fer_batch.settings import Settings


def upgrade(settings: Settings) -> int:
    """Upgrade the schema, and then the erasure log; returns how many of its lines were rewritten.

    Raises ErasureSecretError, before anything is changed, if one of them has the SHA-256 of a key
    and the secret is not set, or not that of the log; and what `schema.upgrade` and
    `erasure_log.convert` raise.
    """
    secret = ErasureSecret(settings.erasure_secret)
    former = erasure_log.count_former(settings.erasure_log)
    if former:
        erasure_log.check_convertible(settings.erasure_log, secret)
    schema.upgrade(settings)
    if not former:
        return 0
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        erased_keys.check_secret(connection, secret)
    return erasure_log.convert(settings.erasure_log, secret)
