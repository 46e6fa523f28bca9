"""Makes the artefact compute in whole numbers of eight bits: twice as fast, a quarter of the size.

Between the first convolution and the mean over the face, convolutions take uint8 activations and
int8 weights (ONNX Runtime's static quantisation); normalising the crop, the first convolution, the
means of pixels between stages and the last layer stay float32. Whether that costs too much is
measured on PublicTest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from fer_batch.classifier import BATCH, open_artefact
from fer_batch.evaluation import Classify, figures
from fer_batch.fer2013 import Split
from fer_batch.log import logger
from fer_batch.training.export import canonical

log = logger(__name__)

MAX_COST = 0.002
"""So much accuracy on Happy and Sad, and so much calibration error, may eight bits cost."""

MEASURED_CROPS = 960
"""Training crops that the ranges of activations are measured on."""

_OPERATIONS = ["Conv", "Add", "Relu"]


def where_it_costs_little(
    artefact: bytes, classify: Classify, crops: NDArray[np.uint8], public: Split
) -> tuple[bytes, Classify, dict[str, Any]]:
    """The artefact in eight bits, it as a function, and what that costs; or what was given.

    `crops` are of Training, uint8 [N,48,48]. The artefact stays as it is, in float32, where eight
    bits cost more than `MAX_COST`, and where `public` has no Happy or Sad face to measure that on;
    `is_taken` in the third part says which it is.
    """
    said = classify(public.pixels)
    before = figures(said, public, 0.0)
    if before["happy_sad"]["rows"] == 0:
        return artefact, classify, {"is_taken": False}
    quantised = to_eight_bits(artefact, crops)
    classify_quantised = open_artefact(quantised, "the quantised network", threads=2)
    said_now = classify_quantised(public.pixels)
    after = figures(said_now, public, 0.0)
    cost = {
        "accuracy_lost": before["happy_sad"]["accuracy"] - after["happy_sad"]["accuracy"],
        "calibration_error_added": after["calibration"]["ece"] - before["calibration"]["ece"],
    }
    # Written so that a NaN is too much as well.
    is_taken = all(one <= MAX_COST for one in cost.values())
    facts = {
        "is_taken": is_taken,
        **cost,
        "mean_change_of_a_probability": float(np.abs(said_now - said).mean()),
        "largest_change_of_a_probability": float(np.abs(said_now - said).max()),
    }
    if not is_taken:
        log.warning("float32 kept, as eight bits cost too much", **facts)
        return artefact, classify, facts
    return quantised, classify_quantised, facts


def to_eight_bits(artefact: bytes, crops: NDArray[np.uint8]) -> bytes:
    """An artefact of `to_onnx` with its convolutions but the first in eight bits.

    The ranges of its activations are the means of those of batches of `crops`, uint8 [N,48,48],
    training crops all. Weights are between -64 and 64, each output channel with a scale of its
    own: two products of 255 and 64 fit in 16 bits, so processors that add them there (those without
    VNNI) find the same whole numbers as all others.
    """
    chosen = crops[:: max(1, len(crops) // MEASURED_CROPS)][:MEASURED_CROPS]
    with tempfile.TemporaryDirectory(prefix="fer-quantise-") as folder:
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        # Shapes alone: the network is as it should be.
        quant_pre_process(
            onnx.load_from_string(artefact),
            prepared,
            skip_optimization=True,
            skip_symbolic_shape=True,
        )
        quantize_static(
            prepared,
            written,
            _Batches(chosen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATIONS,
            nodes_to_quantize=_middle(onnx.load(prepared).graph),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        model = onnx.load(written)
    del model.metadata_props[:]
    return canonical(model)


def _middle(graph: Any) -> list[str]:
    """The names of the nodes that compute in eight bits."""
    kinds = [node.op_type for node in graph.node]
    first, end = kinds.index("Conv") + 1, kinds.index("GlobalAveragePool")
    return [node.name for node in graph.node[first:end] if node.op_type in _OPERATIONS]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Crops as the quantiser asks for them, a batch at a time."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        starts = range(0, len(crops), BATCH)
        self._left = iter([crops[start : start + BATCH] for start in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._left, None)
        return None if batch is None else {"crops": batch}
