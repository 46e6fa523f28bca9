"""What all histories of a state machine share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_batch.model.classifier import Cnn
from tests.support.fork_server import ForkServer


@dataclass(frozen=True)
class Environment:
    """What all histories share: the servers, a folder and two CNNs."""

    server: Any
    template: str
    s3: Any
    s3_server: Any
    folder: Path
    fork_server: ForkServer
    cnns: tuple[Cnn, Cnn]
    """The first classifies bright crops as Happy, the second dark ones."""
    event_counts: Counter[str]
