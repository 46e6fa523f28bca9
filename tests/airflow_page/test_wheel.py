"""The wheel of the page: what it contains, and how Airflow finds the plugin."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fer_batch import __version__


@pytest.fixture(scope="module")
def page_wheel(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> dict[str, str]:
    """The text of each file of the wheel, by name."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(repo_root / "airflow_page")], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def find_metadata(page_wheel: dict[str, str], name: str) -> str:
    (text,) = (t for file, t in page_wheel.items() if file.endswith(f".dist-info/{name}"))
    return text


def test_it_contains_the_package_and_nothing_else(
    page_wheel: dict[str, str], repo_root: Path
) -> None:
    sources = (repo_root / "airflow_page" / "fer_airflow_page").glob("*.py")
    files = {name for name in page_wheel if ".dist-info/" not in name}
    assert files == {f"fer_airflow_page/{path.name}" for path in sources}


def test_airflow_finds_the_plugin(page_wheel: dict[str, str]) -> None:
    assert find_metadata(page_wheel, "entry_points.txt").split("\n")[:2] == [
        "[airflow.plugins]",
        "fer_batch_satisfaction = fer_airflow_page.plugin:SatisfactionPlugin",
    ]


def test_it_has_the_version_of_fer_batch_and_does_not_need_it(page_wheel: dict[str, str]) -> None:
    metadata = Parser().parsestr(find_metadata(page_wheel, "METADATA"))
    assert metadata["Version"] == __version__
    needed = {Requirement(line).name for line in metadata.get_all("Requires-Dist") or ()}
    assert needed == {"apache-airflow", "fastapi", "obstore"}
