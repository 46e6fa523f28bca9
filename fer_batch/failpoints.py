"""Points at which a test makes a process die, stop or end: before and after every step that counts.

For tests only. `reach(name)` does nothing unless the environment names that point:
`FER_FAILPOINT=commit.before` kills this process with SIGKILL when it first gets there,
`commit.before:3` at the third time, and `commit.before:3:STOP` (or `:TERM`) sends that signal
instead. Points are counted in each process by itself. A point runs no code and changes no data:
what happens is what a machine may do to a process at any moment. It is no setting of
`fer-batch config`, and no `.env` file is asked for it, so that it cannot be left behind there.
"""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

from fer_batch.errors import ConfigurationError
from fer_batch.log import logger

log = logger(__name__)

VARIABLE = "FER_FAILPOINT"
Name = Literal[
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
    "report.during",
    "report.after",
]
"""The points, in the order in which a run comes to them."""
NAMES: tuple[str, ...] = get_args(Name)
SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "TERM": signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Failpoint:
    """The point that is armed: at its `nth` pass the process gets the signal."""

    name: str
    nth: int = 1
    signal: signal.Signals = signal.SIGKILL
    passes: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def parse(cls, text: str) -> Failpoint:
        """A point as `name[:n[:KILL|STOP|TERM]]`. Raises ConfigurationError for anything else."""
        name, _, rest = text.partition(":")
        nth, _, end = rest.partition(":")
        if name not in NAMES or not (nth or "1").isdecimal() or (end or "KILL") not in SIGNALS:
            raise ConfigurationError(
                f"{VARIABLE} is not name[:n[:KILL|STOP|TERM]] with a name that there is: {text!r}",
                "It is for tests only: take it out of the environment",
            )
        return cls(name, int(nth or "1"), SIGNALS[end or "KILL"])


def reach(name: Name) -> None:
    """Say that the process has come to this point. Raises ConfigurationError for a wrong variable.

    It may be called from any thread; a test is told on stderr before the signal is sent.
    """
    armed = _armed()
    if armed is None or armed.name != name or next(armed.passes) != armed.nth:
        return
    log.warning("failpoint", point=name, nth=armed.nth, signal=armed.signal.name, pid=os.getpid())
    # To this thread, so that it goes no step further before the signal takes effect.
    signal.raise_signal(armed.signal)


@cache
def _armed() -> Failpoint | None:
    text = os.environ.get(VARIABLE)
    return Failpoint.parse(text) if text else None
