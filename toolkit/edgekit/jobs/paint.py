"""Compile a diffusion pipeline: export, slim, quantize, choose by time and pictures, bundle, report."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.protocol import Session
from edgekit.bundle.write import finish_bundle
from edgekit.core.digest import plain
from edgekit.core.files import write_json, write_text
from edgekit.core.outcome import Outcome, Paints, Verdict
from edgekit.core.records import Answers
from edgekit.core.watch import watcher
from edgekit.gates.protocol import Evidence, gate_keys
from edgekit.jobs.ask import Ask
from edgekit.jobs.assemble import facts, variant_of
from edgekit.jobs.choose import Choice, choose, predicted_choice
from edgekit.jobs.elsewhere import predictions
from edgekit.jobs.host_checks import checks_of
from edgekit.jobs.model import Loaded
from edgekit.jobs.notes import UNSTEADY, guard_notes, tensorrt_notes
from edgekit.jobs.paint_parts import Recorder, painting, parts_of, place_parts
from edgekit.jobs.painted import Gallery, errors_of, float_reference, gallery, recorded, sheet
from edgekit.jobs.passes import run_passes
from edgekit.jobs.picture_scores import picture_scores
from edgekit.jobs.report_data import report_data
from edgekit.jobs.scene import RECORDED, load_scene, scene_of
from edgekit.jobs.trial import held, ratio
from edgekit.jobs.variants import Lowered, Networks, lowered_from, stand_in
from edgekit.measure.modes import MODES
from edgekit.passes.protocol import Scene
from edgekit.passes.slimdiff import FOLDER
from edgekit.plans.diffusion import FILE, NETWORK, PLAN
from edgekit.reports.html import html_report
from edgekit.reports.markdown import markdown_report

_GOLDEN = 2
_GOLDEN_SEED = 7


@dataclass(frozen=True, kw_only=True)
class PaintWork:
    """Everything between the first stage and the last.

    Attributes:
        ask: The compile.
        scene: Pipeline and prompts.
        loaded: As it came.
        networks: After the passes; "main" is what predicts noise.
        choice: Variants of that network.
        dense: Pictures of the pipeline as it came.
        pictures: Pictures of variants, by name; the chosen one's are judged.
        ratio: Of a step as it came to one of the chosen variant.
    """

    ask: Ask
    scene: Scene
    loaded: Loaded
    networks: Networks
    choice: Choice
    dense: Gallery
    pictures: Mapping[str, Gallery]
    ratio: tuple[float, float, float] | None


def paint_work(ask: Ask) -> PaintWork:
    """Return what a pipeline became, measured here."""
    scene = scene_of(ask)
    loaded = load_scene(ask, scene)
    scene = replace(scene, gflops=loaded.gflops)
    networks = run_passes(
        ask,
        loaded.network,
        None,
        scene=scene,
        recorded=lambda network: recorded(ask, scene, network, RECORDED),
    )
    dense_network = networks.dense or networks.float32
    judged = ask.checked.recipe.diffusion.judged if ask.checked.recipe.diffusion else 0
    dense = gallery(ask, scene, dense_network, float_reference(ask, dense_network), judged=judged)
    seen: dict[str, Gallery] = {}
    limits = ask.checked.gates(ask.profile.name)

    def refused(one: Lowered) -> tuple[float, str]:
        own = runs_here(ask, networks, one)
        seen[one.wanted.plain] = found = gallery(ask, scene, networks.float32, own, judged=judged)
        return _loss(limits, dense, found)

    if ask.here:
        choice = choose(ask, networks, None, refused=refused)
    else:
        scale = _scale(networks)
        choice = predicted_choice(
            ask, networks, None, predictions(ask.profile, loaded, scale=scale), refused=refused
        )
    choice = _parts_checked(ask, networks, choice)
    for one in (choice.chosen, *choice.others):
        # The gallery of another style of the same name may stand there.
        own = runs_here(ask, networks, one)
        seen[one.wanted.plain] = gallery(
            ask, scene, networks.float32, own, judged=judged if one is choice.chosen else 0
        )
    return PaintWork(
        ask=ask, scene=scene, loaded=loaded, networks=networks, choice=choice, dense=dense, pictures=seen,
        ratio=_ratio(ask, networks, choice) if ask.here else None,
    )  # fmt: skip


def runs_here(ask: Ask, networks: Networks, one: Lowered) -> Lowered:
    """Return what paints on this machine for a variant: itself, or the graph of its engine in onnxruntime."""
    return one if one.wanted.backend != "tensorrt" or ask.here else stand_in(ask, networks, one.wanted)


def _parts_checked(ask: Ask, networks: Networks, choice: Choice) -> Choice:
    """Return the choice with what is known on this host of the files around a TensorRT network, too."""
    if choice.chosen.wanted.backend != "tensorrt":
        return choice
    first = choice.outcomes[0]
    more = tuple(
        replace(check, name=f"{name}: {check.name}")
        for name, one in parts_of(ask, networks.float32, choice.chosen).items()
        if name != NETWORK
        for check in checks_of(ask, one)
    )
    return replace(choice, outcomes=(replace(first, checks=first.checks + more), *choice.outcomes[1:]))


def _scale(networks: Networks) -> float:
    """Return the share of the multiply-adds that slimming left: predictions begin at the pipeline as it came."""
    slim = networks.facts.get("slimdiff")
    return float(slim["gmacs_after"] / slim["gmacs_before"]) if slim else 1.0


def _loss(limits: Mapping[str, float], dense: Gallery, found: Gallery) -> tuple[float, str]:
    """Return the mean error of the latents, and why that, or what the judge saw, is too much."""
    error = float(np.mean(errors_of(found.latents, dense.latents)))
    most = limits.get("latent_error")
    if most is not None and not error <= most:
        return error, f"latent error {error:.3g}, {most:g} is allowed"
    most, right, was = limits.get("task_drop"), found.shown.right, dense.shown.right
    if most is not None and right is not None and was is not None and was - right > most:
        return error, f"the judge sees {was - right:.4f} less, {most:g} is allowed"
    return error, ""


def _ratio(ask: Ask, networks: Networks, choice: Choice) -> tuple[float, float, float] | None:
    """Return how many times faster a step is than that of the network as it came, in float32 on the same engine."""
    if networks.dense is None:
        return choice.speedup
    wanted = replace(choice.chosen.wanted, precision="fp32", style="")
    dense = lowered_from(ask, networks.dense, None, wanted)
    mode = MODES[ask.mode]
    trials = held(
        ask, {"chosen": choice.chosen, "dense": dense}, [], round_name="as it came", runs=mode.runs, seconds=mode.seconds,
        limit_s=mode.limit_s,
    ).by_name  # fmt: skip
    return ratio(trials["dense"].spans["model"], trials["chosen"].spans["model"])


def paint_outcome(work: PaintWork) -> Outcome:
    """Return everything that was found, gates judged."""
    ask, choice, loaded = work.ask, work.choice, work.loaded
    paints = _paints(work)
    return Outcome(
        name=ask.checked.name, device=ask.profile.name, title=ask.profile.title, measured_on=ask.passport if ask.here else {},
        model=_model(work, loaded), variants=choice.outcomes, chosen=choice.chosen.wanted.plain,
        reference=choice.reference.wanted.plain, verdicts=_verdicts(work, paints), speedup=work.ratio,
        passes=work.networks.facts, notes=tuple(_notes(work)), recipe=plain(ask.checked.recipe), bench=ask.mode if ask.here else "", when=choice.when,
        require_measured=ask.require_measured, paints=paints,
    )  # fmt: skip


def _notes(work: PaintWork) -> list[str]:
    ask, choice = work.ask, work.choice
    notes = [ask.profile.note] if ask.profile.note else []
    if not ask.here:
        notes += [
            f"Latencies are predicted from published rows: {ask.why_not_here}.",
            "Pictures were made and judged on this host, the engine's graph run by onnxruntime where its engine is not here.",
        ]
    if choice.chosen.wanted.backend == "tensorrt":
        notes += tensorrt_notes(ask, choice.outcomes[0])
    for name, facts_ in work.networks.facts.items():
        notes += guard_notes(name, facts_)
    return notes if choice.outcomes[0].steady else [*notes, UNSTEADY]


def _model(work: PaintWork, loaded: Loaded) -> dict[str, Any]:
    contract = work.networks.float32.contract
    return {
        **loaded.network.source, "task": "generate", "params": loaded.params, "gflops": loaded.gflops, "licence": loaded.licence,
        "export_parity": loaded.parity, "classes": list(work.scene.pipeline.labels),
        "inputs": [f"{s.name} {list(s.shape)} {s.dtype}" for s in contract.inputs],
        "outputs": [f"{s.name} {list(s.shape)} {s.dtype}" for s in contract.outputs],
    }  # fmt: skip


def _paints(work: PaintWork) -> Paints:
    ask, scene = work.ask, work.scene
    part = ask.checked.recipe.diffusion
    chosen = work.pictures[work.choice.chosen.wanted.plain]
    # Of a device that is not here nobody knows how long a picture takes.
    ms, dense_ms = (chosen.shown.image_ms, work.dense.shown.image_ms) if ask.here else (None, None)
    scores, why = picture_scores(chosen.images, work.dense.images, scene.held_out)
    return Paints(
        prompts=scene.held_out, schedule=scene.schedule, steps=scene.steps, guidance=scene.guidance,
        size=(chosen.images.shape[1], chosen.images.shape[2]), errors=errors_of(chosen.latents, work.dense.latents),
        judge=Path(part.judge).name if part and part.judge else "", judged=chosen.shown.judged, right=chosen.shown.right,
        dense_right=work.dense.shown.right, image_ms=ms, dense_image_ms=dense_ms,
        step_ratio=work.ratio, scores=scores, why_no_scores=why,
        others={
            n: float(np.mean(errors_of(g.latents, work.dense.latents))) for n, g in work.pictures.items() if g is not chosen
        },
    )  # fmt: skip


def _verdicts(work: PaintWork, paints: Paints) -> tuple[Verdict, ...]:
    ask, choice = work.ask, work.choice
    reference = next((o for o in choice.outcomes if o.name == choice.reference.wanted.plain), None)
    evidence = Evidence(
        chosen=choice.outcomes[0], reference=reference, speedup=work.ratio, paints=paints,
        why_no_accuracy="a pipeline's pictures are judged by latent_error and task_drop", why_no_device=ask.why_not_here,
        emulated=str(ask.passport.get("emulated", "")) if ask.here else "",
    )  # fmt: skip
    gates = gate_keys()
    return tuple(
        gates[k].judge(k, v, evidence) for k, v in sorted(ask.checked.gates(ask.profile.name).items())
    )


def write_paint(folder: Path, work: PaintWork, outcome: Outcome) -> None:
    """Write bundle, slimmed weights, sheet and report into an empty folder."""
    ask, scene, network = work.ask, work.scene, work.networks.float32
    kept = (work.choice.chosen, *work.choice.others)
    watcher().phase("bundle")
    bundle = folder / "bundle"
    variants = []
    for one in kept:
        place = bundle / "variants" / one.wanted.plain
        place_parts(place, scene, network, parts_of(ask, network, one))
        variants.append(variant_of(ask, one, plan=PLAN, file=FILE))
    write_text(bundle / "recipe.yaml", ask.checked.text)
    _golden(bundle, work)
    contract = replace(network.contract, answers=Answers(task="generate", classes=scene.pipeline.labels))
    finish_bundle(
        bundle,
        name=ask.checked.name,
        contract=contract,
        variants=variants,
        facts=facts(ask, outcome, kept),
        sign_key=ask.sign_key,
    )
    if "slimdiff" in work.networks.folders:
        shutil.copytree(work.networks.folders["slimdiff"] / FOLDER, folder / FOLDER)
    watcher().phase("report")
    chosen = work.pictures[work.choice.chosen.wanted.plain]
    png = sheet(
        scene.held_out, {"as it came": work.dense.images, "here": chosen.images}, folder / "sheet.png"
    )
    write_json(folder / "report.json", report_data(outcome))
    write_text(folder / "report.html", html_report(outcome, sheet=base64.b64encode(png).decode()))
    write_text(folder / "report.md", markdown_report(outcome))


def _golden(bundle: Path, work: PaintWork) -> None:
    """Write a few prompts with the latents and pictures that the default variant makes of them.

    A variant whose engines are built on the device is stood for by onnxruntime on the float32 graphs; what goes into each
    part and comes out of it is kept, too: a new engine is tried on that.
    """
    ask, scene, network, one = work.ask, work.scene, work.networks.float32, work.choice.chosen
    prompts, folder = scene.held_out[:_GOLDEN], bundle / "golden"
    folder.mkdir()
    said = {"prompts": list(prompts), "seed": _GOLDEN_SEED, "variant": one.wanted.plain}
    if one.wanted.backend == "tensorrt":
        runs, kept = float_reference(ask, network), dict[str, Recorder]()

        def watch(name: str, session: Session) -> Any:
            kept[name] = Recorder(session, frozenset({0, scene.steps - 1 if name == NETWORK else 1}))
            return kept[name]

        with tempfile.TemporaryDirectory() as place:
            place_parts(Path(place) / "parts", scene, network, parts_of(ask, network, runs))
            with painting(Path(place) / "parts", runs.artifact, watch=watch) as open_:
                made = open_.paint(prompts, seed=_GOLDEN_SEED)
        for name, recorder in kept.items():
            (folder / name).mkdir()
            for k, (given, answer) in enumerate(zip(recorder.seen, recorder.answers, strict=True)):
                np.savez(folder / name / f"inputs{k}.npz", **given)
                np.savez(folder / name / f"outputs{k}.npz", **answer)
        said |= {"backend": "onnxruntime", "precision": "fp32"}
    else:
        with painting(bundle / "variants" / one.wanted.plain, one.artifact) as open_:
            made = open_.paint(prompts, seed=_GOLDEN_SEED)
    write_json(folder / "golden.json", said)
    np.save(folder / "latents.npy", made.latents)
    np.save(folder / "images.npy", made.images)
