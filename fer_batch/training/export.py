"""Export: the network as an ONNX artifact, and the card that pins it by its hash.

Both files are written atomically. A network is rejected if its float32 ONNX file gives other
probabilities than the Keras model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from fer_batch.errors import ModelError
from fer_batch.files import replacing, temporary_folder
from fer_batch.model.classifier import open_artifact
from fer_batch.model.evaluation import Classify
from fer_batch.model.fer2013 import CLASSES, CROP_PX
from fer_batch.training.fit import predict

MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability between Keras and ONNX Runtime."""


def export_onnx(model: Any, crops: NDArray[np.uint8]) -> tuple[bytes, Classify, float]:
    """The ONNX file, its classify function, and the largest |Δp| against Keras over `crops`.

    `crops` are uint8 [N,48,48]. Raises ModelError if the difference is over `MAX_DIFFERENCE`.
    """
    with temporary_folder() as folder:
        path = folder / "network.onnx"
        crops_in = keras.InputSpec(shape=(None, CROP_PX, CROP_PX), dtype="uint8", name="crops")
        model.export(path, format="onnx", verbose=False, input_signature=[crops_in])
        artifact = canonicalize(onnx.load(path))
    classify = open_artifact(artifact, "the exported network", threads=2)
    # A batch of one crop and a large one: the batch size must not change a probability.
    expected = predict(model, crops)
    probabilities = np.concatenate([classify(crops[:1]), classify(crops[1:])])
    difference = float(np.abs(probabilities - expected).max())
    # Negated so that NaN, the result of a diverged training, fails as well.
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"the ONNX file differs from the Keras model by {difference:.2g}",
            "Report this with the recipe and the versions of keras, tf2onnx and onnxruntime",
        )
    return artifact, classify, difference


def canonicalize(converted: Any) -> bytes:
    """The serialized ONNX model with the input and output names of the card and numbered tensors.

    The converter's names depend on what the process converted before, and so does the order of its
    nodes. With sorted nodes and numbered names, the file and its hash depend only on the network.
    Raises the errors of `onnx.checker`.
    """
    graph = converted.graph
    ordered_nodes = _sort_topologically(graph)
    del graph.node[:]
    graph.node.extend(ordered_nodes)
    outputs = [value for node in graph.node for value in node.output]
    names = {name: f"t{number}" for number, name in enumerate(outputs)}
    # The converter's order of the weights is not deterministic: sort them by their first use.
    weights = {weight.name: weight for weight in graph.initializer}
    by_first_use = dict.fromkeys(n for node in graph.node for n in node.input if n in weights)
    names |= {name: f"w{number}" for number, name in enumerate(by_first_use)}
    ordered_weights = [weights[name] for name in by_first_use]
    del graph.initializer[:]
    graph.initializer.extend(ordered_weights)
    names[graph.output[0].name] = "probabilities"
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for tensor in (*graph.initializer, *graph.output):
        tensor.name = names[tensor.name]
    # The shapes of intermediate tensors have the old names; ONNX Runtime infers them itself.
    del graph.value_info[:]
    graph.name, graph.doc_string = "fer-batch", ""
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(converted, full_check=True)
    return bytes(converted.SerializeToString(deterministic=True))


def _sort_topologically(graph: Any) -> list[Any]:
    """The nodes in a deterministic topological order: depth first, last input first."""
    producers = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, Any] = {}

    def visit(name: str) -> None:
        node = producers.get(name)
        if node is None or node.output[0] in ordered:
            return
        for input_name in reversed(node.input):
            visit(input_name)
        ordered[node.output[0]] = node

    visit(graph.output[0].name)
    return list(ordered.values())


def write(artifact: bytes, out_dir: Path, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `<name>.onnx` and `<name>.json` into `out_dir`; returns the card.

    `facts` are further keys of the card: its optional ones, and informative ones.
    """
    card = {
        "format": 1,
        "name": name,
        "artefact": f"{name}.onnx",
        "artefact_sha256": hashlib.sha256(artifact).hexdigest(),
        "artefact_bytes": len(artifact),
        "input": {"name": "crops", "dtype": "uint8", "shape": ["N", CROP_PX, CROP_PX]},
        "output": {"name": "probabilities", "classes": list(CLASSES)},
        **facts,
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    _replace(out_dir / f"{name}.onnx", artifact)
    # The card is written last: until then an old card rejects the new artifact by its hash.
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    _replace(out_dir / f"{name}.json", text.encode())
    return card


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
