"""The names of sources of images, and names as printable text."""

from __future__ import annotations

from pathlib import Path


def is_multiple(source: str) -> bool:
    """Whether a source may hold several images: a folder, or a prefix of keys."""
    if source.lower().startswith("s3://"):
        _, _, key = source[len("s3://") :].partition("/")
        return not key or key.endswith("/")
    return "://" not in source and Path(source).is_dir()


def escape_text(text: str) -> str:
    """A name as one line of printable text, whatever it contains."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in replace_surrogates(text)
    )


def replace_surrogates(text: str) -> str:
    """File names that are not UTF-8 contain surrogates, which cannot be encoded for output."""
    return text.encode("utf-8", "backslashreplace").decode()
