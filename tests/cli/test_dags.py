"""`fer-batch dags export`: what it writes into a DAG folder, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_batch.resources import find_dags_dir
from tests.fixtures.command import Command


@pytest.fixture
def dags(fer: Command) -> Path:
    """A DAG folder with the files of this version, and one of its own."""
    folder = fer.folder / "airflow" / "dags"
    assert fer("dags", "export", str(folder)).code == 0
    (folder / "other.py").write_text("# another DAG\n")
    return folder


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def statuses(fer: Command, *arguments: str) -> dict[str, str]:
    rows = fer("dags", "export", *arguments, "--json").json
    return {Path(row["file"]).name: row["status"] for row in rows}


def test_the_files_of_this_version_are_written(dags: Path) -> None:
    assert read_all(dags) == {**read_all(find_dags_dir()), "other.py": b"# another DAG\n"}


def test_a_second_export_changes_nothing(fer: Command, dags: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dags.iterdir()}
    assert set(statuses(fer, str(dags)).values()) == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in dags.iterdir()} == before


def test_a_file_that_differs_is_replaced_only_with_force(fer: Command, dags: Path) -> None:
    (dags / "fer_command.py").write_text("# an older version\n")
    (dags / "fer_deadline.py").unlink()
    before = read_all(dags)
    refused = fer("dags", "export", str(dags))
    assert (refused.code, refused.out) == (2, "")
    assert "fer_command.py; nothing was written. Replace them with --force" in refused.err
    assert read_all(dags) == before

    assert statuses(fer, str(dags), "--force") == {
        ".airflowignore": "unchanged",
        "fer_command.py": "replaced",
        "fer_connections.py": "unchanged",
        "fer_deadline.py": "written",
        "fer_environment.py": "unchanged",
        "fer_incidents.py": "unchanged",
        "fer_registry.py": "unchanged",
        "fer_settings.py": "unchanged",
        "invalid_facilities.py": "unchanged",
        "satisfaction_maintenance.py": "unchanged",
        "satisfaction_nightly.py": "unchanged",
    }
    assert read_all(dags) == {**read_all(find_dags_dir()), "other.py": b"# another DAG\n"}


def test_the_lines_of_an_existing_ignore_file_are_kept(fer: Command, tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / ".airflowignore").write_text("drafts/\nfer_deadline.py")
    assert statuses(fer, str(folder))[".airflowignore"] == "replaced"
    lines = (folder / ".airflowignore").read_text().splitlines()
    assert lines[:2] == ["drafts/", "fer_deadline.py"]
    assert {"fer_command.py", "fer_incidents.py", "fer_registry.py"} <= set(lines[2:])


def test_a_file_instead_of_a_folder_is_an_error(fer: Command, tmp_path: Path) -> None:
    (tmp_path / "dags").write_text("")
    ended = fer("dags", "export", str(tmp_path / "dags"))
    assert ended.code == 2
    assert str(tmp_path / "dags") in ended.err
    assert "Traceback" not in ended.err
