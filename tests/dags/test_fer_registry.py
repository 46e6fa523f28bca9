"""How the DAG files read the registry: as the command does, with the same texts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities import registry_file
from fer_batch.facilities.loading import load_registry

FACILITY = """[facility.mall]
name = "Maß"
time_zone = "Europe/Berlin"
image_kind = "crops"
"""


@pytest.fixture
def fer_registry(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """dags/fer_registry.py, with a registry in the folder of the test."""
    path = repo_root / "dags" / "fer_registry.py"
    spec = importlib.util.spec_from_file_location("fer_registry_of_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("FER_FACILITIES_FILE", str(tmp_path / "facilities.toml"))
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(registry_file, "RETRY_S", 0.0)
    return module


@pytest.mark.parametrize(
    "write",
    [
        lambda _: None,
        Path.mkdir,
        lambda file: file.symlink_to(file),
        lambda file: file.write_text(""),
        lambda file: file.write_text("[facility]\n"),
        lambda file: file.write_text("facility = 3\n"),
        lambda file: file.write_text("[facility.mall\n"),
        lambda file: file.write_text(FACILITY + "x = [1,\n2\n"),
        lambda file: file.write_text("x = " + "[" * 5000),
        lambda file: file.write_text(FACILITY + FACILITY),
        lambda file: file.write_bytes(FACILITY.encode("latin-1")),
        lambda file: file.write_bytes(FACILITY.encode("utf-16")),
        lambda file: file.write_bytes(FACILITY.replace("ß", "ss").encode("utf-16-le")),
    ],
)
def test_a_file_that_cannot_be_used_has_the_text_that_the_command_has(
    fer_registry: ModuleType, write: Callable[[Path], object]
) -> None:
    file = fer_registry.find_registry_file()
    write(file)
    with pytest.raises(ConfigurationError) as of_command:
        load_registry(file)
    with pytest.raises(fer_registry.RegistryError) as of_dags:
        fer_registry.read_registry()
    what = Exception.__str__(of_command.value).removesuffix(": it contains no facility")
    assert str(file) in what
    assert str(of_dags.value).startswith(what.replace(" is empty", " contains no facility"))
    assert ". " in str(of_dags.value).removeprefix(what)  # the remedy


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_marks_and_line_ends_of_editors_are_accepted(
    fer_registry: ModuleType, encoding: str, newline: str
) -> None:
    fer_registry.find_registry_file().write_bytes(FACILITY.replace("\n", newline).encode(encoding))
    document = fer_registry.read_registry()
    assert fer_registry.list_time_zones(document) == ["Europe/Berlin"]
    assert fer_registry.find_problems(document) == []


@pytest.mark.parametrize(
    "table",
    [
        'time_zone = "Europe/Olso"',
        'time_zone = "Europe"',
        'time_zone = "../../etc/passwd"',
        'time_zone = "localtime"',
        'time_zone = ""',
        'name = "x"',
    ],
)
def test_a_facility_without_a_time_zone_has_the_text_that_the_command_has(
    fer_registry: ModuleType, table: str
) -> None:
    file = fer_registry.find_registry_file()
    file.write_text(f"{FACILITY}[facility.shop]\n{table}\n")
    document = fer_registry.read_registry()
    assert fer_registry.list_time_zones(document) == ["Europe/Berlin"]
    (problem,) = fer_registry.find_problems(document)
    of_command = [f"facility shop: {p}" for p in load_registry(file).invalid["shop"].problems]
    if "localtime" in table:
        assert problem.startswith("facility shop: time_zone must be an IANA time zone")
    else:
        assert problem in of_command


def test_tables_of_any_shape_cost_only_themselves(fer_registry: ModuleType) -> None:
    fer_registry.find_registry_file().write_text(
        FACILITY
        + 'credentials = "north"\n'
        + '[facility.a]\ntime_zone = ["UTC"]\ncredentials = 3\n'
        + "[facilities.b]\n[[facility.c]]\n"
    )
    document = fer_registry.read_registry()
    assert fer_registry.list_time_zones(document) == ["Europe/Berlin"]
    assert fer_registry.list_credentials(document) == ["north"]
    problems = "; ".join(fer_registry.find_problems(document))
    assert "facility a: time_zone must be" in problems
    assert "'facilities' at the top" in problems
    assert "facility c: must be a table" in problems


@pytest.mark.parametrize("moment", ["", FACILITY[:20], None])
def test_a_file_that_is_being_replaced_is_read_again(
    fer_registry: ModuleType, monkeypatch: pytest.MonkeyPatch, moment: str | None
) -> None:
    file = fer_registry.find_registry_file()
    if moment is not None:
        file.write_text(moment)
    monkeypatch.setattr(fer_registry.time, "sleep", lambda _: file.write_text(FACILITY))
    assert fer_registry.list_time_zones(fer_registry.read_registry()) == ["Europe/Berlin"]


def test_an_old_file_with_an_error_is_not_read_again(
    fer_registry: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fer_registry.find_registry_file()
    file.write_text("[facility.mall")
    os.utime(file, (1, 1))
    monkeypatch.setattr(fer_registry.time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(fer_registry.RegistryError):
        fer_registry.read_registry()
