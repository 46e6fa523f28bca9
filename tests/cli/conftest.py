"""The command in a folder of the test's own, alone or with a database and a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fer_batch.settings import to_environment
from tests.end_to_end.conftest import Night, night
from tests.support.command import Caller, Ended
from tests.support.models import write_tiny_cnn

__all__ = ["night"]


@dataclass(frozen=True)
class Command:
    """`fer-batch` with settings in its environment; a call may change some, None unsets one."""

    caller: Caller
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str = "", **changes: str | None) -> Ended:
        alone = {"FER_ENV_FILE": os.devnull, "HOME": str(self.folder)}
        asked: dict[str, str | None] = {**alone, **self.env, **changes}
        env = {name: value for name, value in asked.items() if value is not None}
        return self.caller(*arguments, env=env, folder=self.folder, stdin=stdin)


@pytest.fixture(scope="session")
def caller() -> Iterator[Caller]:
    with Caller() as running:
        yield running


@pytest.fixture
def fer(caller: Caller, tmp_path: Path) -> Command:
    """The command in an empty folder, with the tiny CNN and nothing else set."""
    cnn, folder = tmp_path / "model", tmp_path / "here"
    cnn.mkdir()
    folder.mkdir()
    return Command(caller, folder, {"FER_MODEL_CARD": str(write_tiny_cnn(cnn)), "FER_THREADS": "1"})


@pytest.fixture
def nightly(fer: Command, night: Night) -> Command:
    """The command with the settings of `night`: its database, bucket, registry and CNN."""
    return Command(fer.caller, fer.folder, to_environment(night.settings))
