"""Benches on this machine, the store of results, and comparisons, by the command line."""

import dataclasses
import json
import sqlite3
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgekit.core.digest import plain
from edgekit.core.errors import RecipeError
from edgekit.core.result import Result
from edgekit.jobs.compare import compare_stored, differences_of
from edgekit.measure.bench import drift
from edgekit.measure.latency import Kept, thinned
from edgekit.results.store import Store, parsed
from tests.boards_data import result, soak
from tests.conftest import ROOT, run_edgekit

QUICK = ("--mode", "smoke", "--runs", "64", "--seconds", "1")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.mark.slow
def test_a_bundle_is_measured_in_all_spans_and_the_result_is_stored(bundle: Path, home: Path):
    ran = run_edgekit("bench", bundle, *QUICK)
    assert ran.code == 0, ran.err
    for words in (
        "model+copies",
        "frame to result",
        "load",
        "throttled",
        "energy   n/a" if not Path("/sys/class/powercap").exists() else "energy",
    ):
        assert words in ran.out
    (path,) = home.glob("*.json")
    found = parsed(path.read_text(), "x")
    assert [s.span for s in found.spans] == ["model", "model+copies", "frame_to_result"]
    assert found.start["open_ms"] > 0
    assert {"load_ms", "first_ms", "second_ms", "memory_mb"} <= set(found.start)
    assert found.passport["cpu"]
    assert found.telemetry
    assert found.telemetry.cost < 0.05
    assert found.blocks_ms
    listed = json.loads(run_edgekit("results", "list", "--json").out)["results"]
    assert [r["id"] for r in listed] == [found.id]
    assert run_edgekit("results", "show", found.id[:12]).code == 0
    assert run_edgekit("results", "export", "-o", home / "all.csv").code == 0
    assert (home / "all.csv").read_text().splitlines()[1].startswith(found.id)
    assert run_edgekit("results", "plot", "-o", home / "all.html").code == 0


@pytest.mark.slow
def test_tails_that_the_runs_cannot_carry_are_refused(detector: Path, home: Path):
    ran = run_edgekit(
        "profile",
        detector,
        "--mode",
        "paced",
        "--runs",
        "100",
        "--seconds",
        "1",
        "--fps",
        "100",
        "--span",
        "model",
        "--layers",
    )
    assert ran.code == 0, ran.err
    assert "need 662, have 100" in ran.out
    assert "late at 100 fps" in ran.out
    assert "slowest layers" in ran.out
    assert "inputs are random" in ran.out


@pytest.mark.slow
def test_an_openvino_ir_and_a_sweep_run(detector: Path, tmp_path: Path, home: Path):
    import openvino as ov

    ov.save_model(ov.convert_model(str(detector)), str(tmp_path / "squares.xml"))
    ran = run_edgekit(
        "bench",
        tmp_path / "squares.xml",
        *QUICK,
        "--span",
        "model",
        "--threads",
        "1",
        "--cpus",
        "0",
        "--json",
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["subject"]["backend"] == "openvino"
    assert found["subject"]["cpus"] == [0]
    assert found["subject"]["threads"] == 1
    ran = run_edgekit("bench", detector, "--sweep", "--json")
    assert ran.code == 0, ran.err
    ways = {r["way"] for r in json.loads(ran.out)}
    assert {"1 threads", "1 threads pinned"} <= ways


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.onnx",), "no such model"),
        (("missing.ekb",), "no such bundle"),
        (("{detector}", "--cpus", "a,b"), "no list of cores"),
        (("{detector}", "--hz", "100"), "not 0 to 10"),
        (("{detector}", "--fps", "0", "--mode", "paced"), "no rate"),
        (("{detector}", "--span", "frame_to_result"), "no frames to start from"),
        (("{detector}", "--backend", "tensorflow"), "no 'tensorflow'"),
        (("{detector}", "--device", "nowhere"), "no device 'nowhere'"),
        (("{detector}", "--device", "jetson-orin"), "does not say how to reach it"),
        (("{detector}", "--devices", "tag:lab"), "no device has the tag 'lab'"),
    ],
)
def test_misuse_of_bench_is_named(words: tuple[str, ...], said: str, detector: Path, home: Path):
    ran = run_edgekit("bench", *(w.replace("{detector}", str(detector)) for w in words))
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not list(home.glob("*.json"))


@pytest.mark.slow
def test_two_models_are_compared_in_turns_and_a_slower_one_is_a_regression(tmp_path: Path, home: Path):
    from tests.tiny import write_classifier, write_detector

    write_detector(tmp_path / "small.onnx")
    write_classifier(tmp_path / "other.onnx")
    xml = tmp_path / "compare.xml"
    pair = sorted((tmp_path / "small.onnx", tmp_path / "other.onnx"))
    first = run_edgekit("compare", *pair, "--junit", xml, "--json")
    found = json.loads(first.out)
    slower = found["ratios"][0]["ratio"] > 1
    ran = first if slower else run_edgekit("compare", *reversed(pair), "--junit", xml, "--json")
    found = json.loads(ran.out)
    ratio = found["ratios"][0]
    assert ratio["ratio"] > 1
    assert ran.code == (3 if ratio["low"] > 1.03 else 0)
    assert ratio["smallest"] > 0.03
    assert len(found["blocks_a"]) == len(found["blocks_b"]) >= 10
    suite = ET.parse(xml).getroot()
    assert suite.get("failures") == ("1" if ran.code else "0")


def stored(home: Path, *results: Result) -> Store:
    store = Store(home)
    for one in results:
        store.keep(one)
    return store


def test_a_stored_regression_ends_with_3_and_says_what_would_have_been_found(home: Path):
    store = stored(home, result("gate-cam", 10.0, seed=1), result("gate-cam", 11.0, seed=2))
    a, b = (r.id for r in reversed(store.rows()))
    ran = run_edgekit("compare", *sorted((a, b)))
    assert ran.code == 3, ran.err
    assert "regression" in ran.out
    assert "would be found" in ran.out
    assert "different times" in ran.out
    assert run_edgekit("compare", *sorted((a, b), reverse=True)).code == 0


def test_unequal_machines_are_refused_and_every_difference_is_named(home: Path):
    other = {**result("x").passport, "governor": "powersave", "engines": {"onnxruntime": "1.23.2"}}
    one, two = result("gate-cam", seed=1), result("gate-cam", seed=2, passport=other)
    two = dataclasses.replace(
        two, settings={**two.settings, "seconds": 10}, subject=dataclasses.replace(two.subject, threads=2)
    )
    store = stored(home, one, two)
    ran = run_edgekit("compare", one.id, two.id)
    assert ran.code == 2
    for words in (
        "governor: - against powersave",
        "1.32.0",
        "1.23.2",
        "settings: seconds: 60 against 10",
        "threads: 4 against 2",
    ):
        assert words in ran.err
    forced = run_edgekit("compare", one.id, two.id, "--force", "--json")
    assert forced.code == 0, forced.err
    assert len(json.loads(forced.out)["differences"]) == len(differences_of(one, two)) == 4
    with pytest.raises(RecipeError, match="fewer than 5 blocks"):
        few = result("gate-cam", seed=3, runs=200)
        store.keep(few)
        compare_stored(store, one.id, few.id, force=True)


def test_the_index_is_made_again_from_the_files_and_keeps_one_row_a_result(home: Path):
    store = stored(home, *(result(f"board{k}", seed=k) for k in range(5)))
    store.keep(result("board0", seed=0))
    assert len(store.rows()) == 5
    (home / "index.sqlite").unlink()
    again = Store(home)
    assert [r.device for r in again.rows(device="board3")] == ["board3"]
    assert len(again.rows()) == 5
    assert sqlite3.connect(home / "index.sqlite").execute(
        "select count(*) from edgekit_results"
    ).fetchone() == (5,)


def test_many_threads_store_at_once_and_nothing_is_lost(home: Path):
    threads = [threading.Thread(target=stored, args=(home, result("b", seed=k))) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Store(home).rows()) == 24


def test_a_team_points_the_index_at_its_own_database(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEKIT_RESULTS_URL", f"sqlite:///{tmp_path}/team.sqlite")
    stored(home, result("board0"))
    other = Store(tmp_path / "a colleague's folder")
    assert other.load(result("board0").id) == result("board0")
    ran = run_edgekit("results", "list", env={"EDGEKIT_RESULTS_URL": "nonsense://x"})
    assert ran.code == 2
    assert "cannot be opened" in ran.err


def test_a_file_that_is_no_result_is_named(home: Path, tmp_path: Path):
    (tmp_path / "other.json").write_text('{"schema": "edgekit/result/v9"}')
    ran = run_edgekit("results", "show", tmp_path / "other.json")
    assert ran.code == 2
    assert "edgekit/result/v9" in ran.err
    assert run_edgekit("results", "show", "nothing").code == 2
    with pytest.raises(RecipeError, match="is no result"):
        parsed("[]", "x")


def test_a_result_is_what_the_published_schema_says():
    schema = json.loads((ROOT / "docs/reference/result.schema.json").read_text())
    body = plain(soak("gate-cam", 8.0, 14.0))
    assert set(body) == set(schema["properties"])
    assert all("description" in p for p in schema["properties"].values())
    for name, part in (
        ("Minute", body["minutes"][0]),
        ("Telemetry", body["telemetry"]),
        ("Subject", body["subject"]),
    ):
        assert set(part) == set(schema["$defs"][name]["properties"])


def test_a_long_run_is_kept_in_bounded_memory_and_evenly():
    kept = Kept(most=1000)
    kept.extend(float(k) for k in range(100_000))
    assert kept.count == 100_000
    assert len(kept.samples) < 1000
    steps = {b - a for a, b in zip(kept.samples, kept.samples[1:], strict=False)}
    assert steps == {float(kept.stride)}
    assert len(thinned(range(100_000))) == 20_000


def test_a_soak_says_how_its_end_compares_with_its_start():
    assert "+75" in drift(soak("gate-cam", 8.0, 14.0).minutes)
    assert "from minute 12" in drift(soak("gate-cam", 8.0, 14.0).minutes)
    assert drift(soak("gate-cam", 8.0, 8.0).minutes[:9]) == ""


def test_a_bench_here_waits_for_its_turn_or_says_who_measures(detector: Path, home: Path):
    from edgekit.board.hold import held
    from edgekit.devices.agents import Place

    with held(Path(Place().lock), who="ann@desk", order="x"):
        ran = run_edgekit("bench", detector, *QUICK)
    assert ran.code == 8
    assert "taken by ann@desk" in ran.err
