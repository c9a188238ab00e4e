"""Bundles that come file by file: from a folder, an `.ekb` and a server, whole, late, cut and changed."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import edgekit
from edgekit.bundle.manifest import Variant
from edgekit.bundle.stream import Stream
from edgekit.bundle.write import finish_bundle, pack
from edgekit.core.errors import LinkError, RecipeError, VerificationError
from edgekit.core.files import write_json
from edgekit.core.records import Contract, TensorSpec
from edgekit.plans.progressive import FILE, growth_data
from edgekit.runtime.growing import Limits
from tests.growing import SHAPE, pair_of, write_segments

CONTRACT = Contract(
    inputs=(TensorSpec(name="images", shape=(1, *SHAPE), dtype="float32"),),
    outputs=(TensorSpec(name="output0", shape=(1, 5), dtype="float32"),),
)
X = np.random.default_rng(1).random((1, *SHAPE), np.float32)


def write_bundle(folder: Path) -> Path:
    """Write a growing bundle of the small pair."""
    place = folder / "bundle"
    growth = write_segments(pair_of(), place / "variants/onnxruntime-fp32")
    write_json(place / "variants/onnxruntime-fp32" / FILE, growth_data(growth))
    variant = Variant(
        name="onnxruntime-fp32", backend="onnxruntime", precision="fp32", main=f"variants/onnxruntime-fp32/{FILE}",
        options={"threads": 1}, needs={}, plan="progressive",
    )  # fmt: skip
    finish_bundle(place, name="small", contract=CONTRACT, variants=[variant], facts={})
    return place


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("growing"))


@pytest.fixture(scope="module")
def packed(bundle: Path) -> Path:
    return pack(bundle, bundle.parent / "small.ekb")


@pytest.fixture(scope="module")
def wanted() -> dict[str, np.ndarray]:
    pair = pair_of()
    with torch.no_grad():
        return {m: pair.mixed(torch.from_numpy(X), m).numpy() for m in ("SSSS", "TTTT")}


class Server:
    """Serves a folder; can be slow, cut a file short, or refuse ranges."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, []
        self.cut: dict[str, int] = {}  # by the end of a path: bytes after which the line is cut, once
        self.ranges, self.rate, self.sent = True, 0.0, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *given):
                pass

            def do_GET(self):
                outer.answer(self)

        self.http = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, one) -> None:
        path = self.root / one.path.lstrip("/")
        asked = one.headers.get("Range", "") if self.ranges else ""
        self.asked.append((one.path, one.headers.get("Range", "")))
        if not path.is_file():
            one.send_error(404)
            return
        data = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        data = data[int(first or 0) : int(last) + 1 if last else None]
        one.send_response(206 if asked else 200)
        one.send_header("Content-Length", str(len(data)))
        one.end_headers()
        for end in [e for e in self.cut if one.path.endswith(e)]:
            data = data[: self.cut.pop(end)]
        for k in range(0, len(data), 4096):
            one.wfile.write(data[k : k + 4096])
            self.sent += min(4096, len(data) - k)
            if self.rate:
                time.sleep(4096 / self.rate)


@pytest.fixture
def server(bundle: Path, packed: Path):
    one = Server(bundle.parent)
    yield one
    one.http.shutdown()
    one.http.server_close()


def test_files_come_in_the_order_in_which_they_are_needed(packed: Path):
    with Stream(str(packed)) as stream:
        names = [Path(p).name for p in stream.manifest.order]
        assert names[0] == FILE
        assert names[1:8] == ["s1.onnx", "s2.onnx", "s3.onnx", "s4.onnx", "t1.onnx", "enc1.onnx", "t2.onnx"]
        assert not [p for p in stream.folder.rglob("*") if p.is_file()], (
            "nothing comes before it is asked for"
        )


@pytest.mark.parametrize("kind", ["folder", "ekb", "http folder", "http ekb", "http ekb without ranges"])
def test_a_bundle_answers_from_anywhere_and_grows(
    kind: str, bundle: Path, packed: Path, server: Server, wanted: dict[str, np.ndarray]
):
    places = {"folder": str(bundle), "ekb": str(packed), "http folder": f"{server.base}/bundle"}
    server.ranges = "without" not in kind
    with edgekit.load(places.get(kind, f"{server.base}/small.ekb"), limits=Limits(until=0)) as model:
        assert model.growing
        assert np.abs(model.run({"images": X})["output0"] - wanted["SSSS"]).max() < 1e-4
        assert model.growing.metrics()["mask"] == "SSSS"
        model.growing.hold(None)
        assert model.settle(30).growing.metrics()["mask"] == "TTTT"
        assert np.abs(model.run({"images": X})["output0"] - wanted["TTTT"]).max() < 1e-4


def test_over_a_slow_line_the_student_answers_long_before_the_teacher_is_there(server: Server):
    server.rate = 300_000.0
    began = time.perf_counter()
    with edgekit.load(f"{server.base}/small.ekb") as model:
        model.run({"images": X})
        first = time.perf_counter() - began
        assert model.growing.plan.step < 4
        assert model.settle(60).growing.plan.mask == "TTTT"
        assert model.growing.events[0].bytes == model.growing.growth.first_bytes
    assert first < 0.7 * (time.perf_counter() - began)


def test_a_file_that_breaks_off_is_taken_up_where_it_stopped(server: Server):
    server.cut = {"t3.onnx": 5000}
    with edgekit.load(f"{server.base}/bundle") as model:
        assert model.settle(30).growing.plan.mask == "TTTT"
        waits = [e for e in model.growing.events if e.what == "waits"]
    assert len(waits) == 1
    assert "broke off after 5000 of" in waits[0].why
    assert [r for p, r in server.asked if p.endswith("t3.onnx")] == ["", "bytes=5000-"]


def test_a_line_that_is_cut_again_and_again_gets_on_each_time(server: Server, bundle: Path):
    path = "variants/onnxruntime-fp32/t4.onnx"
    size = (bundle / path).stat().st_size
    with Stream(f"{server.base}/bundle") as stream:
        for _ in range(size // 5000):
            server.cut = {"t4.onnx": 5000}
            with pytest.raises(LinkError, match="broke off|missing"):
                stream.fetch(path)
        server.cut = {}
        assert stream.fetch(path).read_bytes() == (bundle / path).read_bytes()
    assert [r for p, r in server.asked if p.endswith("t4.onnx")][1:3] == ["bytes=5000-", "bytes=10000-"]


def test_a_file_that_is_all_there_is_not_asked_for_again(server: Server, bundle: Path):
    path = "variants/onnxruntime-fp32/t4.onnx"
    with Stream(f"{server.base}/bundle") as stream:
        part = stream.folder / f"{path}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes((bundle / path).read_bytes())
        stream.fetch(path)
    assert not [p for p, _ in server.asked if p.endswith("t4.onnx")]


def test_a_server_without_ranges_sends_an_archive_once(server: Server, packed: Path):
    server.ranges = False
    with Stream(f"{server.base}/small.ekb") as stream:
        for path in stream.manifest.order:
            stream.fetch(path)
    assert server.sent < 1.5 * packed.stat().st_size


def test_a_file_of_ones_own_folder_is_checked_at_every_opening(tmp_path: Path):
    place = write_bundle(tmp_path)
    path = "variants/onnxruntime-fp32/t1.onnx"
    with Stream(str(place)) as stream:
        stream.fetch(path)
        (place / path).write_bytes(b"x" * (place / path).stat().st_size)
        with pytest.raises(VerificationError, match="was changed"):
            stream.fetch(path)


@pytest.mark.parametrize("kind", ["manifest", "redirect"])
def test_servers_that_mean_ill_are_refused(kind: str):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *given):
            pass

        def do_GET(self):
            self.send_response(200 if kind == "manifest" else 302)
            self.send_header("Location", "ftp://127.0.0.1/x")
            self.end_headers()
            if kind == "manifest":
                with contextlib.suppress(OSError):
                    for _ in range(80):
                        self.wfile.write(bytes(2**20))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        with pytest.raises((VerificationError, LinkError), match=r"larger than|an address of ftp"):
            Stream(f"http://127.0.0.1:{one.server_address[1]}/bundle")
        one.shutdown()


def test_fetching_ends_when_it_is_told_to(bundle: Path):
    ended = threading.Event()
    threading.Timer(0.2, ended.set).start()
    began = time.perf_counter()
    with Stream(str(bundle)) as stream, pytest.raises(LinkError, match="was ended"):
        stream.fetch("variants/onnxruntime-fp32/t4.onnx", mb_s=1e-5, ended=ended)
    assert time.perf_counter() - began < 5


def test_a_changed_segment_is_refused_and_the_old_plan_serves(tmp_path: Path, wanted: dict[str, np.ndarray]):
    place = write_bundle(tmp_path)
    file = place / "variants/onnxruntime-fp32/t2.onnx"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with edgekit.load(place) as model:
        deadline = time.monotonic() + 20
        while not any(e.what == "waits" for e in model.growing.events) and time.monotonic() < deadline:
            time.sleep(0.02)
        said = next(e for e in model.growing.events if e.what == "waits")
        assert "t2.onnx was changed" in said.why
        assert model.growing.plan.mask == "TSSS"
        model.run({"images": X})
        # Mended on the disk, it is taken at the next try.
        file.write_bytes(good)
        assert model.settle(30).growing.plan.mask == "TTTT"
        assert np.abs(model.run({"images": X})["output0"] - wanted["TTTT"]).max() < 1e-4


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_a_missing_or_truncated_segment_leaves_the_plan_before_it(fault: str, tmp_path: Path):
    place = write_bundle(tmp_path)
    file = place / "variants/onnxruntime-fp32/t3.onnx"
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    with edgekit.load(place) as model:
        deadline = time.monotonic() + 20
        while not any(e.what == "waits" for e in model.growing.events) and time.monotonic() < deadline:
            time.sleep(0.02)
        said = next(e.why for e in model.growing.events if e.what == "waits")
        assert "t3.onnx" in said
        assert model.growing.plan.mask == "TTSS"
        model.run({"images": X})


def test_a_students_file_that_is_wrong_ends_in_an_error(tmp_path: Path):
    place = write_bundle(tmp_path)
    file = place / "variants/onnxruntime-fp32/s2.onnx"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(VerificationError, match=r"s2\.onnx was changed"):
        edgekit.load(place)


def test_what_is_no_bundle_says_so(tmp_path: Path, server: Server, packed: Path):
    (tmp_path / "x.ekb").write_bytes(b"no zip at all")
    with pytest.raises(VerificationError, match="is no bundle"):
        Stream(str(tmp_path / "x.ekb"))
    with pytest.raises(RecipeError, match="404"):
        Stream(f"{server.base}/nowhere.ekb")
    with pytest.raises(LinkError):
        Stream("http://127.0.0.1:9/closed.ekb")
    half = tmp_path / "half.ekb"
    half.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with Stream(str(half)) as stream, pytest.raises((VerificationError, RecipeError)):
        for path in stream.manifest.order:
            stream.fetch(path)


def test_reading_can_be_held_to_a_pace(bundle: Path):
    with Stream(str(bundle)) as stream:
        path = "variants/onnxruntime-fp32/t4.onnx"
        began = time.perf_counter()
        stream.fetch(path, mb_s=stream.manifest.files[path][0] / 1e6 / 0.4)
        assert time.perf_counter() - began >= 0.35
