"""Fixtures of the tests of whole runs: a running Airflow stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fork_server import ForkServer

if TYPE_CHECKING:
    from tests.end_to_end.airflow_stack import Airflow


# It ends with the tests of this folder: an idle Airflow takes half of a core.
@pytest.fixture(scope="package")
def airflow(servers_dir: Path, fork_server: ForkServer) -> Iterator[Airflow]:
    """A running Airflow, shared by all tests that use it."""
    from tests.end_to_end.airflow_stack import airflow_running

    with airflow_running(servers_dir / "nightly-in-airflow", fork_server) as running:
        yield running
