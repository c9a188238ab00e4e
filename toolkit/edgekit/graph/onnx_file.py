"""Read, check and save ONNX files, and say what they take and give."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.files import write_bytes
from edgekit.core.lazy import need
from edgekit.core.records import TensorSpec

# The newest IR that onnxruntime 1.23, the last one for Python 3.10, can read.
IR_VERSION = 10


def read_onnx(path: Path) -> Any:
    """Return the ModelProto at `path`, external data loaded, checked by onnx's own checker.

    Raises:
        RecipeError: It is missing, corrupted, or its external data lies elsewhere than beside it.
    """
    onnx = need("onnx", extra="host", why="read models")
    message = need("google.protobuf.message")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such model", hint="Check the path.") from None
    except (message.DecodeError, ValueError, OSError) as error:
        raise RecipeError(
            f"{path}: is no ONNX file or is damaged ({error})", hint="Export the model again."
        ) from error
    if not model.graph.node or not model.graph.output:
        raise RecipeError(f"{path}: holds no graph", hint="Export the model again.")
    for tensor in _external(onnx, model):
        _check_location(path, tensor)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[0][:240]
        raise RecipeError(
            f"{path}: is no valid ONNX model: {line}", hint="Export the model again."
        ) from error
    return model


def external_files(path: Path) -> list[Path]:
    """Return the files beside an ONNX file that hold its external data, as far as it can be read."""
    onnx, message = need("onnx", extra="host", why="read models"), need("google.protobuf.message")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (message.DecodeError, ValueError, OSError):
        return []
    places = {e.value for t in _external(onnx, model) for e in t.external_data if e.key == "location"}
    return [path.parent / p for p in sorted(places) if (path.parent / p).is_file()]


def _external(onnx: Any, model: Any) -> list[Any]:
    tensors = onnx.external_data_helper._get_all_tensors(model)  # noqa: SLF001 - has no public name
    return [t for t in tensors if onnx.external_data_helper.uses_external_data(t)]


def _check_location(path: Path, tensor: Any) -> None:
    """Refuse external data that is not a plain file beside the model."""
    place = next((e.value for e in tensor.external_data if e.key == "location"), "")
    pure = PurePosixPath(place)
    file = path.parent / place
    why = ""
    if not place or pure.is_absolute() or ".." in pure.parts or "\\" in place:
        why = "points outside the model's folder"
    elif file.is_symlink() or not file.resolve().is_relative_to(path.parent.resolve()):
        why = "is a link out of the model's folder"
    elif not file.is_file():
        why = "is missing"
    if why:
        raise RecipeError(
            f"{path}: external data {place!r} of {tensor.name!r} {why}",
            hint="Keep external data in files beside the ONNX file.",
        )


def save_onnx(model: Any, path: Path) -> None:
    """Write `model` in one file with IR version at most 10, the same bytes for the same model."""
    model.ir_version = min(model.ir_version, IR_VERSION)
    write_bytes(path, model.SerializeToString(deterministic=True))


def specs(values: Any, initializers: frozenset[str] = frozenset()) -> tuple[TensorSpec, ...]:
    """Return the specs of graph inputs or outputs; an unknown dimension is -1."""
    onnx = need("onnx", extra="host")
    found = []
    for value in values:
        if value.name in initializers:
            continue
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        found.append(TensorSpec(name=value.name, shape=shape, dtype=dtype))
    return tuple(found)


def inputs_of(model: Any) -> tuple[TensorSpec, ...]:
    """Return the model's inputs, initializers left out."""
    return specs(model.graph.input, frozenset(i.name for i in model.graph.initializer))


def outputs_of(model: Any) -> tuple[TensorSpec, ...]:
    """Return the model's outputs."""
    return specs(model.graph.output)


def metadata_of(model: Any) -> dict[str, str]:
    """Return the file's metadata entries."""
    return {p.key: p.value for p in model.metadata_props}


def arrays_of(model: Any) -> dict[str, Any]:
    """Return the initializers and constants by name, as numpy arrays."""
    onnx = need("onnx", extra="host")
    numpy_helper = need("onnx.numpy_helper", extra="host")
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
