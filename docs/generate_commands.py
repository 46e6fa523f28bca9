"""Generate commands.md from the help texts of the `fer-batch` command.

    python docs/generate_commands.py          # optionally with another output file

A test fails if the file in the repository is out of date.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from pydantic_core import PydanticUndefined

from fer_batch.cli import app
from fer_batch.settings import Settings

FILE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

The help text of every command (`fer-batch COMMAND --help`), and all settings. This file is
generated: change the help texts in `fer_batch/cli` and the descriptions in `fer_batch/settings.py`,
then run `python docs/generate_commands.py`.

{epilogue}
"""
SETTINGS = """## Settings

A setting is read from the environment, else from the file `.env` in the working directory (or the
file that `FER_ENV_FILE` names), else it has its default. `fer-batch config` shows the current
values and their sources, secrets masked.
"""


def render_page() -> str:
    """Render the page.

    To be called in a separate process whose name is one word: the help texts would contain it.
    """
    before, _, rest = app.generate_docs().partition("\n")[2].partition("## Table of Contents")
    _, _, commands = rest.partition("\n**")  # the groups after it also list the commands
    commands = re.sub(r"```console\n(.*)\n```", r"    \1", f"{before}**{commands}")
    commands = re.sub(r"\*\*(Parameters|Arguments)\*\*:\n\n", "", commands)
    head = HEAD.format(epilogue=textwrap.fill(str(app.help_epilogue), 100))
    return f"{head}{commands.rstrip()}\n\n{SETTINGS}\n{_render_settings()}\n"


def _render_settings() -> str:
    rows = [
        f"| `FER_{name.upper()}` | {_format_default(field.get_default())} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _format_default(value: object) -> str:
    return "" if value in (None, PydanticUndefined) else f"`{value}`"


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.write_text(render_page(), encoding="utf-8")
    sys.stdout.write(f"{file} is up to date\n")
