"""The licenses of everything that the wheel and its extras need, as the packages declare them."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALLOWED = re.compile(
    r"\b(MIT(-0|-CMU)?|Apache|0?BSD|ISC|ISCL|PSF|Python Software Foundation|MPL|Mozilla Public"
    r"|Unlicense|Zlib|CC0|LGPL|Library or Lesser General Public)\b"
)
FORBIDDEN = re.compile(
    r"\bA?GPL|General Public License|\bSSPL|\bBUSL|Proprietary|Commercial", re.IGNORECASE
)
LESSER = re.compile(
    r"\bLGPL[\w.+-]*|(GNU )?(Library or )?Lesser General Public License", re.IGNORECASE
)

EXPLAINED = {
    "namex": "declares none; the file LICENSE in its wheel is the Apache License 2.0",
    "text-unidecode": "under the Artistic License or the GPL, as one chooses: here the former",
}
"""Packages whose declaration is missing or would be refused, and why they are accepted."""


def list_packages() -> dict[str, metadata.Distribution]:
    """The installed packages that fer-batch needs with all its extras, directly or not."""
    own = metadata.distribution("fer-batch")
    pending = [("fer-batch", frozenset(own.metadata.get_all("Provides-Extra") or ()))]
    found: dict[str, metadata.Distribution] = {}
    seen = set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = metadata.distribution(name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                pending.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found


def declare(package: metadata.Distribution) -> list[str]:
    """What a package declares: the alternatives of its expression, else field and classifiers."""
    fields: Any = package.metadata  # a Message, which the type does not tell
    if expression := fields.get("License-Expression"):
        return expression.split(" OR ") if " AND " not in expression else [expression]
    lines = (fields.get("License") or "").strip().splitlines()
    # Some have the whole text of the license in the field: its first line may be a heading.
    own = [line for line in lines[:1] if len(line) < 80]
    classifiers = [c for c in fields.get_all("Classifier") or () if c.startswith("License ::")]
    return ["; ".join([*own, *classifiers])]


def judge(declared: list[str]) -> str:
    """Why a declaration is refused; empty if one of its alternatives is accepted."""
    reasons = []
    for text in declared:
        if FORBIDDEN.search(LESSER.sub("LGPL", text)):
            reasons.append(f"{text!r} is not accepted")
        elif not ALLOWED.search(text):
            reasons.append(f"{text!r} is not known")
        else:
            return ""
    return "; ".join(reasons)


@pytest.mark.parametrize(
    ("declared", "is_accepted"),
    [
        (["MIT"], True),
        (["LGPL-3.0-only"], True),
        (["LGPL with exceptions; License :: OSI Approved :: GNU Library or Lesser General Public "
          "License (LGPL)"], True),
        (["BSD-3-Clause AND 0BSD AND MIT"], True),
        (["GPL-3.0-only", "MIT"], True),  # one may choose
        (["GPL-3.0-only AND MIT"], False),
        (["AGPL-3.0-or-later"], False),
        (["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], False),
        (["License :: OSI Approved :: GNU Affero General Public License v3"], False),
        (["LGPL-2.1-only AND GPL-2.0-only"], False),
        ([""], False),
        (["UNKNOWN"], False),
        (["See LICENSE"], False),
    ],
)  # fmt: skip
def test_which_declarations_are_accepted(declared: list[str], is_accepted: bool) -> None:
    assert (not judge(declared)) is is_accepted


def test_all_that_the_wheel_needs_has_a_license_that_allows_its_use() -> None:
    packages = list_packages()
    assert {"onnxruntime", "tensorflow-cpu", "apache-airflow", "apprise", "pyarrow"} <= set(
        packages
    )
    refused = {name: reason for name, each in packages.items() if (reason := judge(declare(each)))}
    assert refused.keys() == EXPLAINED.keys(), refused
