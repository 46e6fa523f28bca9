"""Progress of a shard in the log, at regular intervals while it is scored."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable

from fer_batch.log import get_logger
from fer_batch.records import ImageScore, Shard

log = get_logger(__name__)

PROGRESS_INTERVAL_S = 10.0


class Progress:
    """Logs how far a shard is, at regular intervals until the block ends.

    A separate thread writes the log, so that a slow bucket or database does not stop it.
    """

    def __init__(self, shard: Shard, interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._log = log.bind(shard=shard.name)
        self._total = shard.image_count
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._log_regularly, name="progress", daemon=True)
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Progress:
        self._log_state("scoring")
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._log_state("scored")

    def add(self, scores: Iterable[ImageScore]) -> None:
        """Count the outcomes of a chunk that was written."""
        with self._lock:
            self.outcomes.update(score.outcome.value for score in scores)

    def _log_regularly(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._log_state("scoring")

    def _log_state(self, event: str) -> None:
        with self._lock:
            outcomes = dict(sorted(self.outcomes.items()))
        done = sum(outcomes.values())
        rate = done / max(self.seconds, 1e-6)
        remaining = max(self._total - done, 0)
        self._log.info(
            event,
            images=done,
            of=self._total,
            images_per_s=round(rate, 1),
            remaining_s=round(remaining / rate) if rate > 0 else None,
            outcomes=outcomes,
        )

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started
