"""Write small models and data: a detector made by hand that really detects, and images for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CELL = 64, 8
NAMES = ("white", "red")


def _conv(
    name: str, weight: np.ndarray, bias: np.ndarray, given: str, out: str, *, stride: int = 1, pad: int = 0
):
    stored = [numpy_helper.from_array(weight.astype(np.float32), f"{name}.w")]
    stored.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.b"))
    node = helper.make_node(
        "Conv", [given, f"{name}.w", f"{name}.b"], [out], name=name, strides=[stride, stride], pads=[pad] * 4
    )
    return node, stored


def write_detector(path: Path, *, side: int | str = SIDE, names: tuple[str, ...] = NAMES) -> Path:
    """Write a detector in YOLOv8's layout: the mean of each 8 x 8 cell says whether a square fills it.

    White squares are bright in all channels, red ones in the first alone, so `green` is the score of
    white and `red - green` that of red. Two layers before copy the channels.
    """
    cells = (SIDE // CELL) ** 2
    copy = np.zeros((8, 3, 3, 3))
    for k in range(8):
        copy[k, k % 3, 1, 1] = 1
    again = np.zeros((8, 8, 3, 3))
    for k in range(8):
        again[k, k, 1, 1] = 1
    mean = np.zeros((2, 8, CELL, CELL))
    mean[0, 1] = mean[1, 0] = 1 / CELL**2
    mean[1, 1] = -1 / CELL**2
    parts = [
        _conv("first", copy, np.zeros(8), "images", "a", pad=1),
        _conv("second", again, np.zeros(8), "b", "c", pad=1),
        _conv("cells", mean, np.zeros(2), "d", "e", stride=CELL),
    ]
    middle = (np.arange(SIDE // CELL) + 0.5) * CELL
    y, x = np.meshgrid(middle, middle, indexing="ij")
    boxes = np.stack([x.ravel(), y.ravel(), np.full(cells, CELL), np.full(cells, CELL)])[None].astype(
        np.float32
    )
    nodes = [
        parts[0][0], helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        parts[1][0], helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        parts[2][0], helper.make_node("Reshape", ["e", "flat"], ["scores"], name="flat_scores"),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], name="join", axis=1),
    ]  # fmt: skip
    stored = [s for _, some in parts for s in some]
    stored.append(numpy_helper.from_array(boxes, "boxes"))
    stored.append(numpy_helper.from_array(np.array([1, 2, cells], np.int64), "flat"))
    graph = helper.make_graph(
        nodes, "squares",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, cells])],
        stored,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    words = {"task": "detect", "names": str(dict(enumerate(names)))}
    helper.set_model_props(model, words)
    onnx.save(model, str(path))
    return path


def write_classifier(path: Path, *, classes: int = 7) -> Path:
    """Write a classifier with random weights that declares nothing."""
    rng = np.random.default_rng(0)
    first = _conv(
        "stem", rng.normal(size=(8, 3, 3, 3)) * 0.2, rng.normal(size=8) * 0.1, "input", "a", stride=2, pad=1
    )
    stored = [*first[1], numpy_helper.from_array(rng.normal(size=(8, classes)).astype(np.float32), "head.w")]
    nodes = [
        first[0], helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("MatMul", ["d", "head.w"], ["logits"], name="head"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "blobs",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        stored,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def write_two_inputs(path: Path) -> Path:
    """Write a model of two inputs and two outputs, one of them integers."""
    nodes = [
        helper.make_node("Add", ["left", "right"], ["sum"], name="add"),
        helper.make_node("ArgMax", ["sum"], ["best"], name="best_of", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "pair",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 5]) for n in ("left", "right")],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 5]),
            helper.make_tensor_value_info("best", TensorProto.INT64, [1]),
        ],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def scene(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Return a BGR image with some squares, and (class, column, row) of each."""
    image = rng.integers(0, 30, (SIDE, SIDE, 3)).astype(np.uint8)
    marks = []
    for cell in rng.choice((SIDE // CELL) ** 2, 5, replace=False):
        row, column, label = int(cell) // 8, int(cell) % 8, int(rng.integers(2))
        colour = (250, 250, 250) if label == 0 else (10, 10, 250)
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = colour
        marks.append((label, column, row))
    return image, marks


def write_data(root: Path, *, train: int = 48, val: int = 12) -> Path:
    """Write images and labels in YOLO layout; return the `data.yaml`."""
    rng = np.random.default_rng(5)
    for split, count in (("train", train), ("val", val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for k in range(count):
            image, marks = scene(rng)
            cv2.imwrite(str(root / "images" / split / f"{k:03d}.png"), image)
            share = CELL / SIDE
            lines = [f"{c} {(x + 0.5) * share} {(y + 0.5) * share} {share} {share}\n" for c, x, y in marks]
            (root / "labels" / split / f"{k:03d}.txt").write_text("".join(lines))
    names = "".join(f"  {k}: {n}\n" for k, n in enumerate(NAMES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return root / "data.yaml"


def write_hungry(path: Path, *, megabytes: int) -> Path:
    """Write a model of one small input whose first layer makes a tensor of this size."""
    repeats = np.array([1, 1, megabytes * 1_000_000 // (3 * SIDE * SIDE * 4), 1], dtype=np.int64)
    nodes = [
        helper.make_node("Tile", ["images", "repeats"], ["many"], name="many"),
        helper.make_node("GlobalAveragePool", ["many"], ["output0"], name="mean"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 3, 1, 1])
    stored = [numpy_helper.from_array(repeats, "repeats")]
    graph = helper.make_graph(nodes, "hungry", [images], [output], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
