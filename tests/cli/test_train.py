"""`fer-batch train --candidates`: what is refused before hours are spent, and what is registered.

The training itself, with networks that take seconds, is in tests/training.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_batch.cli import model
from tests.fixtures.command import Command
from tests.fixtures.night import Night
from tests.support.models import build_tiny_onnx, write_tiny_cnn


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        (["--epochs", "0"], {}, "0 epochs were requested"),
        ([], {"FER_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"}, "cannot be reached"),
    ],
)
def test_errors_are_reported_before_training(
    nightly: Command, tmp_path: Path, more: list[str], changes: dict[str, str], said: str
) -> None:
    ended = nightly("train", "--candidates", "--data", str(tmp_path / "none.csv"), *more, **changes)
    assert (ended.code != 0, said in ended.err) == (True, True)


def test_candidates_are_registered_if_a_database_is_set(
    nightly: Command, night: Night, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = []
    for label in ("small", "large"):
        folder = tmp_path / label
        folder.mkdir()
        content = build_tiny_onnx(is_inverted=label == "small")
        cards.append(write_tiny_cnn(folder, content, name=f"new-{label}"))
    model._register(night.with_settings(database_url=None).settings, cards)
    assert "not registered" in "".join(capsys.readouterr())
    model._register(night.settings, cards)
    listed = {row["name"]: row for row in nightly("models", "--json").json}
    assert listed["new-small"]["registered_at"]
    assert listed["new-large"]["registered_at"]
