"""Put a bundle together: variants, golden frames, recipe, and what was found about them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.bundle.manifest import Variant
from edgekit.bundle.write import finish_bundle
from edgekit.core import versions
from edgekit.core.digest import digest_bytes, digest_file, plain
from edgekit.core.files import write_bytes, write_json, write_text
from edgekit.core.outcome import Outcome, VariantOutcome
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract, Network
from edgekit.core.watch import watcher
from edgekit.frames.coded import read_frame
from edgekit.frames.prepare import prepare
from edgekit.jobs.ask import Ask
from edgekit.jobs.variants import Lowered
from edgekit.measure.inputs import random_inputs
from edgekit.plans.progressive import FILE

_GOLDEN = 2
_TOOLS = ("onnx", "onnxruntime", "openvino", "onnxslim", "numpy")


def write_bundle(
    folder: Path,
    ask: Ask,
    network: Network,
    lowered: Sequence[Lowered],
    outcome: Outcome,
    files: Sequence[Path],
    *,
    chains: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write the bundle of one compile into an empty folder and verify it by reading it back.

    Args:
        folder: Where it goes.
        ask: The compile.
        network: The float32 network.
        lowered: Variants, the default first.
        outcome: What was found.
        files: Real frames for the golden set.
        chains: By variant, the folder of the segments that take the place of its one file.
    """
    watcher().phase("bundle")
    for one in lowered:
        source = chains.get(one.wanted.plain, one.artifact.folder)
        shutil.copytree(source, folder / "variants" / one.wanted.plain)
    write_text(folder / "recipe.yaml", ask.checked.text)
    golden = _golden(ask, network, lowered[0], files)
    for path, data in codec_files(network.contract).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / path, data)
    shutil.copytree(golden, folder / "golden", ignore=shutil.ignore_patterns("step.json"))
    finish_bundle(
        folder,
        name=ask.checked.name,
        contract=network.contract,
        variants=[
            variant_of(ask, one, plan="progressive", file=FILE)
            if one.wanted.plain in chains
            else variant_of(ask, one)
            for one in lowered
        ],
        facts=facts(ask, outcome, lowered),
        sign_key=ask.sign_key,
    )


def codec_files(contract: Contract) -> Mapping[str, bytes]:
    """Return both halves of the codec before a model, by path in the bundle; nothing where it has none."""
    if contract.frames is None or contract.frames.coding is None:
        return {}
    coding = contract.frames.coding
    files = pick("codecs", coding.codec, what="codec").files(coding.settings)
    return {f"codec/{path}": data for path, data in files.items()}


def variant_of(ask: Ask, one: Lowered, *, plan: str = "", file: str = "") -> Variant:
    """Return what the manifest says of a variant.

    Args:
        ask: The compile.
        one: The variant.
        plan: How its parts run together, where it has several.
        file: What says so, in the variant's folder.
    """
    wanted = one.wanted
    arch = ask.profile.arch or str(ask.passport["arch"])
    # Neither engine's files depend on the architecture; what was proven does.
    needs: dict[str, Any] = {"arch": [arch]}
    if wanted.precision == "bf16":
        needs["isa"] = ["avx512_bf16", "amx_bf16", "bf16"]
    if ask.target and wanted.backend == "tensorrt":
        needs["tensorrt"] = [".".join(map(str, ask.target.version))]
    return Variant(
        name=wanted.plain, backend=wanted.backend, precision=wanted.precision,
        main=f"variants/{wanted.plain}/{file or one.artifact.main.name}", options=one.artifact.options, needs=needs,
        engine="build-on-device" if wanted.backend == "tensorrt" else "in-bundle", plan=plan,
    )  # fmt: skip


def facts(ask: Ask, outcome: Outcome, lowered: Sequence[Lowered]) -> dict[str, Any]:
    """Return the manifest's entries about how the bundle came to be and what was found."""
    kept = {(one.wanted.plain, one.wanted.style) for one in lowered}
    found = [v for v in outcome.variants if (v.name, v.style) in kept]
    return {
        "device": {"name": ask.profile.name, "title": ask.profile.title, "measured": ask.here},
        "gates": [plain(v) for v in outcome.verdicts],
        "verdict": outcome.words,
        "receipts": {v.name: _summary(v) for v in found},
        "measured_on": dict(outcome.measured_on),
        "provenance": {
            "edgekit": __version__, "code": versions.code(), "tools": versions.versions(*_TOOLS),
            "recipe_sha256": digest_bytes(ask.checked.text.encode()), "model": dict(outcome.model),
            "passes": _without_lists(outcome.passes), "when": outcome.when,
        },
        "licence": outcome.model.get("licence", ""),
        "notes": list(outcome.notes),
    }  # fmt: skip


def _summary(variant: VariantOutcome) -> dict[str, Any]:
    """Return what the manifest says of a variant: latency, accuracy, what ran, no single runs."""
    rows = [
        {"span": x.span, "runs": x.runs, "label": x.label, "percentiles": [plain(t) for t in x.tails]}
        for x in variant.latencies
    ]
    accuracy = plain(variant.accuracy) if variant.accuracy else None
    dtypes: dict[str, float] = {}
    for layer in variant.receipt:
        dtypes[f"{layer.unit} {layer.dtype}"] = dtypes.get(f"{layer.unit} {layer.dtype}", 0.0) + layer.share
    return {
        "latency_measured": rows, "latency_predicted": plain(variant.predicted) if variant.predicted else None,
        "accuracy": accuracy, "parity": variant.parity, "precision_share": variant.share, "style": variant.style,
        "time_share_by_unit_and_dtype": {k: round(v, 4) for k, v in sorted(dtypes.items())},
        "size_mb": variant.size_mb, "memory_mb": variant.memory_mb, "load_ms": variant.load_ms,
    }  # fmt: skip


def _without_lists(passes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: dict(v) for k, v in passes.items()}


def _golden(ask: Ask, network: Network, one: Lowered, files: Sequence[Path]) -> Path:
    """Return a folder with a few frames (or inputs) and the outputs the default variant gives for them.

    A variant whose engine is built on the device is stood for by onnxruntime on the float32 graph.
    """
    inputs = {
        "variant": one.digest, "graph": network.main.sha256, "files": [digest_file(f) for f in files[:_GOLDEN]],
        "code": versions.code(), "isa": ask.host.get("isa"),
    }  # fmt: skip

    def make(folder: Path) -> None:
        artifact = one.artifact
        if artifact.backend == "tensorrt":
            artifact = Artifact(
                backend="onnxruntime", precision="fp32", main=network.main.path, contract=network.contract
            )
        with pick("backends", artifact.backend, what="backend").open(artifact) as session:
            for k in range(_GOLDEN):
                _golden_one(folder, k, network, session, files)
        write_json(folder / "golden.json", {"backend": artifact.backend, "precision": artifact.precision})

    return ask.cache.step("golden", inputs, make)


def _golden_one(folder: Path, k: int, network: Network, session: Any, files: Sequence[Path]) -> None:
    contract = network.contract
    if k < len(files) and contract.frames:
        frame = read_frame(files[k], contract.frames)
        np.save(folder / f"frame{k}.npy", frame)
        shape = contract.inputs[0].shape
        tensor, place = prepare(frame, contract.frames, (shape[2], shape[3]))
        outputs = session.infer({contract.inputs[0].name: tensor})
        if contract.answers.task != "raw":
            answers = pick("answers", contract.answers.task, what="task")
            write_json(folder / f"answer{k}.json", answers.answer(outputs, contract.answers, place).plain())
            return
    else:
        given = random_inputs(contract, np.random.default_rng(k))
        np.savez(folder / f"inputs{k}.npz", **given)  # type: ignore[arg-type]
        outputs = session.infer(given)
    np.savez(folder / f"outputs{k}.npz", **outputs)
