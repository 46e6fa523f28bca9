"""Fixtures and hooks of all tests: the plugins that hold them, and where files lie.

tests/plugins/ has hooks of pytest, tests/fixtures/ has fixtures by subject, tests/support/ has what
tests call. A folder's own fixtures are in its conftest.py.
"""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# Before they are imported, also by each other, so that their assertions are explained.
pytest.register_assert_rewrite("tests.fixtures", "tests.plugins", "tests.support", "tests.faults")

pytest_plugins = [
    "tests.plugins.isolation",
    "tests.plugins.kinds",
    "tests.plugins.schedule",
    "tests.fixtures.servers",
    "tests.fixtures.s3",
    "tests.fixtures.tables",
    "tests.fixtures.night",
    "tests.fixtures.command",
    "tests.fixtures.airflow",
]

hypothesis.settings.register_profile("no deadline", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir(repo_root: Path) -> Path:
    """The folder with FER2013 and the photographs, which are no part of the project."""
    folder = repo_root.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder
