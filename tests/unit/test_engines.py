"""Engines on a board: exact calls for four versions' APIs, and what happens when a build goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.backends import build_engine, engines
from edgekit.core.errors import ContractError, MissingError, RecipeError, ResourceError
from edgekit.core.watch import Silent, watched_by
from edgekit.devices.jetpacks import target_for
from edgekit.devices.profiles import profile_of
from edgekit.lowering.protocol import Options
from edgekit.lowering.tensorrt import PLUGIN as LOWERING
from tests.conftest import ROOT
from tests.contract.test_plugins import network_of, plan_of
from tests.unit.test_trt_lint import HAS_RTX

pytestmark = pytest.mark.light

FAKES = ROOT / "tests" / "fake_trt"
BOARD = engines.Board(gpu="Orin", compute_capability="8.7", sm=16, cuda="12.6", tensorrt="10.3.0.30")
TARGETS = {
    "v8_5": ("jetson-xavier-nx", {"jetpack": "5.1"}),
    "v8_6": ("jetson-agx-orin", {"jetpack": "6.0"}),
    "v10_3": ("jetson-agx-orin", {"jetpack": "6.2"}),
    "v11_4": ("jetson-agx-orin", {"tensorrt": "11.4.1"}),
}


class Fake:
    """One recorded version of TensorRT for child processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
        self._patch, self.log = monkeypatch, folder / "calls.json"
        # Children look where this process does.
        monkeypatch.syspath_prepend(str(FAKES / version))
        monkeypatch.setenv("FAKE_TRT_LOG", str(self.log))
        monkeypatch.setenv("EDGEKIT_CACHE", str(folder / "cache"))

    def does(self, what: str) -> None:
        self._patch.setenv("FAKE_TRT_DO", what)

    def calls(self) -> list[list[Any]]:
        return json.loads(self.log.read_text())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    return Fake(monkeypatch, tmp_path, "v10_3")


def files(detector: Path, out: Path, version: str = "v10_3", **words: Any) -> Path:
    """Write what a bundle holds for one target."""
    device, own = TARGETS[version]
    out.mkdir(parents=True)
    options = Options(precision="int8", target=target_for(profile_of(device), **{**own, **words}))
    LOWERING.lower(network_of(detector), plan_of(detector), options, out)
    return out


def ensure(folder: Path, board: engines.Board = BOARD, **words: Any) -> engines.Engine:
    return engines.ensure(folder, board, **{"free_mb": lambda: 8000, "limit_s": 60.0, **words})


def left() -> list[str]:
    """Return what lies in the cache, timing caches and finished engines aside."""
    return sorted(p.name for p in engines.root().iterdir() if p.name.startswith("."))


@pytest.mark.parametrize("version", TARGETS)
def test_the_calls_are_those_that_each_version_knows(
    detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
):
    fake = Fake(monkeypatch, tmp_path, version)
    found = ensure(files(detector, tmp_path / "v", version))
    weak = version.startswith("v8")
    creation = {
        "v8_5": ["EXPLICIT_BATCH"],
        "v8_6": ["EXPLICIT_BATCH"],
        "v10_3": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    }
    level = [] if version == "v8_5" else [["config", "builder_optimization_level", 3]]
    assert fake.calls() == [
        ["plugins", ""],
        ["create_network", creation.get(version, ["STRONGLY_TYPED"])],
        ["parse", "model.onnx"],
        ["set_memory_pool_limit", "WORKSPACE", 2000 << 20],
        ["config", "profiling_verbosity", "DETAILED"],
        *level,
        *([["set_flag", "FP16"], ["set_flag", "INT8"]] if weak else []),
        # The squares' detector has zeros nearly throughout: where sparse kernels exist they are allowed.
        *([] if version == "v8_5" else [["set_flag", "SPARSE_WEIGHTS"]]),
        ["set_timing_cache", 0, False, True],
        ["build_serialized_network"],
    ]
    assert (found.precision, found.fresh) == ("int8", True)
    assert json.loads(found.plan.read_bytes())["workspace"] == 2000


def test_the_dla_gets_scales_layers_and_fallback(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v", "v10_3", dla=1)
    build = json.loads((folder / "build.json").read_text())
    build["builds"][0] |= {"layer_precisions": {"second": "fp16"}, "gpu_layers": ["cells"]}
    (folder / "build.json").write_text(json.dumps(build))
    ensure(folder)
    calls = fake.calls()
    flags = [c[1] for c in calls if c[0] == "set_flag"]
    assert flags == ["FP16", "INT8", "SPARSE_WEIGHTS", "PREFER_PRECISION_CONSTRAINTS", "GPU_FALLBACK"]
    assert ["config", "default_device_type", "DLA"] in calls
    assert ["config", "DLA_core", 1] in calls
    assert ["layer", "second", "precision", "float16"] in calls
    assert ["set_device_type", "cells", "GPU"] in calls
    (calibrator,) = [c[2] for c in calls if c[:2] == ["config", "int8_calibrator"]]
    assert calibrator.startswith("TRT-100300-EntropyCalibration2")


def test_eleven_adjusts_typed_graphs_for_the_dla(
    detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = Fake(monkeypatch, tmp_path, "v11_4")
    with pytest.raises(RecipeError):
        files(detector, tmp_path / "no", "v11_4", dla=7)
    ensure(files(detector, tmp_path / "v", "v11_4", dla=0))
    assert ["parser_flag", "ADJUST_FOR_DLA"] in fake.calls()
    assert ["config", "DLA_core", 0] in fake.calls()


def test_a_file_for_another_version_is_refused_by_name(
    detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Fake(monkeypatch, tmp_path, "v11_4")
    with pytest.raises(ContractError, match="11.4.1.5 has no builder flag FP16: compile for its version"):
        ensure(files(detector, tmp_path / "v", "v8_6"))


def test_an_engine_is_found_again_and_only_on_the_same_board(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    first = ensure(folder)
    fake.does("crash")
    again = ensure(folder)
    assert (again.key, again.fresh, again.meta) == (first.key, False, first.meta)
    same = engines.Board(**{**vars(BOARD), "power_mode": "15W"})
    assert engines.key_of(folder, engines.builds_in(folder)[0], same) == first.key
    for word, value in (
        ("sm", 8),
        ("gpu", "Orin (nvgpu)"),
        ("cuda", "12.2"),
        ("tensorrt", "10.3.0.31"),
        ("compute_capability", "8.6"),
    ):
        other = engines.Board(**{**vars(BOARD), word: value})
        assert engines.key_of(folder, engines.builds_in(folder)[0], other) != first.key, word


def test_less_workspace_is_tried_where_memory_runs_out(detector: Path, tmp_path: Path, fake: Fake):
    fake.does("memory-below-300")
    found = ensure(files(detector, tmp_path / "v"))
    assert [a["workspace_mb"] for a in found.meta["attempts"]] == [2000, 1000, 500, 250]
    assert [a["outcome"].split(":")[0] for a in found.meta["attempts"]] == ["out of memory"] * 3 + ["built"]


def test_a_build_that_the_kernel_kills_is_tried_with_less(detector: Path, tmp_path: Path, fake: Fake):
    fake.does("killed-above-600")
    found = ensure(files(detector, tmp_path / "v"))
    outcomes = [a["outcome"] for a in found.meta["attempts"]]
    assert outcomes[0] == "killed, most likely for lack of memory (phase build)"
    assert (len(outcomes), outcomes[-1]) == (3, "built")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("crash", "crashed with SIGSEGV (phase build)"),
        ("refuse", "the builder gave no engine: Could not find any implementation for node conv"),
        ("parse-error", "the parser refused model.onnx: In node 3"),
    ],
)
def test_what_fails_leads_to_the_twin_and_then_to_an_error_with_every_attempt(
    detector: Path, tmp_path: Path, fake: Fake, what: str, words: str
):
    fake.does(what)
    with pytest.raises(ContractError) as caught:
        ensure(files(detector, tmp_path / "v"))
    assert words in caught.value.message
    assert "int8 with 2000 MB" in caught.value.message
    assert "fp16 with 2000 MB" in caught.value.message
    assert engines.listed() == []
    assert left() == []


def test_tensorrt_that_does_not_start_is_told_in_its_own_words(detector: Path, tmp_path: Path, fake: Fake):
    """Its binding says that a factory function returned nullptr; the reason is in its log, behind warnings."""
    fake.does("null")
    with pytest.raises(
        ContractError, match="does not start here: CUDA initialization failure with error: 35"
    ):
        ensure(files(detector, tmp_path / "v"))


class Heard(Silent):
    """Keeps what a build tells."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def step(self, name: str, done: int, total: int) -> None:
        assert name == "engine: build"
        self.steps.append((done, total))


def test_a_build_tells_its_phases_and_how_far_it_is(detector: Path, tmp_path: Path, fake: Fake):
    heard = Heard()
    with watched_by(heard):
        ensure(files(detector, tmp_path / "v"))
    assert heard.phases == [f"engine: {p}" for p in ("start", "parse", "build", "write")]
    assert heard.steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.skipif(not HAS_RTX, reason="needs edgekit[tensorrt-rtx]")
def test_a_real_builder_tells_how_far_it_is(detector: Path):
    """TensorRT for RTX has the progress interface of TensorRT 10 and 11, and builds on a CPU."""
    import tensorrt_rtx

    said: list[str] = []
    logger, _ = build_engine.logger_of(tensorrt_rtx)
    builder = tensorrt_rtx.Builder(logger)
    network = builder.create_network(0)
    assert tensorrt_rtx.OnnxParser(network, logger).parse_from_file(str(detector))
    config = builder.create_builder_config()
    monitor = build_engine._monitor(tensorrt_rtx, said.append)
    config.progress_monitor = monitor
    assert builder.build_serialized_network(network, config) is not None
    word, done, total = said[-1].split()
    assert word == "build"
    assert 0 < int(done) <= int(total)


def test_an_engine_that_fails_its_test_gives_way_to_the_twin(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    found = ensure(folder, test=lambda plan, precision: "self-test: no boxes" if precision == "int8" else "")
    assert found.precision == "fp16"
    assert [a["outcome"] for a in found.meta["attempts"]] == ["self-test: no boxes", "built"]
    assert [e.precision for e in engines.listed()] == ["fp16"]
    engines.clear()
    with pytest.raises(ContractError, match="self-test: nothing"):
        ensure(folder, test=lambda *_: "self-test: nothing")
    assert engines.listed() == []
    assert left() == []


def test_the_twin_is_built_where_int8_is_refused_and_that_is_told(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    model = onnx.load(str(folder / "model.onnx"))
    build = json.loads((folder / "build.json").read_text())
    build["builds"][0]["flags"] = ["NO_SUCH_FLAG"]
    (folder / "build.json").write_text(json.dumps(build))
    found = ensure(folder)
    assert found.precision == "fp16"
    assert [a["precision"] for a in found.meta["attempts"]] == ["int8", "fp16"]
    again = ensure(folder)
    assert again.precision == "fp16"
    assert model.graph.node, "its file stays as it was"


def test_a_hanging_build_is_ended(detector: Path, tmp_path: Path, fake: Fake):
    fake.does("hang")
    with pytest.raises(ContractError, match="no end after 3 s"):
        ensure(files(detector, tmp_path / "v"), limit_s=3.0)
    assert left() == []


def test_a_build_that_takes_the_boards_last_memory_is_ended(detector: Path, tmp_path: Path, fake: Fake):
    fake.does("hang")
    free = iter([8000, *[100] * 1000])
    with pytest.raises(ContractError, match="less than 300 MB of memory were left"):
        ensure(files(detector, tmp_path / "v"), free_mb=lambda: next(free))


def test_a_refused_timing_cache_is_written_anew(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    assert ensure(folder).meta["timing_cache"] == "new"
    cache = engines.root() / BOARD.timing_name
    assert cache.read_bytes() == b"+timed"
    engines.clear([ensure(folder).key])
    assert ensure(folder).meta["timing_cache"] == "used"
    assert cache.read_bytes() == b"+timed+timed"
    for what in ("cache-refused", "cache-unreadable"):
        engines.clear([e.key for e in engines.listed()])
        fake.does(what)
        assert ensure(folder).meta["timing_cache"] == "refused"
    assert cache.read_bytes() == b"+timed"


def test_two_builders_at_once_make_one_engine(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    fake.does("hang")
    told: list[Exception] = []

    def first() -> None:
        try:
            ensure(folder, limit_s=6.0)
        except ContractError as error:
            told.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    while not fake.log.exists() or "parse" not in fake.log.read_text():
        time.sleep(0.02)
    with pytest.raises(ResourceError, match="locked by another run"):
        ensure(folder)
    thread.join()
    assert len(told) == 1
    fake.does("")
    assert ensure(folder).fresh


def test_a_full_disk_leaves_nothing_half(detector: Path, tmp_path: Path, fake: Fake):
    from tests.flow.test_misuse import mounted

    folder, small = files(detector, tmp_path / "v"), tmp_path / "cache"
    small.mkdir()
    script = tmp_path / "full.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom edgekit.backends import engines\nfrom edgekit.core.errors import ResourceError\n"
        f"board = engines.Board(**{vars(BOARD)!r})\n"
        f"Path({str(small)!r}, 'filler').write_bytes(b'x' * 100_000)\n"
        "try:\n    Path(sys.argv[1], 'more').write_bytes(b'x' * 4_000_000)\nexcept OSError:\n    pass\n"
        f"try:\n    engines.ensure(Path({str(folder)!r}), board, free_mb=lambda: 8000)\n"
        "except ResourceError as error:\n    print('planned:', error.message)\n"
    )
    done = mounted(
        f"mount -t tmpfs -o size=200k none {small}; {sys.executable} {script} {small}; find {small} -name engine.plan"
    )
    assert "planned:" in done.stdout, done.stderr
    assert "No space" in done.stdout or "no space" in done.stdout
    assert "engine.plan" not in done.stdout


def test_a_damaged_engine_is_built_again(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    first = ensure(folder)
    first.plan.write_bytes(b"half")
    assert engines.kept(first.key) is None
    assert ensure(folder).fresh


def test_a_changed_file_is_not_built(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(RecipeError, match="was changed since it was compiled"):
        ensure(folder)
    (folder / "build.json").write_text("{}")
    with pytest.raises(RecipeError, match="cannot be read"):
        ensure(folder)


def test_another_power_mode_warns(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    built = ensure(folder, engines.Board(**{**vars(BOARD), "power_mode": "MAXN"}))
    here = engines.Board(**{**vars(BOARD), "power_mode": "15W"})
    assert "built in power mode MAXN, this is 15W" in engines.same_power(built, here)
    assert engines.same_power(built, built_board(built)) == ""


def built_board(one: engines.Engine) -> engines.Board:
    return engines.Board(**one.meta["board"])


def test_without_a_driver_nothing_of_tensorrt_is_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fake = Fake(monkeypatch, tmp_path, "v10_3")
    with pytest.raises(MissingError, match="no NVIDIA driver: libcuda.so.1 is not there"):
        engines.probed()
    assert not fake.log.exists()

    def missing(_name: str) -> Any:
        raise OSError

    with pytest.raises(build_engine.BuildError, match="no NVIDIA driver"):
        build_engine.probe(missing)


def test_the_workspace_is_a_quarter_of_what_is_free_at_most():
    assert build_engine.workspace_mb(2048, 0) == 2048
    assert build_engine.workspace_mb(2048, 16000) == 2048
    assert build_engine.workspace_mb(2048, 4000) == 1000
    assert build_engine.workspace_mb(2048, 100) == 64


def test_the_builder_stands_alone(detector: Path, tmp_path: Path, fake: Fake):
    folder = files(detector, tmp_path / "v")
    source = Path(build_engine.__file__).read_text()
    assert "edgekit" not in {
        line.split()[1].partition(".")[0]
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
    (folder / "build_engine.py").write_text(source)
    start = (
        f"import runpy, sys; sys.path.insert(0, {str(FAKES / 'v10_3')!r}); sys.argv = ['b', '--no-probe'];"
        f"runpy.run_path({str(folder / 'build_engine.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", start], capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "engine.plan").is_file()
    assert json.loads(done.stdout)["precision"] == "int8"


def test_a_host_builds_lists_and_clears_over_the_agents_orders(
    detector: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
):
    from dataclasses import asdict

    from edgekit.board.work import carry_out
    from edgekit.core.digest import plain
    from edgekit.core.records import Artifact
    from edgekit.jobs.orders import new_order

    folder = files(detector, tmp_path / "order" / "0")
    monkeypatch.setattr(engines, "probed", lambda: BOARD)
    artifact = plain(
        Artifact(
            backend="tensorrt",
            precision="int8",
            main=Path("0/model.onnx"),
            contract=network_of(detector).contract,
        )
    )
    sources = {f"0/{p.name}": p for p in folder.iterdir()}

    def asked(**settings: Any) -> dict[str, Any]:
        order = new_order("engine", "orin", sources, settings={"entrants": {"main": artifact}, **settings})
        return carry_out(order, tmp_path / "order")

    first = asked(what="build", limit_s=60.0)
    assert (first["precision"], first["fresh"], first["gpu"]) == ("int8", True, asdict(BOARD)["gpu"])
    assert asked(what="build", limit_s=60.0)["fresh"] is False
    (one,) = asked(what="list")["engines"]
    assert one["key"] == first["key"]
    with pytest.raises(RecipeError, match="no engine 'zz'"):
        asked(what="clear", keys=["zz"])
    assert asked(what="clear", keys=[first["key"][:8]]) == {"removed": 1}
    assert asked(what="list")["engines"] == []
