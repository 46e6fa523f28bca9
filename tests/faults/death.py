"""A death at a failpoint inside the test's own process."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any


class DiedError(BaseException):
    """The run has come to the failpoint. No handler of fer-batch takes it for an error."""


@dataclass
class Death:
    """An armed failpoint that raises where others send a signal."""

    name: str
    nth: int

    def __post_init__(self) -> None:
        self.passes = itertools.count(1)

    @property
    def signal(self) -> Any:
        raise DiedError(self.name)
