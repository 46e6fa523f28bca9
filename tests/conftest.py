"""Fixtures and hooks of all tests: the plugins that hold them, and where files lie.

tests/plugins/ has hooks of pytest, tests/fixtures/ has fixtures by subject, tests/support/ has what
tests call. A folder's own fixtures are in its conftest.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# Before they are imported, also by each other, so that their assertions are explained.
pytest.register_assert_rewrite("tests.fixtures", "tests.plugins", "tests.support", "tests.faults")

pytest_plugins = [
    "tests.plugins.isolation",
    "tests.plugins.kinds",
    "tests.plugins.measuring",
    "tests.plugins.memory",
    "tests.plugins.schedule",
]
FIXTURES = (
    "tests.fixtures.servers",
    "tests.fixtures.s3",
    "tests.fixtures.tables",
    "tests.fixtures.night",
    "tests.fixtures.fork_server",
    "tests.fixtures.command",
    "tests.fixtures.airflow",
)


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist wait for their controller. It collects and runs no test itself,
    # and importing what the fixtures need takes seconds.
    is_controller = config.getoption("tx", None) and not config.getoption("collectonly")
    if not is_controller or hasattr(config, "workerinput"):
        for name in FIXTURES:
            config.pluginmanager.import_plugin(name)
        import hypothesis

        hypothesis.settings.register_profile(
            "no deadline", deadline=None
        )  # the machine may be busy
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
