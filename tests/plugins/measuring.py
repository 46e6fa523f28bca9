"""Coverage is that of the unit tests, also where all tests run: tracing makes a test a half slower.

The other tests start servers, Airflow and scoring processes, most of which would be traced too.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.fork_server import COVERAGE


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    plugin = item.config.pluginmanager.getplugin("_cov")
    controller = getattr(plugin, "cov_controller", None)
    if controller is None or item.get_closest_marker("unit"):
        return (yield)
    # Without the variable, the processes that the test or its fixtures start are not traced.
    process_config = os.environ.pop(COVERAGE, None)
    controller.pause()
    try:
        return (yield)
    finally:
        controller.resume()
        if process_config is not None:
            os.environ[COVERAGE] = process_config
