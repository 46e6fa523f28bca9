"""A migrated database with one facility, and short ways to list, score and look into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch import database, ledger, results, satisfaction
from fer_batch.records import Batch, Box, FaceScore, Image, ImageScore, KeyRange, Outcome
from fer_batch.registry import Facility, Permission

VERSION = "a" * 64


class Tables:
    """The tables of a test, worked on through the package's own functions."""

    version = VERSION
    batch = Batch("north-mall", date(2026, 3, 1))

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = database.engine(url)
        self.facilities = {f.facility_id: f for f in (self.facility("north-mall"),)}
        with database.transaction(self.engine) as connection:
            ledger.sync_facilities(connection, self.facilities)
            results.register_model_version(connection, VERSION, {"format": 1}, {"name": "test"})

    @staticmethod
    def facility(facility_id: str, **others: Any) -> Facility:
        values = {
            "facility_id": facility_id,
            "name": facility_id.title(),
            "time_zone": "Europe/Berlin",
            "image_kind": "crops",
            "permission": Permission(
                purpose="Service quality",
                lawful_basis="Consent",
                approved_by="Ada",
                valid_until=date(2030, 1, 1),
            ),
        }
        return Facility(**(values | others))

    def add(self, facility_id: str, **others: Any) -> Batch:
        """Put another facility into the registry, or the same one changed."""
        self.facilities[facility_id] = self.facility(facility_id, **others)
        with database.transaction(self.engine) as connection:
            ledger.sync_facilities(connection, self.facilities)
        return Batch(facility_id, self.batch.capture_day)

    def list(
        self,
        objects: Mapping[str, str] | Iterable[str],
        batch: Batch | None = None,
        *,
        attempted_at: datetime | None = None,
        run_id: str = "list",
    ) -> tuple[int, int]:
        """List objects, given as keys or as ETags by key; two days after the capture day."""
        batch = batch or self.batch
        etags = objects if isinstance(objects, Mapping) else dict.fromkeys(objects, "etag-1")
        midnight = datetime.combine(batch.capture_day, datetime.min.time(), UTC)
        with database.transaction(self.engine) as connection:
            listed = ledger.merge_listing(
                connection, batch, ((key, etag, 1300) for key, etag in etags.items())
            )
            ledger.record_batch(
                connection,
                batch,
                "listed",
                run_id=run_id,
                attempted_at=attempted_at or midnight + timedelta(days=2),
                images=len(etags),
                size_bytes=1300 * len(etags),
            )
        return listed

    def work(self, batch: Batch | None = None, **question: Any) -> list[Image]:
        """Everything that is left to do of a batch."""
        whole = KeyRange(batch or self.batch, "\x01", "\U0010ffff" * 256, 0)
        with database.transaction(self.engine) as connection:
            return list(
                ledger.work(
                    connection,
                    whole,
                    question.pop("model_version", VERSION),
                    limit=1_000_000,
                    **question,
                )
            )

    def image(self, key: str, etag: str = "etag-1", batch: Batch | None = None) -> Image:
        return Image(batch or self.batch, key, etag, 1300)

    @staticmethod
    def face(p_happy: float = 0.75, p_sad: float = 0.125, **others: Any) -> FaceScore:
        values = {
            "box": Box(-1, 2, 48, 48),
            "p_happy": p_happy,
            "p_sad": p_sad,
            "p_neither": 1 - p_happy - p_sad,
            "is_uncertain": max(p_happy, p_sad) < 0.5,
        }
        return FaceScore(**(values | others))

    def scored(self, image: Image, *faces: FaceScore) -> ImageScore:
        return ImageScore(image, Outcome.SCORED, "", 48, 48, faces or (self.face(),))

    def write(self, *scores: ImageScore, run_id: str = "run-1", **others: Any) -> int:
        with database.transaction(self.engine) as connection:
            return results.write_chunk(
                connection, scores, others.pop("model_version", VERSION), run_id, **others
            )

    def fill(self, happy: int, sad: int, batch: Batch | None = None, *, uncertain: int = 0) -> None:
        """List and score a day with so many faces of each."""
        faces = [self.face(0.75, 0.125)] * happy + [self.face(0.125, 0.75)] * sad
        faces += [self.face(0.25, 0.125)] * uncertain
        self.list([f"{n:06d}.jpg" for n in range(len(faces))], batch)
        images = self.work(batch)
        self.write(*(self.scored(i, f) for i, f in zip(images, faces, strict=True)))

    def summarise(self, *batches: Batch, run_id: str = "run-1", **others: Any) -> Any:
        with database.transaction(self.engine) as connection:
            return satisfaction.write_summaries(
                connection,
                batches or (self.batch,),
                others.get("model_version", VERSION),
                self.facilities,
                run_id,
            )

    def rows(self, sql: str, **parameters: Any) -> Sequence[Any]:
        with self.engine.begin() as connection:
            return connection.execute(sa.text(sql), parameters).all()

    def execute(self, sql: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(sql), parameters)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        with database.transaction(self.engine) as connection:
            yield connection

    def someone_waits(self) -> bool:
        """Whether another session of this database waits for a lock just now."""
        return bool(
            self.rows(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.engine.dispose()
