"""Static int8 quantization of the artifact: twice as fast, a quarter of the size.

Convolutions after the first and before the global average pooling use uint8 activations and int8
weights (static quantization of ONNX Runtime). Standardizing the crop, the first convolution, the
average pooling between stages and the last layer stay in float32. The loss of accuracy and
calibration is measured on PublicTest.
"""

from __future__ import annotations

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

from fer_batch.files import temporary_folder
from fer_batch.log import get_logger
from fer_batch.model.classifier import BATCH_SIZE, open_artifact
from fer_batch.model.evaluation import Classify, compute_metrics
from fer_batch.model.fer2013 import Split
from fer_batch.training.export import canonicalize

log = get_logger(__name__)

MAX_DEGRADATION = 0.002
"""Maximum loss of accuracy on Happy and Sad, and maximum increase of the calibration error."""

CALIBRATION_CROPS = 960
"""Number of training crops from which the ranges of the activations are determined."""

_OPERATIONS = ["Conv", "Add", "Relu"]


def quantize_if_accurate(
    artifact: bytes, classify: Classify, crops: NDArray[np.uint8], public: Split
) -> tuple[bytes, Classify, dict[str, Any]]:
    """The quantized artifact, its classify function and the degradation; or the given artifact.

    `crops` are of Training, uint8 [N,48,48]. The float32 artifact is kept if quantization degrades
    a metric by more than `MAX_DEGRADATION`, and if `public` has no Happy or Sad face to measure it;
    `is_taken` in the returned facts, a key of the card, is True if the quantized one is returned.
    """
    float_probabilities = classify(public.pixels)
    before = compute_metrics(float_probabilities, public)
    if before["happy_sad"]["rows"] == 0:
        return artifact, classify, {"is_taken": False}
    quantized = quantize_int8(artifact, crops)
    classify_quantized = open_artifact(quantized, "the quantized network", threads=2)
    probabilities = classify_quantized(public.pixels)
    after = compute_metrics(probabilities, public)
    degradation = {
        "accuracy_lost": before["happy_sad"]["accuracy"] - after["happy_sad"]["accuracy"],
        "calibration_error_added": after["calibration"]["ece"] - before["calibration"]["ece"],
    }
    # `<=` is false for NaN, so a diverged network is not quantized.
    is_accurate_enough = all(value <= MAX_DEGRADATION for value in degradation.values())
    changes = np.abs(probabilities - float_probabilities)
    facts = {
        "is_taken": is_accurate_enough,
        **degradation,
        "mean_change_of_a_probability": float(changes.mean()),
        "largest_change_of_a_probability": float(changes.max()),
    }
    if not is_accurate_enough:
        log.warning("float32 kept: int8 quantization degrades the metrics too much", **facts)
        return artifact, classify, facts
    return quantized, classify_quantized, facts


def quantize_int8(artifact: bytes, crops: NDArray[np.uint8]) -> bytes:
    """An artifact of `export_onnx` with all convolutions but the first quantized to int8.

    The ranges of the activations are averages over batches of the training crops `crops`, uint8
    [N,48,48]. Weights are between -64 and 64 with a scale per output channel: the sum of two
    products of 255 and 64 fits in 16 bits, so processors that accumulate in 16 bits (those without
    VNNI) compute the same integers as all others.
    """
    calibration_crops = crops[:: max(1, len(crops) // CALIBRATION_CROPS)][:CALIBRATION_CROPS]
    with temporary_folder() as folder:
        prepared, written = folder / "prepared.onnx", folder / "quantized.onnx"
        # Only shape inference is needed: the graph must not be changed.
        quant_pre_process(
            onnx.load_from_string(artifact),
            prepared,
            skip_optimization=True,
            skip_symbolic_shape=True,
        )
        quantize_static(
            prepared,
            written,
            _CalibrationBatches(calibration_crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATIONS,
            nodes_to_quantize=_list_quantized_nodes(onnx.load(prepared).graph),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        model = onnx.load(written)
    del model.metadata_props[:]
    return canonicalize(model)


def _list_quantized_nodes(graph: Any) -> list[str]:
    """The names of the nodes to quantize."""
    operations = [node.op_type for node in graph.node]
    first, end = operations.index("Conv") + 1, operations.index("GlobalAveragePool")
    return [node.name for node in graph.node[first:end] if node.op_type in _OPERATIONS]


class _CalibrationBatches(CalibrationDataReader):  # type: ignore[misc]
    """Batches of crops for the quantizer's calibration of activation ranges."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        starts = range(0, len(crops), BATCH_SIZE)
        self._batches = iter([crops[start : start + BATCH_SIZE] for start in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"crops": batch}
