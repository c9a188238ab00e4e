"""Store float32 weights in fp16 inside an ONNX file, and bring them back."""

from __future__ import annotations

from typing import Any

from edgekit.core.lazy import need

_SUFFIX = "::fp16"


def store_half(model: Any, *, in_place: bool = False) -> Any:
    """Return a copy whose float32 weights are stored in fp16, each behind a Cast to float32.

    The file is half as large and computes in float32 on every engine.

    Args:
        model: A ModelProto.
        in_place: Change it instead of a copy: of large ones there is no room for two.
    """
    onnx, numpy_helper = need("onnx", extra="host"), need("onnx.numpy_helper", extra="host")
    done = model
    if not in_place:
        done = onnx.ModelProto()
        done.CopyFrom(model)
    casts = []
    for stored in done.graph.initializer:
        array = numpy_helper.to_array(stored)
        if array.dtype.name != "float32" or array.size < 2:
            continue
        name = stored.name
        stored.CopyFrom(numpy_helper.from_array(array.astype("float16"), name + _SUFFIX))
        casts.append(onnx.helper.make_node("Cast", [name + _SUFFIX], [name], name=f"{name}::cast", to=1))
    nodes = [*casts, *done.graph.node]
    del done.graph.node[:]
    done.graph.node.extend(nodes)
    return done


def restore_half(model: Any) -> Any:
    """Return `model` with every fp16 weight that is only cast to float32 as a float32 weight."""
    numpy_helper = need("onnx.numpy_helper", extra="host")
    stored = {i.name: i for i in model.graph.initializer}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    kept = []
    for node in model.graph.node:
        source = stored.get(node.input[0]) if node.op_type == "Cast" else None
        alone = source is not None and source.data_type == 10 and readers[source.name] == 1
        if source is None or not alone or node.attribute[0].i != 1:
            kept.append(node)
            continue
        array = numpy_helper.to_array(source).astype("float32")
        source.CopyFrom(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
