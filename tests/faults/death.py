"""A simulated crash at a failpoint inside the process of the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any


class DiedError(BaseException):
    """The run has reached the failpoint.

    A BaseException, so that no handler of fer-batch catches it.
    """


@dataclass
class Death:
    """An armed failpoint that raises an exception instead of sending a signal."""

    name: str
    nth: int

    def __post_init__(self) -> None:
        self.passes = itertools.count(1)

    @property
    def signal(self) -> Any:
        raise DiedError(self.name)
