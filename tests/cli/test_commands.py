"""What holds for every command: help, documentation, imports, exit codes of wrong calls."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from rich.cells import cell_len

from fer_batch import __version__
from fer_batch.cli import app
from tests.fixtures.command import Command
from tests.support.command import build_environment
from tests.support.fork_server import ForkedPopen

HEAVY = ("airflow", "boto3", "cv2", "keras", "matplotlib", "numpy", "obstore", "onnxruntime",
         "pandas", "psycopg", "pydantic_settings", "sqlalchemy", "tensorflow")  # fmt: skip


REGISTRY = """
[facility.shibuya]
name = "渋谷スクランブルスクエア"
time_zone = "Asia/Tokyo"
image_kind = "frames"
[facility.shibuya.permission]
purpose = "a test"
lawful_basis = "a test"
approved_by = "a test"
valid_until = 2024-10-31

[facility.north]
name = "North Mall, Berlin"
time_zone = "Europe/Berlin"
image_kind = "crops"
target_rate = 0.3
"""


def _walk(parent: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that is shown, with the words that call it."""
    for name in parent:
        if not name.startswith("-") and parent[name].show:
            yield (*path, name), parent[name]
            yield from _walk(parent[name], (*path, name))


COMMANDS = dict(_walk(app))


def test_all_commands_are_walked() -> None:
    assert ("run",) in COMMANDS
    assert ("stack", "up") in COMMANDS
    assert ("worker",) not in COMMANDS
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_parameter_has_a_help_text(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help.strip().endswith((".", ")"))
    if command.default_command is None:
        return
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            assert argument.parameter.help, f"{argument.name} has no help text"


def test_every_command_is_documented(repo_root: Path) -> None:
    page = (repo_root / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [path for path in COMMANDS if f" fer-batch {' '.join(path)}\n" not in page]
    assert missing == []


def test_documentation_is_up_to_date(repo_root: Path, tmp_path: Path) -> None:
    written = tmp_path / "commands.md"
    script = repo_root / "docs" / "generate_commands.py"
    subprocess.run([sys.executable, script, written], check=True, stdout=subprocess.DEVNULL)
    page = (repo_root / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8") == page, "run docs/generate_commands.py"


def test_help_of_every_command_imports_nothing_heavy() -> None:
    program = (
        "import contextlib, io, json, sys\n"
        "from fer_batch.cli import main\n"
        "codes = {}\n"
        "for path in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['fer-batch', *path, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as printed:\n"
        "        try: main()\n"
        "        except SystemExit as end: codes[' '.join(path)] = end.code, printed.getvalue()\n"
        "print(json.dumps([codes, list(sys.modules)]))\n"
    )
    paths = [[], *map(list, COMMANDS)]
    ended = subprocess.run(
        [sys.executable, "-c", program, json.dumps(paths)],
        env=build_environment({}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed, modules = json.loads(ended.stdout)
    assert set(modules).isdisjoint(HEAVY)
    for path in paths:
        code, text = printed[" ".join(path)]
        assert code == 0
        assert text.startswith("Usage: fer-batch " + " ".join(path))
    assert "75 transient error (a retry may succeed)" in " ".join(printed[""][1].split())


def test_python_m_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fer_batch", "--version"],
        env=build_environment({}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["bogus"], "bogus"),
        (["run"], "--capture-day"),
        (["run", "--capture-day", "2026-13-01"], "2026-13-01"),
        (["run", "--capture-day", "2026-11-20", "--bogus"], "--bogus"),
        (["run", "--capture-day", "2026-11-20", "--lookback-days", "x"], "--lookback-days"),
        (["predict"], "SOURCE"),
        (["stack", "bogus"], "bogus"),
    ],
)
def test_a_wrong_call_shows_the_usage_on_stderr(
    fer: Command, arguments: list[str], word: str
) -> None:
    ended = fer(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: fer-batch" in ended.err
    assert word in ended.err
    assert "Traceback" not in ended.err


def test_a_table_is_complete_at_a_terminal_and_in_a_pipe(fer: Command) -> None:
    (fer.folder / "facilities.toml").write_text(REGISTRY, encoding="utf-8")
    settings = fer.env | {"FER_FACILITIES_FILE": "facilities.toml"}
    command = dataclasses.replace(fer, env=settings)
    header, *piped = [
        re.split(r" {2,}", line) for line in command("facilities", "list").out.splitlines()[1:]
    ]
    assert [row[0] for row in piped] == ["shibuya", "north"]
    assert {len(row) for row in piped} == {len(header)}
    for width in (80, 120):
        shown = run_in_terminal(command, ("facilities", "list"), width)
        assert "\x1b" not in shown
        assert max(map(cell_len, shown.splitlines())) <= width
        for row in piped:
            assert {word for cell in row for word in cell.split()} <= set(shown.split())


def run_in_terminal(fer: Command, path: tuple[str, ...], width: int) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = build_environment({**fer.env, "FER_ENV_FILE": os.devnull, "TERM": "xterm-256color"})
    del env["COLUMNS"]
    with ForkedPopen(fer.server, path, env=env, cwd=fer.folder, stdout=theirs) as process:
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 65_536):
                printed += part
        process.wait()
    os.close(ours)
    return printed.decode()


def test_a_character_that_stdout_lacks_is_escaped(fer: Command) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fer_batch", "models"], cwd=fer.folder, check=True,
        env=build_environment(fer.env | {"PYTHONIOENCODING": "ascii"}),
        capture_output=True, text=True,
    )  # fmt: skip
    assert r"\u2013" in ended.stdout


def test_a_closed_stdout_is_not_an_error(fer: Command) -> None:
    program = f"'{sys.executable}' -m fer_batch config --json"
    ended = subprocess.run(
        ["bash", "-c", f"exec 3>&1; {{ {program} 2>&3; echo $? >&3; }} | true"],
        env=build_environment(fer.env | {"PYTHONUNBUFFERED": "1"}),
        capture_output=True, text=True, cwd=fer.folder, check=True,
    )  # fmt: skip
    assert ended.stdout == "141\n"
