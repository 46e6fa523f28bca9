"""The files of docker/ as data: the compose file with its variables left in or filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<rest>[^}]*))?\}")


@dataclass(frozen=True)
class Variable:
    """A `${NAME…}` of a compose file. `default` is None where it must be set."""

    name: str
    default: str | None


def variables(text: str) -> Iterator[Variable]:
    for found in VARIABLE.finditer(text):
        is_required = (found["how"] or "?").endswith("?")
        yield Variable(found["name"], None if is_required else found["rest"])


def example() -> dict[str, str]:
    """docker/.env.example as names and values."""
    lines = (DOCKER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(value: Any, env: dict[str, str]) -> Any:
    """What compose makes of a value: variables from `env` or their default, `$$` as `$`."""
    if isinstance(value, dict):
        return {key: filled_in(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, env) for item in value]
    if not isinstance(value, str):
        return value
    text = VARIABLE.sub(lambda found: env.get(found["name"], found["rest"] or ""), value)
    return text.replace("$$", "$")
