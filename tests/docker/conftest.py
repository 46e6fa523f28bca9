"""The compose file, as it is written and as compose would fill it in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.docker.compose_file import DOCKER, example, filled_in


@pytest.fixture(scope="session")
def written() -> dict[str, Any]:
    """docker/compose.yaml as it is written, variables and all."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="session")
def stack(written: dict[str, Any]) -> dict[str, Any]:
    """docker/compose.yaml with the example's values, and `secret-NAME` for each secret."""
    env = {name: value or f"secret-{name}" for name, value in example().items()}
    return filled_in(written, env)
