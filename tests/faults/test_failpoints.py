"""The failpoints are a closed list, and do nothing to a process that nobody armed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_batch import failpoints
from fer_batch.errors import ConfigurationError


@pytest.fixture(autouse=True)
def read_anew() -> Iterator[None]:
    failpoints._armed.cache_clear()
    yield
    failpoints._armed.cache_clear()


def test_the_list_names_every_point_of_the_code_and_no_other(repo_root: Path) -> None:
    reached = [
        call.args[0].value
        for file in (repo_root / "fer_batch").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "reach"
        and isinstance(call.args[0], ast.Constant)
    ]
    assert sorted(reached) == sorted(failpoints.NAMES)


def test_nothing_happens_where_nothing_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    for name in failpoints.NAMES:
        failpoints.reach(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["no.such.point", "commit.before:x", "commit.before:1:HUP", "commit.before:1:KILL:2", ":1"],
)
def test_what_is_no_failpoint_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, text)
    with pytest.raises(ConfigurationError, match="take it out of the environment"):
        failpoints.reach("commit.before")


def test_the_pass_is_counted_and_the_signal_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "fetch.after:3:TERM")
    sent: list[object] = []
    monkeypatch.setattr(failpoints.signal, "raise_signal", sent.append)
    for _ in range(2):
        failpoints.reach("fetch.after")
        failpoints.reach("fetch.before")
    assert sent == []
    failpoints.reach("fetch.after")
    failpoints.reach("fetch.after")
    assert sent == [failpoints.signal.SIGTERM]
