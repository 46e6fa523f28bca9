"""The failpoints are a closed list, and have no effect in a process where none is armed."""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.testing import failpoints


@pytest.fixture(autouse=True)
def uncached_failpoint() -> Iterator[None]:
    failpoints.get_armed.cache_clear()
    yield
    failpoints.get_armed.cache_clear()


def test_the_list_contains_exactly_the_failpoints_of_the_code(repo_root: Path) -> None:
    names = [
        call.args[0].value
        for file in (repo_root / "fer_batch").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "failpoint"
        and isinstance(call.args[0], ast.Constant)
    ]
    known = failpoints.NAMES + failpoints.NAMES_IN_MAINTENANCE
    assert sorted(map(str, names)) == sorted(known)


def test_an_unarmed_failpoint_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.ENV_VARIABLE, raising=False)
    for name in failpoints.NAMES:
        failpoints.failpoint(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["no.such.point", "commit.before:x", "commit.before:1:HUP", "commit.before:1:KILL:2", ":1"],
)
def test_an_invalid_failpoint_is_rejected(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.ENV_VARIABLE, text)
    with pytest.raises(ConfigurationError, match="unset it"):
        failpoints.failpoint("commit.before")


def test_the_signal_is_sent_once_at_the_requested_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.ENV_VARIABLE, "fetch.after:3:TERM")
    sent: list[object] = []
    monkeypatch.setattr(signal, "raise_signal", sent.append)
    for _ in range(2):
        failpoints.failpoint("fetch.after")
        failpoints.failpoint("fetch.before")
    assert sent == []
    failpoints.failpoint("fetch.after")
    failpoints.failpoint("fetch.after")
    assert sent == [signal.SIGTERM]
