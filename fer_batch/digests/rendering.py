"""A digest as text, as HTML, and as the shorter text for a chat."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from fer_batch.digests.content import Digest
from fer_batch.reporting import wording

_TEMPLATES = Path(__file__).parent / "templates"


def render_text(digest: Digest, subscription: str) -> str:
    """The text part of a mail."""
    return _render("digest.txt", digest, subscription)


def render_html(digest: Digest, subscription: str) -> str:
    """The HTML part of a mail: the same content, without script, image or reference to a host."""
    return _render("digest.html", digest, subscription)


def render_chat(digest: Digest) -> str:
    """The sections as lines of text; the figures of single facilities are left to the report."""
    lines = []
    for section in digest.sections:
        lines.append(f"{section.title}:")
        lines += [
            f"- {f'{entry.who}: ' if entry.who else ''}{entry.text}" for entry in section.lines
        ]
    for group in digest.groups:
        lines += [f"{group.title}: {total}" for total in group.totals]
    return "\n".join([*lines, *([digest.link] if digest.link else [])])


def _render(template: str, digest: Digest, subscription: str) -> str:
    return (
        _load_environment()
        .get_template(template)
        .render(
            digest=digest,
            covered=wording.COVERED,
            not_covered=wording.NOT_COVERED,
            why=f"You get it by the subscription {subscription}; to change it, ask its operator.",
        )
    )


@cache
def _load_environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
