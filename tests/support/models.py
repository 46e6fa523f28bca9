"""A CNN small enough to be written by hand: bright crops are Happy, dark ones Sad.

Its model card and artifact are valid, so tests with it use the same code as the shipped CNN.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
CONFUSION = [[95, 1, 4], [2, 80, 18], [5, 6, 189]]
"""Rows are true, columns called: happy, sad, neither."""
VOTE_CALIBRATION = {
    "weights": [[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, -1.0]],
    "intercepts": [0.5, -0.5],
}
"""A calibration for a card: scores ln(happy / neutral) + 0.5 and ln(sad² / neutral) - 0.5."""


def build_tiny_onnx(
    *,
    classes: int = 7,
    crop_px: int = 48,
    dtype: int = TensorProto.UINT8,
    is_inverted: bool = False,
) -> bytes:
    """Softmax of (0, 0, 0, 8 × mean, 8 × (1 − mean), 0, 1) with the mean gray from 0 to 1.

    An inverted one classifies dark crops as Happy.
    """
    weights, bias = np.zeros((1, classes), np.float32), np.zeros(classes, np.float32)
    happy, sad = (4, 3) if is_inverted else (3, 4)
    weights[0, happy], weights[0, sad] = 8, -8
    bias[sad], bias[-1] = 8, 1
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled", "axes"], ["means"], keepdims=0),
            helper.make_node("Unsqueeze", ["means", "last"], ["column"]),
            helper.make_node("MatMul", ["column", "weights"], ["products"]),
            helper.make_node("Add", ["products", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("crops", dtype, ["N", crop_px, crop_px])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(np.float32(1 / 255), "scale"),
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def build_card(artifact: bytes, name: str = "tiny") -> dict[str, Any]:
    """A valid model card for an artifact, without a calibration to votes."""
    return {
        "format": 1,
        "name": name,
        "artefact": f"{name}.onnx",
        "artefact_sha256": hashlib.sha256(artifact).hexdigest(),
        "artefact_bytes": len(artifact),
        "input": {"name": "crops", "dtype": "uint8", "shape": ["N", 48, 48]},
        "output": {"name": "probabilities", "classes": CLASSES},
        "confusions": {"PublicTest": {"plurality": {"48": CONFUSION}}},
        "multiply_adds": 7,
        "metrics": {"test": {"happy_sad": 1.0}},
    }


def write_tiny_cnn(folder: Path, content: bytes | None = None, /, **changes: Any) -> Path:
    """Write artifact and card into a folder and return the path of the card.

    `changes` replace keys of the card.
    """
    content = build_tiny_onnx() if content is None else content
    card = build_card(content) | changes
    (folder / "tiny.onnx").write_bytes(content)
    path = folder / "tiny.json"
    path.write_text(json.dumps(card))
    return path
