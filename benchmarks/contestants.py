"""The contestants that score a day of images: straightforward programs, and fer-batch.

Each `make_…` function loads what the contestant needs and returns the work of one round, from the
listing to the last commit. The Keras contestants run the architecture of the shipped CNN, rebuilt
from its card; their weights are random, which does not change the cost.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.drawn import DAY
from benchmarks.rounds import Work

if TYPE_CHECKING:
    from fer_batch.pipeline import nightly
    from fer_batch.settings import Settings

TABLES = ("bench_naive", "bench_careful", "bench_loop")
ADMIN_URL = "BENCH_ADMIN_URL"
"""Environment variable: the database, with a login that may create and empty tables."""
CAREFUL_THREADS = 16
CAREFUL_BATCH = 256


class _Tools:
    """Shared by the contestants other than fer-batch: S3 client, database engine and network."""

    def __init__(self, facility_id: str, limit: int) -> None:
        import boto3
        import sqlalchemy as sa
        from botocore.config import Config

        from fer_batch.model import active_model
        from fer_batch.storage.credentials import find_credentials
        from fer_batch.training import network
        from fer_batch.training.recipe import Recipe

        settings = _load_settings()
        keys = find_credentials(settings, None)
        assert keys is not None  # noqa: S101  (the stack's own)
        self._bucket = settings.s3_bucket
        self._prefix = f"{facility_id}/{DAY}/"
        self._limit = limit
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key.get_secret_value(),
            config=Config(max_pool_connections=CAREFUL_THREADS),
        )
        url = os.environ[ADMIN_URL]  # they create tables of their own
        self.engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        card = active_model.load_active(settings.model_copy(update={"database_url": None})).cnn.card
        recipe = Recipe.model_validate((card.model_extra or {})["recipe"])
        self.model = network.build(recipe.model_copy(update={"precision": "float32"}))

    def list_keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        keys = (entry["Key"] for page in pages for entry in page.get("Contents", ()))
        return list(islice(keys, self._limit))

    def fetch(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


def _decode_crop(data: bytes) -> Any:
    import cv2
    import numpy as np

    gray: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(gray, (48, 48))


def _build_row(key: str, probabilities: Any) -> dict[str, Any]:
    happy, sad = float(probabilities[3]), float(probabilities[4])
    return {
        "image_key": key,
        "p_happy": happy,
        "p_sad": sad,
        "emotion": "Happy" if happy >= sad else "Sad",
    }


def make_naive(facility_id: str, limit: int) -> Work:
    """The straightforward program: one image after the other, rows written at the end."""
    import pandas as pd

    tools = _Tools(facility_id, limit)
    tools.model.predict(_make_blank_crops(1), verbose=0)

    def work() -> int:
        rows = []
        for key in tools.list_keys():
            crop = _decode_crop(tools.fetch(key))
            rows.append(_build_row(key, tools.model.predict(crop[None], verbose=0)[0]))
        pd.DataFrame(rows).to_sql("bench_naive", tools.engine, if_exists="append", index=False)
        return len(rows)

    return work


def make_careful(facility_id: str, limit: int) -> Work:
    """An optimized program: 16 fetching threads, batches of 256, many rows per statement."""
    import numpy as np
    import pandas as pd

    tools = _Tools(facility_id, limit)
    tools.model.predict(_make_blank_crops(CAREFUL_BATCH), batch_size=CAREFUL_BATCH, verbose=0)

    def work() -> int:
        done = 0
        keys = tools.list_keys()
        with ThreadPoolExecutor(CAREFUL_THREADS) as pool:
            crops = pool.map(lambda key: _decode_crop(tools.fetch(key)), keys)
            for batch_keys in _split_batches(keys):
                batch = np.stack(list(islice(crops, len(batch_keys))))
                probabilities = tools.model.predict(batch, batch_size=CAREFUL_BATCH, verbose=0)
                rows = [_build_row(*pair) for pair in zip(batch_keys, probabilities, strict=True)]
                pd.DataFrame(rows).to_sql(
                    "bench_careful", tools.engine, if_exists="append", index=False, method="multi"
                )
                done += len(rows)
        return done

    return work


def make_loop(facility_id: str, limit: int) -> Work:
    """For frames: YuNet at full size, each face classified alone, one frame after the other."""
    import cv2
    import numpy as np
    import pandas as pd

    from fer_batch.imaging.faces import DETECTION, find_shipped_detector

    tools = _Tools(facility_id, limit)
    tools.model.predict(_make_blank_crops(1), verbose=0)
    detector = cv2.FaceDetectorYN.create(
        str(find_shipped_detector()), "", (640, 480), DETECTION["score_above"]
    )

    def work() -> int:
        rows = []
        keys = tools.list_keys()
        for key in keys:
            frame: Any = cv2.imdecode(np.frombuffer(tools.fetch(key), np.uint8), cv2.IMREAD_COLOR)
            detector.setInputSize((frame.shape[1], frame.shape[0]))
            faces: Any = detector.detect(frame)[1]
            for x, y, width, height in [] if faces is None else faces[:, :4].astype(int):
                face = frame[max(y, 0) : y + height, max(x, 0) : x + width]
                crop = cv2.resize(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), (48, 48))
                rows.append(_build_row(key, tools.model.predict(crop[None], verbose=0)[0]))
        pd.DataFrame(rows).to_sql("bench_loop", tools.engine, if_exists="append", index=False)
        return len(keys)

    return work


def make_fer_batch(facility_id: str, is_sandboxed: bool = True) -> Work:
    """fer-batch's own code in a loaded process: list, plan, score.

    Without the sandbox, the process decodes the images itself.
    """
    from benchmarks.in_process import InProcessDecoders
    from fer_batch.imaging.sandbox.decoders import Decoders
    from fer_batch.model.classifier import Classifier
    from fer_batch.pipeline import in_flight, scoring

    settings = _load_settings()
    # They end with this process.
    decoders = Decoders(settings) if is_sandboxed else InProcessDecoders(settings)
    classifier = Classifier(settings, open_run(settings, facility_id).cnn)
    folder = tempfile.TemporaryDirectory(prefix="fer-batch-bench-")

    def work() -> int:
        run = open_run(settings, facility_id)
        run.sync_facilities()
        run.list_images()
        register = Path(folder.name) / "in-flight"
        in_flight.create_register(register, settings.threads)
        with scoring.ShardScorer(
            run.engine,
            settings,
            run.registry,
            classifier,
            decoders,
            run.selection.run_id,
            run.selection.capture_day,
            None,
            in_flight.InFlightRegister(register),
        ) as scorer:
            results = [scorer.score(shard) for shard in run.plan_shards()]
        if failures := [result.failures for result in results if result.failures]:
            raise RuntimeError(f"scoring failed: {failures}")
        return sum(result.image_count for result in results)

    return work


def make_fer_batch_cold(facility_id: str) -> Work:
    """The same, but with a new scoring process for each shard, as in a task of the DAG."""
    settings = _load_settings()

    def work() -> int:
        run = open_run(settings, facility_id)
        run.sync_facilities()
        run.list_images()
        return sum(run.score_shard(shard).image_count for shard in run.plan_shards())

    return work


def _load_settings() -> Settings:
    from fer_batch import log
    from fer_batch import settings as module

    settings = module.Settings(_env_file=None)
    log.configure(settings.log_format, settings.log_level)
    return settings


def open_run(settings: Settings, facility_id: str) -> nightly.Run:
    """A new run over one facility's day."""
    from fer_batch.pipeline import nightly
    from fer_batch.pipeline.selection import Selection

    name = f"bench-{uuid.uuid4()}"
    return nightly.Run(settings, Selection(name, DAY, facility_ids=(facility_id,)))


def _make_blank_crops(count: int) -> Any:
    import numpy as np

    return np.zeros((count, 48, 48), np.uint8)


def _split_batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), CAREFUL_BATCH):
        yield keys[start : start + CAREFUL_BATCH]
