"""The binary form of what the server of the decoders is told: its configuration and commands."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

START, END = 1, 2
COMMAND = struct.Struct("<Bi")  # what to do, and the decoder to end
REPLY = struct.Struct("<i")  # process id, or 0 when it has ended
LENGTH = struct.Struct("<I")
"""Before a text in JSON: the configuration, and in reply a list of at most one problem."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What decoders need to know. `memory_bytes` is the budget of all of them together."""

    max_bytes: int
    max_pixels: int
    min_px: int
    detector_file: Path | None
    min_face_px: int
    memory_bytes: int

    def to_json(self) -> bytes:
        file = self.detector_file
        return json.dumps({**asdict(self), "detector_file": file and str(file)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Configuration:
        values = json.loads(text)
        file = values.pop("detector_file")
        return cls(detector_file=None if file is None else Path(file), **values)
