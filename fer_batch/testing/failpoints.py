"""Failpoints: named points before and after every important step, where a test kills the process.

For tests only. `failpoint(name)` does nothing unless the environment names that failpoint:
`FER_FAILPOINT=commit.before` kills this process with SIGKILL when it is first reached,
`commit.before:3` when it is reached the third time, and `commit.before:3:STOP` (or `:TERM`) sends
that signal instead. Each process counts by itself. A failpoint runs no code and changes no data:
its effect is what can happen to a process at any moment. It is not a setting of
`fer-batch config` and is not read from `.env` files, so that it cannot be left behind there.
"""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger

log = get_logger(__name__)

ENV_VARIABLE = "FER_FAILPOINT"
NameInRun = Literal[
    "list.before",
    "list.page",
    "list.copy.before",
    "list.copy.during",
    "list.copy.after",
    "list.upsert.after",
    "list.commit.before",
    "list.commit.after",
    "plan.before",
    "plan.after",
    "score.before",
    "fetch.before",
    "fetch.after",
    "decode.before",
    "decode.during",
    "decode.after",
    "classify.before",
    "classify.after",
    "copy.before",
    "copy.during",
    "copy.after",
    "upsert.before",
    "upsert.during",
    "upsert.after",
    "commit.before",
    "commit.after",
    "score.after",
    "summary.before",
    "summary.during",
    "summary.commit.before",
    "summary.commit.after",
    "report.before",
    "file.during",
    "report.after",
]
"""The failpoints of a run, in the order in which it reaches them."""
NameInMaintenance = Literal["drop.before", "drop.during", "drop.after"]
"""The failpoints of maintenance, when it drops a day."""
Name = NameInRun | NameInMaintenance
NAMES: tuple[str, ...] = get_args(NameInRun)
NAMES_IN_MAINTENANCE: tuple[str, ...] = get_args(NameInMaintenance)
SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "TERM": signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Failpoint:
    """The armed failpoint: when it is reached the `nth` time, the process gets the signal."""

    name: str
    nth: int = 1
    signal: signal.Signals = signal.SIGKILL
    passes: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def parse(cls, text: str) -> Failpoint:
        """Parse `name[:n[:KILL|STOP|TERM]]`. Raises ConfigurationError for anything else."""
        name, _, rest = text.partition(":")
        nth, _, end = rest.partition(":")
        if (
            name not in NAMES + NAMES_IN_MAINTENANCE
            or not (nth or "1").isdecimal()
            or (end or "KILL") not in SIGNALS
        ):
            raise ConfigurationError(
                f"{ENV_VARIABLE} is not name[:n[:KILL|STOP|TERM]] and a known name: {text!r}",
                "It is for tests only: unset it",
            )
        return cls(name, int(nth or "1"), SIGNALS[end or "KILL"])


def failpoint(name: Name) -> None:
    """Mark that this failpoint is reached. Raises ConfigurationError for an invalid variable.

    It may be called from any thread. Before the signal is sent, it is logged on stderr.
    """
    armed = get_armed()
    if armed is None or armed.name != name or next(armed.passes) != armed.nth:
        return
    log.warning("failpoint", point=name, nth=armed.nth, signal=armed.signal.name, pid=os.getpid())
    # Sent to this thread, so that it does nothing more before the signal takes effect.
    signal.raise_signal(armed.signal)


@cache
def get_armed() -> Failpoint | None:
    text = os.environ.get(ENV_VARIABLE)
    return Failpoint.parse(text) if text else None
