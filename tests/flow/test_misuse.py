"""What goes wrong ends with the right exit code, says what to do, and leaves nothing half-made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.conftest import Ran, run_edgekit
from tests.tiny import write_data, write_detector


def refused(ran: Ran, code: int, *words: str) -> None:
    """Check exit code, the message's parts, and that no traceback was shown."""
    assert ran.code == code, f"exit {ran.code}\n{ran.out}\n{ran.err}"
    assert "Traceback" not in ran.err
    assert "error:" in ran.err
    message = ran.err[ran.err.index("error:") :]
    assert len(message.strip().splitlines()) >= 2, f"no hint in: {message}"
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def nothing_left(folder: Path) -> None:
    """Check that a failed compile left no output, no half-made folder and no lock."""
    assert [p.name for p in folder.iterdir() if p.name not in {"cam.yaml", "given"}] == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty output folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def changed(recipe: Path, folder: Path, old: str, new: str) -> Path:
    """Return a copy of the recipe with one change."""
    text = recipe.read_text()
    assert old in text
    path = folder / "cam.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_a_misspelt_key_is_named_with_its_line_and_the_right_one(recipe: Path, out: Path):
    own = changed(recipe, out, "max_drop", "max_drp")
    ran = run_edgekit("compile", own, "-o", out)
    refused(ran, 2, "cam.yaml:6: passes[1].quantize-int8.max_drp", "Did you mean 'max_drop'?")
    nothing_left(out)


def test_all_faults_of_a_recipe_are_reported_at_once(recipe: Path, out: Path):
    own = changed(recipe, out, "size_mb: 5", "size_mbb: 5, latency_p90: 3")
    own.write_text(own.read_text().replace("mode: smoke", "mode: fast"))
    refused(run_edgekit("recipes", "check", own), 2, "size_mbb", "latency_p90", "bench.mode")


def test_a_missing_recipe(out: Path):
    refused(run_edgekit("compile", "nothing.yaml", "-o", out), 2, "nothing.yaml: no such recipe")
    nothing_left(out)


def test_an_unknown_device_gets_a_suggestion(recipe: Path, out: Path):
    refused(
        run_edgekit("compile", recipe, "--device", "jetson-orn", "-o", out), 2, "Did you mean 'jetson-orin'?"
    )
    nothing_left(out)


def test_a_corrupted_onnx_file(recipe: Path, out: Path, detector: Path):
    given = out / "given"
    given.mkdir()
    (given / "bad.onnx").write_bytes(detector.read_bytes()[:700])
    ran = run_edgekit("compile", given / "bad.onnx", "-o", out)
    refused(ran, 2, "bad.onnx")
    nothing_left(out)


def test_a_missing_model_and_missing_data_are_reported_together(
    recipe: Path, out: Path, detector: Path, squares: Path
):
    own = changed(recipe, out, str(detector), "gone.onnx")
    own.write_text(own.read_text().replace(str(squares), "gone.yaml"))
    refused(run_edgekit("compile", own, "-o", out), 2, "gone.onnx", "gone.yaml")
    nothing_left(out)


@pytest.mark.parametrize("keep", [0, 200])
def test_a_truncated_image_in_the_data_is_named(
    recipe: Path, out: Path, squares: Path, tmp_path: Path, keep: int
):
    data = write_data(tmp_path / "cut")
    image = data.parent / "images" / "train" / "003.png"
    image.write_bytes(image.read_bytes()[:keep])
    own = changed(recipe, out, str(squares), str(data))
    own.write_text(own.read_text().replace("samples: 32", "samples: 48"))
    refused(run_edgekit("compile", own, "-o", out), 2, "003.png", "truncated")
    nothing_left(out)


def test_an_empty_calibration_set(recipe: Path, out: Path, squares: Path, tmp_path: Path):
    data = write_data(tmp_path / "none")
    shutil.rmtree(data.parent / "images" / "train")
    (data.parent / "images" / "train").mkdir()
    own = changed(recipe, out, str(squares), str(data))
    refused(run_edgekit("compile", own, "-o", out), 2, "split 'train' holds no images")
    nothing_left(out)


def test_too_few_calibration_images(recipe: Path, out: Path, squares: Path, tmp_path: Path):
    own = changed(recipe, out, str(squares), str(write_data(tmp_path / "few", train=5)))
    refused(run_edgekit("compile", own, "-o", out), 2, "calibration has 5 samples, 32 are needed")


def test_a_malformed_label_is_named_with_its_line(recipe: Path, out: Path, squares: Path, tmp_path: Path):
    data = write_data(tmp_path / "labels")
    (data.parent / "labels" / "val" / "002.txt").write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    own = changed(recipe, out, str(squares), str(data))
    refused(run_edgekit("compile", own, "-o", out), 2, "002.txt:2")


def test_data_of_other_classes_than_the_model(recipe: Path, out: Path, detector: Path, tmp_path: Path):
    other = write_detector(tmp_path / "other.onnx", names=("cat", "dog"))
    own = changed(recipe, out, str(detector), str(other))
    refused(run_edgekit("compile", own, "-o", out), 2, "cat, dog", "white, red")


def test_quantizing_without_samples(recipe: Path, out: Path, squares: Path):
    own = changed(recipe, out, f"data: {{path: {squares}, samples: 32}}", "data: {samples: 32}")
    refused(run_edgekit("compile", own, "-o", out), 2, "needs calibration samples", "allow_random")


def test_another_size_than_the_file_has(recipe: Path, out: Path):
    refused(run_edgekit("compile", recipe, "--imgsz", 320, "-o", out), 2, "fixed at 64 px, 320 was asked for")
    nothing_left(out)


def test_a_precision_the_device_does_not_have(recipe: Path, out: Path):
    refused(run_edgekit("compile", recipe, "--precision", "int4", "-o", out), 2, "--precision", "int4")


def test_int8_without_a_pass_that_quantizes(recipe: Path, out: Path):
    own = changed(recipe, out, "  - quantize-int8: {max_drop: 0.02}\n", "")
    refused(
        run_edgekit("compile", own, "--precision", "int8", "-o", out), 2, "no pass quantizes", "quantize-int8"
    )


def test_a_pickle_without_trust_says_why(out: Path):
    given = out / "given"
    given.mkdir()
    (given / "best.pt").write_bytes(b"\x80\x02.")
    refused(run_edgekit("compile", given / "best.pt", "-o", out), 2, "pickle", "trust: true")


def test_external_data_out_of_the_models_folder(out: Path, detector: Path, tmp_path: Path):
    model = onnx.load(str(detector))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]))
    )
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    (tmp_path / "m").mkdir()
    onnx.save(model, str(tmp_path / "m" / "ext.onnx"))
    loaded = onnx.load(str(tmp_path / "m" / "ext.onnx"), load_external_data=False)
    for tensor in loaded.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    (tmp_path / "m" / "ext.onnx").write_bytes(loaded.SerializeToString())
    refused(run_edgekit("compile", tmp_path / "m" / "ext.onnx", "-o", out), 2, "../secret.bin", "outside")


def test_an_output_folder_that_holds_something_else(recipe: Path, out: Path):
    taken = out / "squares-local"
    taken.mkdir()
    (taken / "thesis.docx").write_text("years of work")
    refused(run_edgekit("compile", recipe, "-o", out), 2, "is taken")
    assert (taken / "thesis.docx").read_text() == "years of work"


def test_a_signing_key_that_is_none(recipe: Path, out: Path):
    key = out / "given"
    key.write_text("no key")
    refused(
        run_edgekit("compile", recipe, "--sign-key", key, "-o", out), 2, "no Ed25519 private key", "openssl"
    )
    nothing_left(out)


def test_an_unknown_option(recipe: Path):
    refused(run_edgekit("compile", recipe, "--devise", "local"), 2, "--devise", "--help")


def test_a_changed_byte_in_a_bundle(bundle: Path):
    file = next((bundle / "variants").rglob("*.bin"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    refused(run_edgekit("bundle", "verify", bundle), 6, file.name, "SHA-256")


def test_a_file_too_many_in_a_bundle(bundle: Path):
    (bundle / "variants" / "extra.so").write_bytes(b"x")
    refused(run_edgekit("bundle", "verify", bundle), 6, "extra.so")


def test_an_unsigned_bundle_where_a_key_is_trusted(bundle: Path, tmp_path: Path):
    refused(run_edgekit("bundle", "verify", bundle, "--trusted-key", tmp_path / "k.pub"), 6, "is not signed")


def test_a_bundle_that_is_not_there_and_one_that_is_no_zip(tmp_path: Path):
    refused(run_edgekit("run", tmp_path / "no.ekb", "x.jpg"), 2, "no such")
    (tmp_path / "no.ekb").write_bytes(b"PK nothing")
    refused(run_edgekit("bundle", "verify", tmp_path / "no.ekb"), 6, "no whole bundle")


def test_running_on_a_missing_image(bundle: Path):
    refused(run_edgekit("run", bundle, "missing.jpg"), 2, "missing.jpg: no such image")


def test_an_interrupted_compile_leaves_nothing_and_the_next_one_goes_on(
    recipe: Path, out: Path, tmp_path: Path
):
    work = tmp_path / "work"
    words = [
        sys.executable,
        "-c",
        # A test run that was started in a shell's background hands on an ignored SIGINT.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from edgekit.cli import main; main()",
        "compile",
        str(recipe),
        "-o",
        str(out),
    ]
    words += ["--work-dir", str(work)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if line.startswith("measure"):
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    nothing_left(out)
    assert not list((work / "steps").rglob(".*"))
    again = run_edgekit("compile", recipe, "-o", out, "--work-dir", work)
    assert again.code == 0, again.err
    assert "lower" not in again.err.partition("measure")[0]


def test_two_compiles_into_one_folder(recipe: Path, out: Path, tmp_path: Path):
    words = [
        sys.executable,
        "-c",
        "from edgekit.cli import main; main()",
        "compile",
        str(recipe),
        "-o",
        str(out),
    ]
    first = subprocess.Popen(
        [*words, "--work-dir", str(tmp_path / "one")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stderr
    first.stderr.readline()
    second = run_edgekit("compile", recipe, "-o", out, "--work-dir", tmp_path / "two")
    refused(second, 8, "locked by another run", str(first.pid))
    first.communicate(timeout=300)
    assert first.returncode == 0


def mounted(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount, in a mount namespace of its own; skip where that is refused."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a mount namespace needs root and unshare")
    done = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, timeout=300)
    if "mount" in done.stderr and "permission denied" in done.stderr.lower():
        pytest.skip("this machine refuses mounts")
    return done


def command(*words: object) -> str:
    """Return a shell line that runs edgekit."""
    return " ".join([sys.executable, "-c", "'from edgekit.cli import main; main()'", *map(str, words)])


def test_a_full_disk_in_the_work_folder(recipe: Path, out: Path, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    done = mounted(
        f"mount -t tmpfs -o size=2m none {small}; "
        + command("compile", recipe, "-o", out, "--work-dir", small)
    )
    refused(Ran(done.returncode, done.stdout, done.stderr), 8, "MB free", "--work-dir")
    nothing_left(out)


def test_a_disk_that_fills_up_on_the_way(out: Path, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=1m none {small}; " + command(
        "data make uav-mini --train 30 --val 5 -o", small / "set"
    )
    done = mounted(script + f" || code=$?; ls -A {small}; exit $code")
    refused(Ran(done.returncode, done.stdout, done.stderr), 8, "space")
    assert done.stdout.strip() == ""


def test_a_cache_that_may_not_be_written(recipe: Path, out: Path, tmp_path: Path):
    fixed = tmp_path / "fixed"
    fixed.mkdir()
    done = mounted(
        f"mount -t tmpfs -o ro none {fixed}; " + command("compile", recipe, "-o", out, "--work-dir", fixed)
    )
    refused(Ran(done.returncode, done.stdout, done.stderr), 8, "written")
    nothing_left(out)


def test_errors_are_json_where_json_was_asked_for(out: Path):
    import json

    ran = run_edgekit("compile", "nothing.yaml", "-o", out, "--json")
    assert json.loads(ran.out)["error"]["exit_code"] == 2


def test_a_package_that_is_missing_is_named_with_its_extra(recipe: Path, out: Path):
    hide = "import sys; sys.modules['onnxslim'] = None; from edgekit.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "compile", str(recipe), "-o", str(out)], capture_output=True, text=True
    )
    refused(Ran(done.returncode, done.stdout, done.stderr), 7, "onnxslim", "pip install 'edgekit[host]'")
