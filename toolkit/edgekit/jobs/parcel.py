"""Make what a bench needs into one parcel: the model's files, its contract, frames to draw inputs from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.read import Bundle, open_bundle
from edgekit.core.digest import digest_file, plain
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import Artifact, Contract, Frames, TensorSpec
from edgekit.data.dataset import read_split
from edgekit.frames import raw
from edgekit.frames.coded import read_frame
from edgekit.frames.images import SUFFIXES
from edgekit.graph.onnx_file import external_files, read_onnx, save_onnx, specs
from edgekit.graph.static import fix_shapes
from edgekit.models.declared import declared_by

# As many real frames as a compile draws its inputs from.
_FRAMES = 256


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What runs, with every file by its path in the order's folder.

    Attributes:
        subject: Name, kind and SHA-256.
        sources: Local files by path.
        bundle: Folder of the bundle in the parcel, empty for a single model.
        artifact: Instead of a bundle, as JSON knows it.
        frames: Paths of frames among the sources.
        note: Where inputs come from, when not from real frames.
        engines: Backends one of which is needed.
        spec: How frames become inputs, where that is known.
    """

    subject: dict[str, str]
    sources: dict[str, Path]
    bundle: str = ""
    artifact: dict[str, Any] = field(default_factory=dict)
    frames: tuple[str, ...] = ()
    note: str = ""
    engines: tuple[str, ...] = ()
    spec: Frames | None = None


@contextmanager
def parcel_of(
    what: Path, *, data: str = "", backend: str = "", imgsz: int = 0, arrays: bool = False
) -> Iterator[Parcel]:
    """Give the parcel of a bundle, an ONNX file or an OpenVINO IR.

    Args:
        what: Bundle folder or `.ekb`, `.onnx`, or `.xml` with its `.bin`.
        data: A folder of images, or a `data.yaml` or COCO file, for frames; a bundle's golden frames where empty.
        backend: Engine for an ONNX file, onnxruntime where empty.
        imgsz: Side in pixels where an ONNX file leaves it open, 640 where 0.
        arrays: Send frames as raw arrays, for a device without an image decoder.

    Raises:
        RecipeError: There is nothing to run at `what`, or no images in `data`.
    """
    with tempfile.TemporaryDirectory() as folder:
        if what.suffix in {".onnx", ".xml"}:
            one = _onnx(what, backend, imgsz, Path(folder)) if what.suffix == ".onnx" else _openvino(what)
            yield _with_frames(one, what, data, Path(folder), arrays=arrays)
            return
        if backend or imgsz:
            raise RecipeError(
                "--backend and --imgsz go with an ONNX file", hint="Choose a bundle's variant with --variant."
            )
        with open_bundle(what) as opened:
            yield _with_frames(_bundle(opened), what, data, Path(folder), arrays=arrays)


def _bundle(opened: Bundle) -> Parcel:
    sources = {f"bundle/{p}": opened.folder / p for p in opened.manifest.files}
    for name in (MANIFEST, "SIGNATURE"):
        if (opened.folder / name).is_file():
            sources[f"bundle/{name}"] = opened.folder / name
    subject = {
        "name": opened.manifest.name, "kind": "bundle", "sha256": digest_file(opened.folder / MANIFEST),
    }  # fmt: skip
    golden = tuple(f"bundle/{p}" for p in opened.manifest.files if _is_frame(p))
    note = f"inputs are drawn from the bundle's {len(golden)} golden frames" if golden else ""
    engines = tuple(dict.fromkeys(v.backend for v in opened.manifest.variants))
    return Parcel(
        subject=subject, sources=sources, bundle="bundle", frames=golden, note=note, engines=engines,
        spec=opened.manifest.contract.frames,
    )  # fmt: skip


def _is_frame(path: str) -> bool:
    return path.startswith("golden/frame") and path.endswith(".npy")


def _onnx(path: Path, backend: str, imgsz: int, folder: Path) -> Parcel:
    model = read_onnx(path)
    was = model.SerializeToString()
    model = fix_shapes(model, imgsz=imgsz, where=str(path))
    stored = frozenset(t.name for t in model.graph.initializer)
    given, gives = specs(model.graph.input, stored), specs(model.graph.output)
    declared = declared_by({p.key: p.value for p in model.metadata_props}, given, gives)
    contract = Contract(inputs=given, outputs=gives, frames=declared.frames)
    if declared.answers:
        contract = Contract(inputs=given, outputs=gives, frames=declared.frames, answers=declared.answers)
    quantized = any(n.op_type in {"QuantizeLinear", "QLinearConv", "ConvInteger"} for n in model.graph.node)
    artifact = Artifact(
        backend=backend or "onnxruntime", precision="int8" if quantized else _floats(model),
        main=Path("model") / path.name, contract=contract, options={"threads": 0},
    )  # fmt: skip
    files = (path, *external_files(path))
    if model.SerializeToString() != was:
        fixed = folder / path.name
        save_onnx(model, fixed)
        files = (fixed,)
    return _single(path, "onnx", artifact, {f"model/{p.name}": p for p in files})


def _floats(model: Any) -> str:
    half = 10  # onnx.TensorProto.FLOAT16
    kinds = [t.data_type for t in model.graph.initializer if t.data_type in {1, half}]
    return "fp16" if kinds and kinds.count(half) > len(kinds) / 2 else "fp32"


def _openvino(path: Path) -> Parcel:
    weights = path.with_suffix(".bin")
    for one in (path, weights):
        if not one.is_file():
            raise RecipeError(
                f"{one}: no such file", hint="An OpenVINO IR is an .xml file with a .bin beside it."
            )
    ov = need("openvino", extra="host", why=f"read {path.name}")
    try:
        model = ov.Core().read_model(str(path))
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0][:200]
        raise RecipeError(
            f"{path}: openvino cannot read it: {line}", hint="Convert the model again."
        ) from error
    given, gives = (tuple(_spec(v, k) for k, v in enumerate(vs)) for vs in (model.inputs, model.outputs))
    _refuse_dynamic(path, given)
    int8 = any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
    artifact = Artifact(
        backend="openvino", precision="int8" if int8 else "fp32", main=Path("model") / path.name,
        contract=Contract(inputs=given, outputs=gives), options={"threads": 0, "inference_precision": "f32"},
    )  # fmt: skip
    return _single(path, "openvino", artifact, {f"model/{p.name}": p for p in (path, weights)})


def _spec(port: Any, number: int) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape())
    name = next(iter(sorted(port.get_names())), f"port{number}")
    return TensorSpec(name=name, shape=shape, dtype=np.dtype(port.get_element_type().to_dtype()).name)


def _refuse_dynamic(path: Path, given: Sequence[TensorSpec]) -> None:
    for spec in given:
        if any(d < 1 for d in spec.shape):
            raise RecipeError(
                f"{path}: input {spec.name!r} has the shape {spec.shape}; a latency belongs to one shape",
                hint="Convert it with fixed shapes, or give the ONNX file with --backend openvino --imgsz.",
            )


def _single(path: Path, kind: str, artifact: Artifact, sources: dict[str, Path]) -> Parcel:
    subject = {"name": path.stem, "kind": kind, "sha256": digest_file(path)}
    return Parcel(subject=subject, sources=sources, artifact=plain(artifact), engines=(artifact.backend,))


def _with_frames(one: Parcel, what: Path, data: str, folder: Path, *, arrays: bool) -> Parcel:
    """Return the parcel with frames of the user's data instead of golden ones."""
    if not data:
        note = one.note or "inputs are random: a model whose work depends on its input may differ"
        return Parcel(**{**vars(one), "note": note})
    if one.artifact and not one.artifact["contract"]["frames"]:
        raise RecipeError(
            f"{what}: declares no pre-processing, so frames cannot become its input",
            hint="Leave --data out, or bench a bundle that edgekit compiled.",
        )
    coded = one.spec is not None and one.spec.coding is not None
    found = _images(Path(data), raw.SUFFIXES if coded else SUFFIXES)
    sources = {f"frames/{k:04d}{p.suffix}": p for k, p in enumerate(found[:_FRAMES])}
    # A sensor's values always go as arrays: whether a board reads 16-bit files or DNG is not asked.
    if arrays or coded:
        sources = {f"frames/{k:04d}.npy": _array(p, folder, one.spec) for k, p in enumerate(sources.values())}
    return Parcel(
        **{**vars(one), "sources": {**one.sources, **sources}, "frames": tuple(sources), "note": ""}
    )


def _images(path: Path, suffixes: frozenset[str]) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes)
    else:
        found = [s.path for s in read_split(path, "val").samples]
    if not found:
        raise RecipeError(f"{path}: holds no images", hint=f"Known are {', '.join(sorted(suffixes))}.")
    return found


def _array(path: Path, folder: Path, spec: Frames | None) -> Path:
    made = folder / f"{digest_file(path)[:16]}.npy"
    if not made.is_file():
        np.save(made, read_frame(path, spec))
    return made
