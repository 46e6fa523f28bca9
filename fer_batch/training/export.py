"""Writes the artefact: the network as ONNX, and the card that pins it by its hash.

Both appear whole or not at all. No network goes on from here whose float32 ONNX file answers
otherwise than the Keras model it came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from fer_batch.classifier import open_artefact
from fer_batch.errors import ModelError
from fer_batch.evaluation import Classify
from fer_batch.fer2013 import CLASSES, CROP_PX
from fer_batch.training.fit import predict

MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability between Keras and ONNX Runtime."""


def to_onnx(model: Any, crops: NDArray[np.uint8]) -> tuple[bytes, Classify, float]:
    """The ONNX file, it as a function, and the largest |Δp| against Keras over `crops`.

    Raises ModelError where that is over 1e-4.
    """
    with tempfile.TemporaryDirectory(prefix="fer-export-") as folder:
        path = Path(folder) / "network.onnx"
        crops_in = keras.InputSpec(shape=(None, CROP_PX, CROP_PX), dtype="uint8", name="crops")
        model.export(path, format="onnx", verbose=False, input_signature=[crops_in])
        artefact = canonical(onnx.load(path))
    classify = open_artefact(artefact, "the exported network", threads=2)
    # Batches of several sizes, one alone among them: none may change a probability.
    expected = predict(model, crops)
    found = np.concatenate([classify(crops[:1]), classify(crops[1:])])
    difference = float(np.abs(found - expected).max())
    # Written so that a NaN, out of a training that diverged, fails as well.
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"the ONNX file differs from the Keras model by {difference:.2g}",
            "Report this with the recipe and the versions of keras, tf2onnx and onnxruntime",
        )
    return artefact, classify, difference


def canonical(converted: Any) -> bytes:
    """The ONNX file with the names that the card promises, and numbers for all others.

    The converter's own names count what the process did before, and with them changes the order of
    its nodes; in order and with numbers, the file and its hash depend on the network alone.
    """
    graph = converted.graph
    ordered_nodes = _in_order(graph)
    del graph.node[:]
    graph.node.extend(ordered_nodes)
    made = [value for node in graph.node for value in node.output]
    names = {name: f"t{number}" for number, name in enumerate(made)}
    # The converter keeps weights in no certain order: theirs is that of their first use.
    weights = {weight.name: weight for weight in graph.initializer}
    used = dict.fromkeys(n for node in graph.node for n in node.input if n in weights)
    names |= {name: f"w{number}" for number, name in enumerate(used)}
    ordered = [weights[name] for name in used]
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    names[graph.output[0].name] = "probabilities"
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for named in (*graph.initializer, *graph.output):
        named.name = names[named.name]
    # Shapes in between are under the old names; ONNX Runtime works them out itself.
    del graph.value_info[:]
    graph.name, graph.doc_string = "fer-batch", ""
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(converted, full_check=True)
    return bytes(converted.SerializeToString(deterministic=True))


def _in_order(graph: Any) -> list[Any]:
    """The nodes, each after those that it reads from, of which its last input goes first."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, Any] = {}

    def take(name: str) -> None:
        node = makers.get(name)
        if node is None or node.output[0] in ordered:
            return
        for read in reversed(node.input):
            take(read)
        ordered[node.output[0]] = node

    take(graph.output[0].name)
    return list(ordered.values())


def write(
    artefact: bytes, out_dir: Path, name: str, uncertain_below: float, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write `<name>.onnx` and `<name>.json` into `out_dir`; the card.

    `facts` go into the card as they are.
    """
    card = {
        "format": 1,
        "name": name,
        "artefact": f"{name}.onnx",
        "artefact_sha256": hashlib.sha256(artefact).hexdigest(),
        "artefact_bytes": len(artefact),
        "input": {"name": "crops", "dtype": "uint8", "shape": ["N", CROP_PX, CROP_PX]},
        "output": {"name": "probabilities", "classes": list(CLASSES)},
        "uncertain_below": uncertain_below,
        **facts,
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    _replace(out_dir / f"{name}.onnx", artefact)
    # The card comes last: until then the old card refuses the new artefact by its hash.
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    _replace(out_dir / f"{name}.json", text.encode())
    return card


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)  # noqa: PTH105
