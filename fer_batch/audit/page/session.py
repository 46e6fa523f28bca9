"""Which face a rater sees, and what becomes of the labels: the page without HTTP.

The next face is the first of the rater's order that has no label and can be shown. So a session
that was interrupted continues where it stopped. Labels are stored by the audit's `Labeling`,
pictures come from a `CropReader`. Both are called from one thread at a time, except `read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fer_batch.audit.crops import HiddenFace
from fer_batch.audit.labeling import AuditFace, Label
from fer_batch.errors import ConfigurationError
from fer_batch.log import get_logger
from fer_batch.phrases import format_count

log = get_logger(__name__)

NOT_ACCEPTED = "the audit accepts no label of it any more"


class Labels(Protocol):
    """The faces in the order of a rater, and this rater's labels by the numbers of the faces."""

    @property
    def faces(self) -> Sequence[AuditFace]: ...

    @property
    def labels(self) -> Mapping[int, Label]: ...

    def save(self, number: int, label: Label) -> None: ...

    def remove(self, number: int) -> None: ...


class Pictures(Protocol):
    """Where the pictures come from."""

    def find_obstacle(self, face: AuditFace) -> HiddenFace | None: ...

    def read(self, face: AuditFace) -> bytes | HiddenFace: ...


class UnknownFaceError(Exception):
    """The request is about a face that this session has not shown."""


class LabelingSession:
    """One rater at the page; `title` says what is labeled, and is shown with each face."""

    def __init__(self, labeling: Labels, pictures: Pictures, title: str) -> None:
        self._labeling = labeling
        self._pictures = pictures
        self._title = title
        self._faces = {face.number: face for face in labeling.faces}
        self._positions = {number: place for place, number in enumerate(self._faces, start=1)}
        self._hidden: dict[int, str] = {}
        self._shown: set[int] = set()
        self._saved: list[int] = []  # in this session, the last one at the end
        self._taken_back: list[int] = []  # their faces come first, the last one at once

    @property
    def labeled(self) -> int:
        """How many faces have a label."""
        return sum(number in self._labeling.labels for number in self._faces)

    @property
    def total(self) -> int:
        """How many faces there are."""
        return len(self._faces)

    @property
    def hidden(self) -> Counter[str]:
        """How many faces without a label cannot be shown, by reason."""
        known = list(self._hidden.items())  # a copy, as threads that read pictures add to it
        return Counter(reason for n, reason in known if n not in self._labeling.labels)

    def describe(self) -> dict[str, Any]:
        """What the page shows, for JSON: the face, the next one, and the progress.

        `number` is that of a face that may be shown at this moment, or None if none is left.
        Raises what `find_obstacle` of the pictures raises.
        """
        waiting = self._list_waiting()
        while waiting:
            obstacle = self._pictures.find_obstacle(self._faces[waiting[0]])
            if obstacle is None:
                break
            self._hide(waiting.pop(0), obstacle)
        number = waiting[0] if waiting else None
        return {
            "title": self._title,
            "number": number,
            "position": None if number is None else self._positions[number],
            "next": waiting[1] if len(waiting) > 1 else None,
            "labeled": self.labeled,
            "total": self.total,
            "can_go_back": self._find_last_saved() is not None,
            "hidden": describe_hidden(self.hidden),
        }

    def read(self, number: int) -> bytes | HiddenFace:
        """The picture of a face, as PNG. Raises UnknownFaceError, and what `Pictures` raise.

        Safe to call from threads.
        """
        face = self._get_face(number)
        picture = self._pictures.read(face)
        if isinstance(picture, HiddenFace):
            self._hide(number, picture)
        else:
            self._shown.add(number)
        return picture

    def save(self, number: int, label: Label) -> dict[str, Any]:
        """Store a label and describe the next face. `problem` is why it was not stored, or empty.

        It is not stored if the face may not be shown any more, as after an erasure, or if the audit
        does not accept it. Raises UnknownFaceError for a face that was not shown, and the errors of
        the database.
        """
        face = self._get_face(number)
        if number not in self._shown:
            raise UnknownFaceError(number)
        obstacle, problem = self._pictures.find_obstacle(face), ""
        if obstacle is None:
            try:
                self._labeling.save(number, label)
            except ConfigurationError as error:
                obstacle, problem = HiddenFace(NOT_ACCEPTED), str(error)
        if obstacle is None:
            self._forget(number)
            self._saved.append(number)
        else:
            self._hide(number, obstacle)
            problem = problem or obstacle.reason
        return self.describe() | {"problem": problem}

    def go_back(self) -> dict[str, Any]:
        """Remove the label that was given last, and describe its face. Without one, do nothing."""
        number = self._find_last_saved()
        if number is not None:
            self._labeling.remove(number)
            self._forget(number)
            self._taken_back.append(number)
        return self.describe()

    def _forget(self, number: int) -> None:
        for numbers in (self._saved, self._taken_back):
            if number in numbers:
                numbers.remove(number)

    def _get_face(self, number: int) -> AuditFace:
        if number not in self._faces:
            raise UnknownFaceError(number)
        return self._faces[number]

    def _list_waiting(self) -> list[int]:
        """The numbers of the faces without a label that can be shown as far as is known."""
        labels = self._labeling.labels
        numbers = dict.fromkeys([*reversed(self._taken_back), *self._faces])
        return [n for n in numbers if n not in labels and n not in self._hidden]

    def _find_last_saved(self) -> int | None:
        """The face labeled last; after a restart, the last labeled one before the next face."""
        if self._saved:
            return self._saved[-1]
        labels = self._labeling.labels
        waiting = self._list_waiting()
        end = self._positions[waiting[0]] if waiting else self.total + 1
        before = (n for n, place in self._positions.items() if place < end and n in labels)
        return max(before, key=self._positions.__getitem__, default=None)

    def _hide(self, number: int, obstacle: HiddenFace) -> None:
        if number not in self._hidden:
            batch = self._faces[number].image.batch
            log.warning(
                "face not shown",
                facility=batch.facility_id,
                day=batch.capture_day.isoformat(),
                face=number,
                reason=obstacle.reason,
            )
        self._hidden[number] = obstacle.reason


def describe_hidden(reasons: Mapping[str, int]) -> str:
    """How many faces cannot be shown, and why, as a sentence; empty for none."""
    count = sum(reasons.values())
    if not count:
        return ""
    listed = "; ".join(
        reason if n == count else f"{reason} ({n})" for reason, n in sorted(reasons.items())
    )
    return f"{format_count(count, 'face')} cannot be shown: {listed}"
