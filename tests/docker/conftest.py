"""Fixtures: the compose file with its variables, and with the variables substituted."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.docker.compose_file import DOCKER, read_example, substitute


@pytest.fixture(scope="session")
def raw_stack() -> dict[str, Any]:
    """docker/compose.yaml with its variables."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="session")
def stack(raw_stack: dict[str, Any]) -> dict[str, Any]:
    """docker/compose.yaml with the example's values, and `secret-NAME` for each secret."""
    env = {name: value or f"secret-{name}" for name, value in read_example().items()}
    return substitute(raw_stack, env)
