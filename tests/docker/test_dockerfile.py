"""docker/Dockerfile: the contents of the image, and the user that it runs as."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.docker.compose_file import DOCKER

ROOT = DOCKER.parent
Instruction = tuple[str, str]


def parse_instructions(text: str) -> list[Instruction]:
    """Return each instruction as keyword and arguments, without comments and line breaks."""
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], " ".join(line.split()[1:])) for line in joined.splitlines()]


@pytest.fixture(scope="module")
def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage by name; those before the first stage have the name `''`."""
    stages: dict[str, list[Instruction]] = {"": []}
    name = ""
    for keyword, arguments in parse_instructions((DOCKER / "Dockerfile").read_text()):
        if keyword == "FROM":
            name = arguments.split(" AS ")[1]
            stages[name] = []
        stages[name].append((keyword, arguments))
    return stages


def select(stage: list[Instruction], keyword: str) -> list[str]:
    return [arguments for name, arguments in stage if name == keyword]


def test_builder_and_image_start_from_one_pinned_python(
    stages: dict[str, list[Instruction]],
) -> None:
    [default] = select(stages[""], "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=.+:3\.11\.\d+-slim-bookworm", default)
    for stage in ("builder", "runtime"):
        assert select(stages[stage], "FROM") == [f"${{PYTHON_IMAGE}} AS {stage}"]


def test_the_image_does_not_run_as_root(stages: dict[str, list[Instruction]]) -> None:
    users = select(stages["runtime"], "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1]), "by number, as clusters require"
    after = stages["runtime"][stages["runtime"].index(("USER", users[-1])) :]
    assert "RUN" not in dict(after)


def test_the_image_contains_no_build_or_install_tools(
    stages: dict[str, list[Instruction]],
) -> None:
    [run] = select(stages["runtime"], "RUN")
    assert not re.search(r"\b(apt|apt-get|dpkg|gcc|curl|wget|uv|git)\b", run)
    assert "pip uninstall --yes" in run
    assert "pip install" not in run
    assert list(stages)[-1] == "runtime"


def test_all_packages_from_an_index_are_verified_by_hash(
    stages: dict[str, list[Instruction]],
) -> None:
    installs = [
        command
        for run in select(stages["builder"], "RUN")
        for command in run.split("&&")
        if re.search(r"\b(pip install|uv build)\b", command)
    ]
    assert len(installs) == 5
    for command in installs:
        assert "--require-hashes" in command or "--no-index --no-deps" in command
        assert "://" not in command


def test_copied_files_exist_and_are_in_the_build_context(
    stages: dict[str, list[Instruction]],
) -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = set()
    for arguments in select(stages["builder"], "COPY") + select(stages["runtime"], "COPY"):
        if not arguments.startswith("--from="):
            copied.update(arguments.split()[:-1])
    assert copied == allowed, "the build context contains exactly the copied files"
    for source in copied:
        assert (ROOT / source).exists()


def test_no_secret_is_in_the_build_context() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert not any(fnmatch("docker/.env", line.removeprefix("!")) for line in patterns[1:])
    assert ".env" in (DOCKER / ".gitignore").read_text().split()


def test_the_folders_of_volumes_belong_to_the_user(
    stages: dict[str, list[Instruction]], stack: dict[str, Any]
) -> None:
    """A new volume takes owner and mode from the folder in the image; without one, root owns it."""
    [run] = select(stages["runtime"], "RUN")
    install = next(c for c in run.split("&&") if c.strip().startswith("install -d -o fer"))
    targets = {
        volume.split(":")[1]
        for service in stack["services"].values()
        if str(service["image"]).startswith("fer-batch")
        for volume in service.get("volumes", [])
        if isinstance(volume, str)
    }
    assert targets
    assert targets <= {str(Path(word)) for word in install.split() if word.startswith("/")}
