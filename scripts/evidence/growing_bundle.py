"""Write a bundle of a growing ResNet-50 with random weights, and serve it over a slow line."""

from __future__ import annotations

import functools
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.bundle.manifest import Variant
from edgekit.bundle.write import finish_bundle, pack
from edgekit.core.digest import digest_file, plain
from edgekit.core.files import write_json
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract, Graph, Network
from edgekit.graph.onnx_file import inputs_of, outputs_of, read_onnx, save_onnx
from edgekit.graph.walk import name_nodes
from edgekit.lowering.protocol import Options
from edgekit.plans.progressive import FILE, Growth, Segment, Step, chain, growth_data

_WIDE = {"widths": [64, 128, 256, 512], "block": "bottleneck", "stem": "imagenet"}
_NARROW = {"widths": [32, 64, 128, 256], "depths": [1, 1, 1, 1], "stem": "imagenet"}


def serve_bundle(work: Path, backend: str, *, side: int, short: bool) -> dict[str, Any]:
    """Return the order of a trial for a ResNet-50 that grows, and for the same in one file; written once.

    Args:
        work: Folder for it.
        backend: "onnxruntime" or "openvino".
        side: Rows and columns of the input.
        short: A teacher of one block a stage.
    """
    place = work / f"serve-{backend}{'-short' if short else ''}"
    if (place / "order.json").exists():
        found: dict[str, Any] = json.loads((place / "order.json").read_text())
        return found
    from edgekit.export.torch_onnx import to_onnx

    teacher, pair = _nets((3, side, side), [1, 1, 1, 1] if short else [3, 4, 6, 3])
    whole = _lowered(to_onnx(teacher, (1, 3, side, side), opset=17), place / "whole", backend)
    name = f"{backend}-fp32"
    growth = _growth(pair, side, backend, place / "bundle" / "variants" / name)
    one = Variant(
        name=name, backend=backend, precision="fp32", main=f"variants/{name}/{FILE}", options=whole.options, needs={},
        plan="progressive",
    )  # fmt: skip
    finish_bundle(place / "bundle", name="resnet50", contract=whole.contract, variants=[one], facts={})
    pack(place / "bundle", place / "resnet50.ekb")
    sizes = [s.size for s in growth.segments.values()]
    order = {
        "bundle": str(place / "bundle"), "variant": name, "engine": backend, "backend": backend, "precision": "fp32",
        "main": str(whole.main), "options": plain(whole.options), "contract": plain(whole.contract),
        "first_bytes": growth.first_bytes, "all_bytes": sum(sizes), "largest_bytes": max(sizes),
        "packed": str(place / "resnet50.ekb"),
        "whole_bytes": sum(p.stat().st_size for p in whole.folder.iterdir()),
    }  # fmt: skip
    write_json(place / "order.json", order)
    return order


def _nets(shape: tuple[int, int, int], depths: list[int]) -> tuple[Any, Any]:
    import torch

    from edgekit.models.classifiers import build_classifier
    from edgekit.models.staged import staged
    from edgekit.training.distillation.pair import Pair

    torch.manual_seed(0)
    teacher = build_classifier("resnet", nc=1000, options={**_WIDE, "depths": depths}).eval()
    student = build_classifier("resnet", nc=1000, options=_NARROW).eval()
    return teacher, Pair(staged(teacher, shape=shape), staged(student, shape=shape), shape=shape).eval()


def _growth(pair: Any, side: int, backend: str, folder: Path) -> Growth:
    """Write all segments of a variant and what loads when."""
    from edgekit.export.staged_onnx import converters_of, parts_of
    from edgekit.training.distillation.masks import prefix_masks

    masks, segments = prefix_masks(pair.stages), {}
    for name, part in parts_of(pair, masks, shape=(3, side, side), input_name="images", opset=17).items():
        main = _lowered(part.model, folder / name, backend).main
        files = sorted((folder / name).iterdir())
        segments[name] = Segment(
            name=name, file=f"{name}/{main.name}", sha256=digest_file(main), size=sum(p.stat().st_size for p in files),
            inputs=part.inputs, outputs=part.outputs,
            beside={f"{name}/{p.name}": digest_file(p) for p in files if p != main},
        )  # fmt: skip
    steps = tuple(Step(mask=m, segments=chain(m, converters_of(pair), taps=pair.student.taps)) for m in masks)
    growth = Growth(segments=segments, steps=steps)
    write_json(folder / FILE, growth_data(growth))
    return growth


def _lowered(model: Any, folder: Path, backend: str) -> Artifact:
    """Return a graph as the engine takes it, in a folder of its own."""
    folder.mkdir(parents=True)
    name_nodes(model.graph)
    path = folder.with_suffix(".source.onnx")
    save_onnx(model, path)
    read = read_onnx(path)
    network = Network(
        graphs={"main": Graph(path=path, sha256=digest_file(path))},
        contract=Contract(inputs=inputs_of(read), outputs=outputs_of(read)),
    )
    lower = pick("lowering", backend, what="backend").lower
    artifact: Artifact = lower(network, None, Options(precision="fp32", threads=1), folder)
    path.unlink()
    return artifact


class _Slow(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges at a fixed rate."""

    rate = 1e6

    def log_message(self, *given: Any) -> None:
        del given

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin, end = int(first or 0), min(int(last) + 1 if last else size, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(begin)
            while begin < end:
                chunk = file.read(min(16384, end - begin))
                self.wfile.write(chunk)
                begin += len(chunk)
                time.sleep(len(chunk) / self.rate)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


@contextmanager
def slow_server(folder: Path, rate: float) -> Iterator[str]:
    """Serve a folder at `rate` bytes a second, and yield its address."""
    handler = type("Handler", (_Slow,), {"rate": rate})
    with _Server(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
