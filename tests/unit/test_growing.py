"""Models that grow while they serve: the exported chains, the plan's changes, and what stops or delays them."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.backends.onnxruntime import OnnxRuntime
from edgekit.core.errors import LinkError, RecipeError, ResourceError, VerificationError
from edgekit.core.records import Artifact, Contract
from edgekit.plans.progressive import Growth, Step, growth_data, growth_from
from edgekit.runtime.growing import Growing, Limits, Plan
from tests.growing import SHAPE, pair_of, write_segments

NONE = Contract(inputs=(), outputs=())


def opener(folder: Path):
    def opened(segment):
        artifact = Artifact(
            backend="onnxruntime",
            precision="fp32",
            main=folder / segment.file,
            contract=NONE,
            options={"threads": 1},
        )
        return OnnxRuntime().open(artifact)

    return opened


def sample() -> dict:
    return {"images": np.zeros((1, *SHAPE), np.float32)}


@pytest.mark.parametrize("kind", ["resnet", "vgg", "vit"])
def test_every_mask_of_an_exported_chain_equals_torch(kind: str, tmp_path: Path):
    pair = pair_of(kind)
    masks = tuple("".join(m) for m in itertools.product("ST", repeat=pair.stages))
    growth = write_segments(pair, tmp_path, masks)
    opened = opener(tmp_path)
    sessions = {n: opened(s) for n, s in growth.segments.items()}
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    seen = set()
    for step in growth.steps:
        values = {"images": x.numpy()}
        for name in step.segments:
            segment = growth.segments[name]
            values |= sessions[name].infer({n: values[n] for n in segment.inputs})
        with torch.no_grad():
            wanted = pair.mixed(x, step.mask).numpy()
        assert np.abs(values["output0"] - wanted).max() < 1e-4 * max(1, np.abs(wanted).max()), step.mask
        seen.add(values["output0"].tobytes())
    # The masks give different answers, so that a chain of the wrong parts would show.
    assert len(seen) == len(masks)


def test_a_detectors_chain_equals_torch_through_its_neck(tmp_path: Path):
    import onnx

    from edgekit.export.staged_onnx import parts_of
    from edgekit.models.architectures import architecture
    from edgekit.models.staged import staged
    from edgekit.models.torch_models import for_export, fresh
    from edgekit.plans.progressive import chain
    from edgekit.training.distillation.masks import prefix_masks
    from edgekit.training.distillation.pair import Pair

    torch.manual_seed(0)
    nets = [
        for_export(fresh(architecture(n, nc=3), nc=3).eval())
        for n in ("hierlight-yolo-s", "hierlight-yolo-n")
    ]
    pair = Pair(*(staged(n, shape=(3, 64, 64)) for n in nets), shape=(3, 64, 64)).eval()
    masks = (*prefix_masks(4), "STST", "SSST")
    parts = parts_of(pair, masks, shape=(3, 64, 64), input_name="images", opset=17)
    for name, part in parts.items():
        onnx.save(part.model, tmp_path / f"{name}.onnx")
    ort = OnnxRuntime()
    sessions = {
        n: ort.open(
            Artifact(backend="onnxruntime", precision="fp32", main=tmp_path / f"{n}.onnx", contract=NONE)
        )
        for n in parts
    }
    x = torch.rand(1, 3, 64, 64)
    converters = frozenset(n for n in parts if n[:3] in {"enc", "dec"})
    assert converters == {"enc1", "enc2", "enc3", "dec1", "dec2", "dec3"}
    for mask in masks:
        values = {"images": x.numpy()}
        for name in chain(mask, converters, taps=pair.student.taps):
            values |= sessions[name].infer({n: values[n] for n in parts[name].inputs})
        with torch.no_grad():
            wanted = pair.mixed(x, mask)
        wanted = (wanted[0] if isinstance(wanted, tuple) else wanted).numpy()
        assert np.abs(values["output0"] - wanted).max() < 1e-4 * np.abs(wanted).max(), mask


def test_equal_widths_make_no_converter_files(tmp_path: Path):
    growth = write_segments(pair_of(equal=True), tmp_path)
    assert sorted(growth.segments) == ["s1", "s2", "s3", "s4", "t1", "t2", "t3", "t4"]


def test_a_growth_is_what_its_file_says(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path, accuracy=(0.8, 0.81, 0.82, 0.83, 0.9))
    assert growth_from(growth_data(growth), where="x") == growth
    data = growth_data(growth)
    data["steps"][1]["segments"] = ["t1", "s2", "s3", "s4"]
    with pytest.raises(VerificationError, match="TSSS: s2 takes"):
        growth_from(data, where="x")


def test_dips_are_jumped_over():
    def growth(*accuracy):
        return Growth(segments={}, steps=tuple(Step(mask="S", segments=(), accuracy=a) for a in accuracy))

    assert growth(0.80, 0.795, 0.9).after(0) == 1  # half a point is no dip
    assert growth(0.80, 0.78, 0.85).after(0) == 2
    assert growth(0.80, 0.78, 0.785).after(0) is None
    assert growth(None, None).after(0) == 1


def test_answers_under_load_are_those_of_the_plan_they_report(tmp_path: Path):
    pair = pair_of()
    growth = write_segments(pair, tmp_path)
    rng = np.random.default_rng(0)
    inputs = [rng.random((1, *SHAPE), np.float32) for _ in range(8)]
    with torch.no_grad():
        wanted = {
            s.mask: [pair.mixed(torch.from_numpy(x), s.mask).numpy() for x in inputs] for s in growth.steps
        }
    slow = opener(tmp_path)

    def opened(segment):
        time.sleep(0.05)
        return slow(segment)

    seen, count = set(), 0
    with Growing(growth, opened, sample()) as model:
        while not (model.wait(0) and count % 8 == 0 and "TTTT" in seen):
            outputs, plan = model.planned({"images": inputs[count % 8]})
            assert np.abs(outputs["output0"] - wanted[plan.mask][count % 8]).max() < 1e-4
            seen.add(plan.mask)
            count += 1
        assert [e.what for e in model.events] == ["answers", *["swapped"] * 4, "grown"]
        assert model.metrics()["mask"] == "TTTT"
        assert not any(p.segment.name.startswith("s") for p in model.plan.parts)
    assert seen == {"SSSS", "TSSS", "TTSS", "TTTS", "TTTT"}


def test_a_fault_leaves_the_old_plan_serving_and_loading_goes_on_when_it_is_mended(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    broken, opened = threading.Event(), opener(tmp_path)
    broken.set()

    def faulty(segment):
        if segment.name == "t3" and broken.is_set():
            raise LinkError("the line is cut")
        return opened(segment)

    with Growing(growth, faulty, sample()) as model:
        assert not model.wait(1.0)
        assert model.plan.mask == "TTSS"
        model.infer(sample())
        waits = [e for e in model.events if e.what == "waits"]
        assert waits
        assert waits[0].why == "the line is cut"
        broken.clear()
        assert model.wait(20)
        assert model.plan.mask == "TTTT"


def test_a_student_that_cannot_be_loaded_is_an_error(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)

    def opened(segment):
        raise VerificationError("s1 was changed")

    with pytest.raises(VerificationError, match="s1 was changed"):
        Growing(growth, opened, sample())


def test_a_memory_budget_stops_the_growth_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    growth = write_segments(pair_of(), tmp_path)
    opened = opener(tmp_path)
    held = [100.0]
    monkeypatch.setattr("edgekit.runtime.growing.resident_mb", lambda: held[0])

    def counted(segment):
        held[0] += 10
        return opened(segment)

    # The student's four take 40, t1 and its converter 20, t2 and enc2 20; the next would start from 180.
    with Growing(growth, counted, sample(), limits=Limits(memory_mb=180)) as model:
        assert model.wait(20)
        assert model.plan.mask == "TTSS"
        assert model.events[-1].what == "stopped"
        assert "180 MB are allowed" in model.events[-1].why


def test_under_memory_pressure_the_model_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    growth = write_segments(pair_of(), tmp_path)
    left = [10_000.0]
    monkeypatch.setattr("edgekit.runtime.growing.available_mb", lambda: left[0])
    with Growing(growth, opener(tmp_path), sample()) as model:
        assert model.wait(20)
        left[0] = 20.0
        deadline = time.monotonic() + 20
        while model.plan.step > 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        back = [e for e in model.events if e.what == "stepped back"]
        assert [e.mask for e in back[:2]] == ["TTTS", "TTSS"]
        assert "20 MB are left" in back[0].why
        model.infer(sample())


def test_one_can_ask_for_a_step_and_let_go(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    with Growing(growth, opener(tmp_path), sample(), limits=Limits(until=1)) as model:
        assert model.wait(20)
        assert (model.plan.mask, model.events[-1].why) == ("TSSS", "asked to stay at step 1")
        model.hold(None)
        assert model.wait(20)
        assert model.plan.mask == "TTTT"
        model.hold(0)
        assert model.wait(20)
        assert model.plan.mask == "SSSS"
    assert isinstance(model.plan, Plan)


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), RuntimeError("bad_alloc"), MemoryError()]
)
def test_whatever_goes_wrong_in_loading_is_told_and_tried_again(tmp_path: Path, fault: Exception):
    growth = write_segments(pair_of(), tmp_path)
    left, opened = [2], opener(tmp_path)

    def faulty(segment):
        if segment.name == "enc1" and left[0]:
            left[0] -= 1
            raise fault
        return opened(segment)

    def heard(event):
        raise ValueError("an app's own mistake")

    shown: list = []
    hook, threading.excepthook = threading.excepthook, shown.append
    try:
        with Growing(growth, faulty, sample(), heard=heard) as model:
            assert model.wait(20)
            assert model.plan.mask == "TTTT"
            whys = [e.why for e in model.events if e.what == "waits"]
            # Each segment counts once, however often it was tried.
            assert model.metrics()["bytes_loaded"] == sum(s.size for s in growth.segments.values())
    finally:
        threading.excepthook = hook
    assert len(whys) == 2
    assert str(fault) in whys[0] or whys[0] == "no memory"
    assert len(shown) == len(model.events)


def test_whoever_needs_the_whole_model_is_told_why_it_does_not_come(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    opened = opener(tmp_path)

    def faulty(segment):
        if segment.name == "t3":
            raise VerificationError("t3 was changed")
        return opened(segment)

    with Growing(growth, faulty, sample()) as model, pytest.raises(VerificationError, match="t3 was changed"):
        model.whole()
    with (
        Growing(growth, opened, sample(), limits=Limits(until=1)) as model,
        pytest.raises(ResourceError, match=r"stays at step 1 \(TSSS\)"),
    ):
        model.whole()
    with Growing(growth, opened, sample()) as model:
        model.whole()
        assert model.plan.mask == "TTTT"


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="no priorities here")
def test_files_come_at_low_priority_and_engines_do_not_inherit_it(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    opened, seen = opener(tmp_path), {"fetch": set(), "open": set()}

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def fetched(segment, ended):
        seen["fetch"].add(priority())

    def looked(segment):
        seen["open"].add(priority())
        return opened(segment)

    own = priority()
    with Growing(growth, looked, sample(), fetched=fetched) as model:
        assert model.wait(20)
    assert seen == {"fetch": {own, own + 10}, "open": {own}}


def test_closing_does_not_wait_for_a_file_that_is_on_its_way(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    begun = threading.Event()

    def fetched(segment, ended):
        if segment.name == "t1":
            begun.set()
            ended.wait(30)

    with Growing(growth, opener(tmp_path), sample(), fetched=fetched):
        assert begun.wait(10)
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_engines_that_no_plan_runs_are_let_go(tmp_path: Path):
    growth = write_segments(pair_of(), tmp_path)
    opened, alive = opener(tmp_path), weakref.WeakValueDictionary()

    def counted(segment):
        session = opened(segment)
        alive[segment.name] = session
        return session

    with Growing(growth, counted, sample()) as model:
        model.look(sample())
        assert model.wait(20)
        gc.collect()
        # The last answer came from the student; what said so holds no engine.
        assert set(alive) == {"t1", "t2", "t3", "t4"}


def test_the_way_back_is_the_way_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    growth = write_segments(pair_of(), tmp_path, accuracy=(0.8, 0.5, 0.82, 0.83, 0.9))
    left = [10_000.0]
    monkeypatch.setattr("edgekit.runtime.growing.available_mb", lambda: left[0])
    with Growing(growth, opener(tmp_path), sample()) as model:
        assert model.wait(20)
        assert [e.step for e in model.events if e.what == "swapped"] == [2, 3, 4]
        left[0] = 20.0
        deadline = time.monotonic() + 20
        while model.plan.step and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [e.step for e in model.events if e.what == "stepped back"] == [3, 2, 0]
        left[0] = 10_000.0
        # It grows again, and says when it has.
        assert model.plan.step == 0
        while model.events[-1].what != "grown" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [e.what for e in model.events].count("grown") == 2


@pytest.mark.parametrize("step", [-1, 5])
def test_a_step_that_is_not_there_is_refused(tmp_path: Path, step: int):
    growth = write_segments(pair_of(), tmp_path)
    with Growing(growth, opener(tmp_path), sample()) as model, pytest.raises(RecipeError, match="no step"):
        model.hold(step)
    with pytest.raises(RecipeError, match="below 0"):
        Limits(until=-1)
