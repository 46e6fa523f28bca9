"""Ways to score a day of images: what one would write oneself, and fer-batch.

Each is a function that loads what it needs and returns the work of one round: from the listing
to the last commit. The Keras contestants run the shipped CNN's architecture, rebuilt from its
card; their weights are random, which costs the same.
"""

from __future__ import annotations

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
    from fer_batch import nightly
    from fer_batch.settings import Settings

TABLES = ("bench_naive", "bench_careful", "bench_loop")
CAREFUL_THREADS = 16
CAREFUL_BATCH = 256


class _Tools:
    """What the contestants that are not fer-batch share: a client, an engine and a network."""

    def __init__(self, facility_id: str, limit: int) -> None:
        import boto3
        import sqlalchemy as sa
        from botocore.config import Config

        from fer_batch import choice
        from fer_batch.training import network
        from fer_batch.training.recipe import Recipe

        settings = _our_settings()
        keys = settings.credentials_for(None)
        assert keys is not None  # noqa: S101  (the stack's own)
        assert settings.database_url is not None  # noqa: S101
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
        url = settings.database_url.get_secret_value()
        self.engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        card = choice.in_use(settings.model_copy(update={"database_url": None})).cnn.card
        recipe = Recipe.model_validate((card.model_extra or {})["recipe"])
        self.model = network.build(recipe.model_copy(update={"precision": "float32"}))

    def listed(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        found = (entry["Key"] for page in pages for entry in page.get("Contents", ()))
        return list(islice(found, self._limit))

    def fetch(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


def _crop(data: bytes) -> Any:
    import cv2
    import numpy as np

    grey: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(grey, (48, 48))


def _row(key: str, probabilities: Any) -> dict[str, Any]:
    happy, sad = float(probabilities[3]), float(probabilities[4])
    return {
        "image_key": key,
        "p_happy": happy,
        "p_sad": sad,
        "emotion": "Happy" if happy >= sad else "Sad",
    }


def naive(facility_id: str, limit: int) -> Work:
    """What one writes in an afternoon: one image after the other, the table at the end."""
    import pandas as pd

    tools = _Tools(facility_id, limit)
    tools.model.predict(_blank(1), verbose=0)

    def work() -> int:
        rows = []
        for key in tools.listed():
            crop = _crop(tools.fetch(key))
            rows.append(_row(key, tools.model.predict(crop[None], verbose=0)[0]))
        pd.DataFrame(rows).to_sql("bench_naive", tools.engine, if_exists="append", index=False)
        return len(rows)

    return work


def careful(facility_id: str, limit: int) -> Work:
    """Fetched by 16 threads, through the CNN in batches of 256, many rows a statement."""
    import numpy as np
    import pandas as pd

    tools = _Tools(facility_id, limit)
    tools.model.predict(_blank(CAREFUL_BATCH), batch_size=CAREFUL_BATCH, verbose=0)

    def work() -> int:
        done = 0
        keys = tools.listed()
        with ThreadPoolExecutor(CAREFUL_THREADS) as pool:
            crops = pool.map(lambda key: _crop(tools.fetch(key)), keys)
            for some in _batches(keys):
                batch = np.stack(list(islice(crops, len(some))))
                found = tools.model.predict(batch, batch_size=CAREFUL_BATCH, verbose=0)
                rows = [_row(key, one) for key, one in zip(some, found, strict=True)]
                pd.DataFrame(rows).to_sql(
                    "bench_careful", tools.engine, if_exists="append", index=False, method="multi"
                )
                done += len(rows)
        return done

    return work


def loop(facility_id: str, limit: int) -> Work:
    """For frames: YuNet at full size, each face predicted alone, one frame after the other."""
    import cv2
    import numpy as np
    import pandas as pd

    from fer_batch.faces import DETECTION, shipped_detector

    tools = _Tools(facility_id, limit)
    tools.model.predict(_blank(1), verbose=0)
    finder = cv2.FaceDetectorYN.create(
        str(shipped_detector()), "", (640, 480), DETECTION["score_above"]
    )

    def work() -> int:
        rows = []
        keys = tools.listed()
        for key in keys:
            frame: Any = cv2.imdecode(np.frombuffer(tools.fetch(key), np.uint8), cv2.IMREAD_COLOR)
            finder.setInputSize((frame.shape[1], frame.shape[0]))
            found: Any = finder.detect(frame)[1]
            for x, y, width, height in [] if found is None else found[:, :4].astype(int):
                face = frame[max(y, 0) : y + height, max(x, 0) : x + width]
                crop = cv2.resize(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), (48, 48))
                rows.append(_row(key, tools.model.predict(crop[None], verbose=0)[0]))
        pd.DataFrame(rows).to_sql("bench_loop", tools.engine, if_exists="append", index=False)
        return len(keys)

    return work


def ours(facility_id: str) -> Work:
    """The scoring code that the DAG runs, in a process that is ready: list, plan, score."""
    import cv2

    from fer_batch import announce, scoring
    from fer_batch.classifier import Classifier

    settings = _our_settings()
    cv2.setNumThreads(1)  # as a scoring process does
    classifier = Classifier(settings, open_run(settings, facility_id).cnn)
    folder = tempfile.TemporaryDirectory(prefix="fer-batch-bench-")

    def work() -> int:
        run = open_run(settings, facility_id)
        run.sync_facilities()
        run.list_images()
        slots = Path(folder.name) / "announced"
        announce.create(slots, settings.threads)
        scorer = scoring.ShardScorer(
            run.engine,
            settings,
            run.registry,
            classifier,
            run.selection.run_id,
            run.selection.capture_day,
            None,
            announce.Announcer(slots),
        )
        results = [scorer.score(shard) for shard in run.plan_shards()]
        if failures := [result.failures for result in results if result.failures]:
            raise RuntimeError(f"scoring failed: {failures}")
        return sum(result.image_count for result in results)

    return work


def ours_cold(facility_id: str) -> Work:
    """The same, with a scoring process started for each shard as in a task of the DAG."""
    settings = _our_settings()

    def work() -> int:
        run = open_run(settings, facility_id)
        run.sync_facilities()
        run.list_images()
        return sum(run.score(shard).image_count for shard in run.plan_shards())

    return work


def _our_settings() -> Settings:
    from fer_batch import log
    from fer_batch import settings as module

    settings = module.Settings(_env_file=None)
    log.configure(settings.log_format, settings.log_level)
    return settings


def open_run(settings: Settings, facility_id: str) -> nightly.Run:
    """A run of its own over one facility's day."""
    from fer_batch import nightly

    name = f"bench-{uuid.uuid4()}"
    return nightly.Run(settings, nightly.Selection(name, DAY, facility_ids=(facility_id,)))


def _blank(count: int) -> Any:
    import numpy as np

    return np.zeros((count, 48, 48), np.uint8)


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), CAREFUL_BATCH):
        yield keys[start : start + CAREFUL_BATCH]
