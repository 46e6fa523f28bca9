"""Objects in S3 for `fer-batch predict`, read under the rules of the facilities that own them.

What lies below the prefixes of a registered facility is read only as a run would read it: its entry
is valid, the permission covers the capture day, and neither the image nor its day was erased. A
prefix that holds an image which may not be read is refused as a whole. Without a registry file no
object has an owner. Which facility owns a key is decided in facilities/ownership.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fer_batch.errors import ConfigurationError, PermanentError
from fer_batch.facilities.loading import Registry, load_registry
from fer_batch.facilities.ownership import Owner, list_owners, spell
from fer_batch.log import get_logger
from fer_batch.predict.names import escape_text, is_multiple
from fer_batch.records import Batch, FetchedImage, Image, ImageScore
from fer_batch.settings import Settings

if TYPE_CHECKING:
    from fer_batch.storage.reader import BucketReader

log = get_logger(__name__)

_FETCH_BATCH = 16
"""Objects fetched, and held in memory, at once."""
NO_BATCH = Batch("", date.min)
"""The batch of images that belong to no facility and no day; the key of each is its source."""
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
_ERASED_HINT = "An erased image or day is not read again"


def read_objects(source: str, settings: Settings) -> Iterator[FetchedImage | ImageScore]:
    """The images of `s3://bucket/key`, or of all keys below `s3://bucket/prefix/`, by key.

    Erased images are left out, with a warning. Raises ConfigurationError if there is no such object
    or all were erased, PermanentError where the owner of an object does not permit to read it, and
    the errors of S3 and the database.
    """
    from fer_batch.storage.reader import BucketReader  # boto3 and obstore: only where S3 is read

    bucket, _, key = source[len("s3://") :].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(f"{escape_text(source)} names no bucket", "Give s3://bucket/key")
    registry = _load_registry(settings)
    if registry is None:
        log.warning(
            "no registry: neither permission nor erased days are checked",
            file=str(settings.facilities_file),
        )
    owners = list_owners(registry, bucket, settings.s3_bucket) if registry else []
    rules = _Rules(settings, owners)
    with ExitStack() as stack:
        rules.check_source(key, source)
        reader = stack.enter_context(BucketReader(settings, bucket=bucket))
        images = _list_images(reader, key)
        if not images:
            raise ConfigurationError(
                f"there is no object {escape_text(source)}",
                "Check bucket and key; a prefix ends with /",
            )
        for image in images:
            rules.check(image.key, f"s3://{bucket}/{image.key}")
        is_erased = stack.enter_context(_ErasureFilter(settings, rules))
        erased = 0
        for start in range(0, len(images), _FETCH_BATCH):
            batch = images[start : start + _FETCH_BATCH]
            remaining = is_erased.leave_out(batch)
            erased += len(batch) - len(remaining)
            for item in sorted(reader.fetch_many(remaining), key=lambda each: _order(each.image)):
                name = f"s3://{bucket}/{item.image.key}"
                yield replace(item, image=replace(item.image, key=name))
    if erased == len(images):
        raise ConfigurationError(f"{escape_text(source)} was erased", _ERASED_HINT)
    if erased:
        log.warning("erased images were left out", source=escape_text(source), images=erased)


def check_url(url: str, settings: Settings) -> None:
    """Refuse an http(s) address of an object as `read_objects` does.

    The bucket may be the first segment of the path or the beginning of the host.
    """
    registry = _load_registry(settings)
    if registry is None:
        return
    parts = urlsplit(url)
    path, labels = unquote(parts.path).lstrip("/"), (parts.hostname or "").lower().split(".")
    first, _, rest = path.partition("/")
    places = [(first, rest), *((".".join(labels[:n]), path) for n in range(1, len(labels)))]
    for bucket, key in places:
        owners = list_owners(registry, bucket, settings.s3_bucket)
        rules = _Rules(settings, [owner for owner in owners if owner.facility is not None])
        if not key or not rules.find_owners(key):
            continue
        rules.check(key, url)
        with _ErasureFilter(settings, rules) as is_erased:
            if not is_erased.leave_out([Image(NO_BATCH, key, "", 0)]):
                raise ConfigurationError(f"{escape_text(url)} was erased", _ERASED_HINT)


def _load_registry(settings: Settings) -> Registry | None:
    """The registry; None if there is none at the default place."""
    is_named = "facilities_file" in settings.model_fields_set
    if not is_named and not settings.facilities_file.exists():
        return None
    return load_registry(settings.facilities_file, settings)


def _list_images(reader: BucketReader, key: str) -> list[Image]:
    if is_multiple(f"s3:///{key}"):
        listed = [each for each in reader.list(key) if not each.is_folder_marker]
    else:
        listed = [each for each in [reader.find(key)] if each is not None]
    return sorted((each.build_image(NO_BATCH) for each in listed), key=_order)


def _order(image: Image) -> bytes:
    return image.key.encode(errors="surrogatepass")


class _Rules:
    """What the owners of the objects in a bucket permit, at this moment."""

    def __init__(self, settings: Settings, owners: Sequence[Owner]) -> None:
        self._settings = settings
        self._owners = owners
        self._now_utc = datetime.now(UTC)

    def check_source(self, key: str, source: str) -> None:
        """Refuse a key, or a prefix that ends with `/`, before anything of it is listed."""
        concerned = self.find_owners(key)
        if is_multiple(f"s3:///{key}") and not concerned:
            concerned = [
                (owner, owner.find_day(key)) for owner in self._owners if owner.may_own_below(key)
            ]
        self._check(concerned, source)

    def check(self, key: str, name: str) -> None:
        """Refuse a key whose owner does not permit to read it; `name` is the key for people."""
        self._check(self.find_owners(key), name)

    def find_owners(self, key: str) -> list[tuple[Owner, date | None]]:
        """The owners of a key, each with its capture day; None: it is of no day.

        Where no facility owns it, these are the invalid ones that may be anywhere.
        """
        owners = [owner for owner in self._owners if owner.owns(key)]
        if not owners:
            owners = [owner for owner in self._owners if owner.facility is None]
        return [(owner, owner.find_day(key)) for owner in owners]

    def _check(self, owners: Sequence[tuple[Owner, date | None]], name: str) -> None:
        for owner, day in owners:
            verb = "may belong" if owner.facility is None else "belongs"
            if problem := self._find_problem(owner, day):
                raise PermanentError(
                    f"{escape_text(name)} {verb} to facility {owner.facility_id}, {problem}",
                    "Correct its entry in the registry, or name objects that are not of it",
                )
        if owners and self._settings.database_url is None:
            raise ConfigurationError(
                f"{escape_text(name)} belongs to facility {owners[0][0].facility_id}; without the "
                "database it is not known what was erased",
                "Set FER_DATABASE_URL",
            )

    def _find_problem(self, owner: Owner, day: date | None) -> str:
        """Why nothing of the owner's day may be read; empty if it may."""
        facility = owner.facility
        if owner.invalid is not None or facility is None:
            problems = "" if owner.invalid is None else owner.invalid.reason
            return f"whose entry in the registry is invalid: {problems}"
        reason = facility.get_denial_reason(
            day or facility.compute_local_day(self._now_utc),
            self._now_utc,
            self._settings.strict_registry_from,
        )
        return f"which may not be read: {reason}" if reason else ""


class _ErasureFilter:
    """Leaves out images that were erased, or whose day was erased or dropped by retention.

    Without a database nothing is known to be erased; `_Rules` then refuses what has an owner.
    """

    def __init__(self, settings: Settings, rules: _Rules) -> None:
        from fer_batch.database import connections

        is_set = settings.database_url is not None
        self._engine = connections.create_engine(settings) if is_set else None
        self._erasure_secret = settings.erasure_secret
        self._rules = rules

    def __enter__(self) -> _ErasureFilter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def leave_out(self, images: Sequence[Image]) -> list[Image]:
        """The images that remain, in their order.

        Raises ErasureSecretError where it cannot be told which were erased: images of the same
        facility, or of any for an image without an owner, were erased with another secret.
        """
        from fer_batch.database import connections, deletions, erased_keys

        if self._engine is None:
            return list(images)
        spellings = {image.key: spell(image.key) for image in images}
        owners = {image.key: self._rules.find_owners(image.key) for image in images}
        batches = {
            key: {Batch(owner.facility_id, day) for owner, day in of_key if day is not None}
            for key, of_key in owners.items()
        }
        ids = {owner.facility_id for of_key in owners.values() for owner, _ in of_key}
        with connections.transaction(self._engine) as connection:
            keys = erased_keys.find_erased_keys(
                connection,
                [each for own in spellings.values() for each in own],
                erased_keys.ErasureSecret(self._erasure_secret),
                ids if all(owners.values()) else None,
            )
            days = deletions.load_erased_days(connection, set().union(*batches.values()))
            horizon = deletions.load_horizon(connection)
        return [
            image
            for image in images
            if keys.isdisjoint(spellings[image.key])
            and days.isdisjoint(batches[image.key])
            and not any(horizon and batch.capture_day < horizon for batch in batches[image.key])
        ]
