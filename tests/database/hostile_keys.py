"""Object keys that text handling may damage: quotes, line ends, rare characters."""

from __future__ import annotations

from hypothesis import strategies as st

HOSTILE = [
    "plain.jpg",
    "with space.jpg",
    "line\nbreak\tand\\backslash.jpg",
    "\\N",
    "\\.",
    "a//b.jpg",
    "../up.jpg",
    "%2F%00.jpg",
    "ключ/çédille/笑顔/😀.jpg",
    "e\u0301.jpg",
    "\u00e9.jpg",
    "'; DROP TABLE fer.image; --",
    ":key %s %(key)s {key}",
    "\x01\x1f\x7f",
    "/",
    "x" * 1024,
    "é" * 512,
]
keys = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60
) | st.sampled_from(HOSTILE)
