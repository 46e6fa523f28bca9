"""Whether keys of one template may be keys of another, of the same facility or of two.

Keys overlap if a prefix of one begins with a prefix of the other. What a template stands for is
left to key_template.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from fer_batch.facilities.key_template import ANY_CAMERA, ANY_DIGIT, list_patterns

_DIGITS = frozenset(string.digits)


def find_own_overlap(templates: Sequence[str], facility_id: str) -> tuple[str, str] | None:
    """Two templates of a facility of which a prefix of one can begin with one of the other."""
    for first, second in combinations(templates, 2):
        patterns = (list_patterns(first, facility_id), list_patterns(second, facility_id))
        if any(_may_overlap(a, b) for a, b in product(*patterns)):
            return first, second
    return None


def find_overlaps(templates: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Pairs of facility ids of which a prefix of one can begin with a prefix of the other, on any
    two days.

    `templates` maps a facility id to its templates. Any digit counts as a possible digit of a
    date: a pair that cannot overlap (such as a literal month 13) may be reported, but no
    overlapping pair is missed.
    """
    patterns = [
        (re.split(f"[{ANY_DIGIT}{ANY_CAMERA}]", pattern, maxsplit=1)[0], pattern, facility_id)
        for facility_id, own in templates.items()
        for template in own
        for pattern in list_patterns(template, facility_id)
    ]
    heads = sorted(patterns)
    found = set()
    # Prefixes overlap only if one head begins with the other, and such heads are adjacent when
    # sorted.
    for i, (head, pattern, facility_id) in enumerate(heads):
        for other_head, other_pattern, other_id in heads[i + 1 :]:
            if not other_head.startswith(head):
                break
            pair = frozenset((facility_id, other_id))
            if len(pair) == 2 and pair not in found and _may_overlap(pattern, other_pattern):
                found.add(pair)
                yield facility_id, other_id


def may_overlap(template: str, facility_id: str, prefix: str) -> bool:
    """Whether keys that begin with `prefix` may be below a prefix of any day, or the reverse."""
    return any(_may_overlap(prefix, pattern) for pattern in list_patterns(template, facility_id))


def _may_overlap(a: str, b: str) -> bool:
    """Whether a text of one pattern can begin with a text of the other."""
    if ANY_CAMERA not in a + b:
        return all(_may_equal(x, y) for x, y in zip(a, b, strict=False))
    # Pairs of positions up to which both patterns can have the same text.
    reached, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(a) or j == len(b):
            return True
        x, y = a[i], b[j]
        if x == ANY_CAMERA or y == ANY_CAMERA:
            # The camera of one is one or more characters other than a slash.
            steps = [(i + 1, j + 1)]
            if x == ANY_CAMERA and y != "/":
                steps.append((i, j + 1))
            if y == ANY_CAMERA and x != "/":
                steps.append((i + 1, j))
            if "/" in (x, y):
                steps = []
        else:
            steps = [(i + 1, j + 1)] if _may_equal(x, y) else []
        waiting += [step for step in steps if step not in reached]
        reached.update(steps)
    return False


def _may_equal(x: str, y: str) -> bool:
    return x == y or (x == ANY_DIGIT and y in _DIGITS) or (y == ANY_DIGIT and x in _DIGITS)
