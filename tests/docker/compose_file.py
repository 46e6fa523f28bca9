"""Read the files of docker/, and substitute variables as compose does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?:(?P<operator>:?[-?])(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Variable:
    """A `${NAME…}` of a compose file. `default` is None if it is required."""

    name: str
    default: str | None


def find_variables(text: str) -> Iterator[Variable]:
    for match in VARIABLE.finditer(text):
        is_required = (match["operator"] or "?").endswith("?")
        yield Variable(match["name"], None if is_required else match["default"])


def read_example() -> dict[str, str]:
    """The names and values of docker/.env.example."""
    lines = (DOCKER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def substitute(value: Any, env: dict[str, str]) -> Any:
    """Substitute as compose does: variables by `env` or their default, and `$$` by `$`."""
    if isinstance(value, dict):
        return {key: substitute(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, env) for item in value]
    if not isinstance(value, str):
        return value
    text = VARIABLE.sub(lambda match: env.get(match["name"], match["default"] or ""), value)
    return text.replace("$$", "$")
