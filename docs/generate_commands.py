"""Write commands.md anew, from the help texts of the `fer-batch` command.

    python docs/generate_commands.py          # or with another file to write

A test fails while the file in the repository is not what this writes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from fer_batch.cli import app
from fer_batch.settings import Settings

FILE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

What `fer-batch COMMAND --help` says of every command, and every setting at the end. This file is
generated: change the help texts in `fer_batch/cli` and the descriptions in
`fer_batch/settings.py`, then run `python docs/generate_commands.py`.

{epilogue}
"""
SETTINGS = """## Settings

Each comes from the environment, else from the file `.env` of the working folder (or the one that
`FER_ENV_FILE` names), else from its default. `fer-batch config` shows what is in force, secrets
masked.
"""


def page() -> str:
    """The whole page. In a process of its own: its name must be one word, or the page holds it."""
    before, _, rest = app.generate_docs().partition("\n")[2].partition("## Table of Contents")
    _, _, commands = rest.partition("\n**")  # the groups after it list the commands as well
    commands = re.sub(r"```console\n(.*)\n```", r"    \1", f"{before}**{commands}")
    commands = re.sub(r"\*\*(Parameters|Arguments)\*\*:\n\n", "", commands)
    head = HEAD.format(epilogue=app.help_epilogue)
    return f"{head}{commands.rstrip()}\n\n{SETTINGS}\n{_settings()}\n"


def _settings() -> str:
    rows = [
        f"| `FER_{name.upper()}` | {_default(field.get_default())} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _default(value: object) -> str:
    return "" if value in (None, PydanticUndefined) else f"`{value}`"


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{file} is up to date\n")
