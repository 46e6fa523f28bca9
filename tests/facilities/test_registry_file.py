"""The file of the facility registry: encoding, syntax, and a file that is being replaced."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.loading import load_registry
from tests.facilities.conftest import GOOD


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "contains no facility"),
        ("[facility]", "contains no facility"),
        ("facility = 3", "contains no facility"),
        ("[facilities.mall]", "unknown table or key 'facilities'"),
        ("[facility]\nname = 'x'", "facility name: must be a table"),
        ("[facility.mall", "is not valid TOML"),
    ],
)
def test_an_invalid_file_is_rejected(rejected, text, problem):
    assert problem in rejected(text)


def test_a_missing_file_has_a_hint(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"nowhere\.toml cannot be read.*FER_FACILITIES_FILE"
    ):
        load_registry(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_path_that_cannot_be_read_has_a_hint(tmp_path, make):
    path = tmp_path / "facilities.toml"
    make(path)

    with pytest.raises(ConfigurationError, match=r"cannot be read: .*FER_FACILITIES_FILE"):
        load_registry(path)


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [
        ("latin-1", "is not UTF-8: byte 0xdf in line 3. Save it with the encoding UTF-8"),
        ("utf-16", "is not UTF-8: it looks like UTF-16"),  # Notepad writes a byte-order mark
        ("utf-16-le", "is not UTF-8"),
        ("utf-32", "is not UTF-8"),
    ],
)
def test_a_file_that_is_not_utf8_is_rejected(rejected, encoding, problem):
    assert problem in rejected(GOOD.replace("Mall", "Maß").encode(encoding))


def test_utf16_without_a_mark_is_recognized_by_its_null_bytes(rejected):
    assert "it looks like UTF-16" in rejected(GOOD.encode("utf-16-le"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_marks_and_line_ends_of_editors_are_accepted(load, encoding, newline):
    assert load(GOOD.replace("\n", newline).encode(encoding)) == load(GOOD)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[facility.mall", "(at line 1, the last one). Correct the syntax"),
        (GOOD + "x =\n", "Invalid value (at line 6, column 4). Correct the syntax"),
        (GOOD + GOOD, "twice (at line 7, column 15). Two tables have the same name: each facility"),
        (GOOD + "name = 'x'\n", "Cannot overwrite a value (at line 6, column 11). A field is"),
        ("# nothing yet\n", "contains no facility"),
        ("x = " + "[" * 5000, "is not valid TOML"),
        ("valid_until = 2026-11-31", "That day does not exist"),
        ("x = " + "9" * 5000, "is not valid TOML"),
    ],
)
def test_an_error_of_syntax_names_the_line_and_the_remedy(rejected, text, problem):
    assert problem in rejected(text)


@pytest.mark.parametrize("moment", [b"", GOOD.encode()[:25], None])
def test_a_file_that_is_being_replaced_is_read_again(tmp_path, monkeypatch, moment):
    file = tmp_path / "facilities.toml"
    if moment is not None:
        file.write_bytes(moment)
    monkeypatch.setattr(time, "sleep", lambda _: file.write_text(GOOD))

    assert list(load_registry(file).facilities) == ["mall"]


def test_an_old_file_with_an_error_is_not_read_again(tmp_path, monkeypatch):
    file = tmp_path / "facilities.toml"
    file.write_text("[facility.mall")
    os.utime(file, (1, 1))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))

    with pytest.raises(ConfigurationError):
        load_registry(file)


def test_the_shipped_registry_permits_no_reading(repo_root):
    registry = load_registry(repo_root / "config" / "facilities.toml")
    registry.check()
    facilities = registry.facilities

    assert len({f.time_zone for f in facilities.values()}) >= 3
    for facility in facilities.values():
        assert facility.find_permission_problem(date(2026, 1, 1)) is not None
