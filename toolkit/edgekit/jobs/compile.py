"""Compile a recipe for a device: one stage after the other, each kept, then bundle and report."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.core.digest import plain
from edgekit.core.errors import EdgekitError
from edgekit.core.files import folder_aside, resource_errors, write_json, write_text
from edgekit.core.lazy import have, need
from edgekit.core.lock import locked
from edgekit.core.outcome import Grows, Link, Outcome, Verdict
from edgekit.core.records import Contract
from edgekit.core.watch import watcher
from edgekit.frames.images import read_image
from edgekit.gates.protocol import Evidence, gate_keys
from edgekit.jobs.ask import Ask, refuse_foreign
from edgekit.jobs.assemble import write_bundle
from edgekit.jobs.before import refuse_early
from edgekit.jobs.choose import Choice, choose, predicted_choice
from edgekit.jobs.data import Data, open_data
from edgekit.jobs.elsewhere import predictions
from edgekit.jobs.grow import grow, grow_settings
from edgekit.jobs.growth import grows_of
from edgekit.jobs.ladder import climbed
from edgekit.jobs.link import link_of
from edgekit.jobs.model import Loaded, find_model, load_model, refuse_uncoded
from edgekit.jobs.notes import UNSTEADY, guard_notes, tensorrt_notes
from edgekit.jobs.paint import paint_outcome, paint_work, write_paint
from edgekit.jobs.passes import run_passes
from edgekit.jobs.progressive import chained, grows
from edgekit.jobs.report_data import report_data
from edgekit.jobs.scene import is_pipeline
from edgekit.jobs.train import trained
from edgekit.jobs.variants import Networks
from edgekit.jobs.ways_in import missed_gate, ways_in
from edgekit.models.records import Source
from edgekit.reports.html import html_report
from edgekit.reports.markdown import markdown_report
from edgekit.runtime.draw import draw
from edgekit.runtime.load import load

_PICTURES = 3


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a compile gives.

    Attributes:
        outcome: Everything that was found.
        bundle: The verified bundle's folder.
        report: The HTML report.
    """

    outcome: Outcome
    bundle: Path
    report: Path


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Everything between the first stage and the last."""

    ask: Ask
    source: Source
    loaded: Loaded
    data: Data | None
    networks: Networks
    choice: Choice
    chains: Mapping[str, Path]


def compile_for(ask: Ask) -> Compiled:
    """Return the compiled, measured and bundled model; a failed gate is in the outcome, not raised.

    Raises:
        RecipeError: Something given is wrong.
        ContractError: A stage broke its contract.
        MissingError: An extra is not installed.
        ResourceError: No space, no permission, or another run works on this folder.
    """
    refuse_early(ask)
    if is_pipeline(ask):
        return _painted(ask)
    with resource_errors(ask.out), locked(ask.folder):
        work = _work(ask)
        outcome = _outcome(work)
        refuse_foreign(ask.folder)
        with folder_aside(ask.folder) as aside:
            outcome = _write(aside, work, outcome)
    return Compiled(outcome=outcome, bundle=ask.folder / "bundle", report=ask.folder / "report.html")


def _painted(ask: Ask) -> Compiled:
    """Return a compiled diffusion pipeline."""
    with resource_errors(ask.out), locked(ask.folder):
        work = paint_work(ask)
        outcome = paint_outcome(work)
        refuse_foreign(ask.folder)
        with folder_aside(ask.folder) as aside:
            write_paint(aside, work, outcome)
    return Compiled(outcome=outcome, bundle=ask.folder / "bundle", report=ask.folder / "report.html")


def _work(ask: Ask) -> _Work:
    weights = trained(ask).weights if ask.checked.recipe.train else None
    data = open_data(ask)
    source = find_model(ask, len(data.names) if data else 0, weights=weights)
    refuse_uncoded(ask, data, source)
    loaded = load_model(ask, source, data.calibration if data else (), data.names if data else ())
    networks = run_passes(
        ask, loaded.network, data, coding=source.settings.get("coding"),
        grown=grow(ask, source) if grow_settings(ask) else None,
    )  # fmt: skip
    if ask.here:
        choice = choose(ask, networks, data)
    else:
        choice = predicted_choice(ask, networks, data, predictions(ask.profile, loaded))
    return _Work(
        ask=ask, source=source, loaded=loaded, data=data, networks=networks, choice=choice,
        chains=_chains(ask, networks, choice, data),
    )  # fmt: skip


def _chains(ask: Ask, networks: Networks, choice: Choice, data: Data | None) -> dict[str, Path]:
    """Return the segments of every variant that grows while it serves, by its name."""
    if not grows(networks):
        return {}
    made = {one.wanted.plain: chained(ask, networks, one, data) for one in (choice.chosen, *choice.others)}
    return {name: folder for name, folder in made.items() if folder}


def _outcome(work: _Work) -> Outcome:
    ask, choice = work.ask, work.choice
    limits = ask.checked.gates(ask.profile.name)
    link = link_of(
        ask, work.data, choice.chosen, choice.outcomes[0], work.source.settings.get("curve_history", ())
    )
    chain = work.chains.get(choice.chosen.wanted.plain)
    growth = grows_of(ask, work.networks, choice.chosen, chain) if chain else None
    verdicts = _verdicts(work, limits, link, growth)
    missed = missed_gate(limits, choice)
    ways = (
        ways_in(ask, work.source, work.loaded, work.networks.plan, work.data, choice, missed)
        if missed
        else ()
    )
    return Outcome(
        name=ask.checked.name,
        device=ask.profile.name,
        title=ask.profile.title,
        measured_on=ask.passport if ask.here else {},
        model=model_facts(work.loaded, work.networks.float32.contract),
        variants=choice.outcomes,
        chosen=choice.chosen.wanted.plain,
        reference=choice.reference.wanted.plain,
        verdicts=verdicts,
        ways_in=ways,
        speedup=choice.speedup,
        passes=work.networks.facts,
        notes=tuple(_notes(work)),
        recipe=plain(ask.checked.recipe),
        bench=ask.mode if ask.here else "",
        when=choice.when,
        require_measured=ask.require_measured,
        link=link,
        grows=growth,
    )


def model_facts(loaded: Loaded, contract: Contract) -> dict[str, Any]:
    """Return what reports and manifest say of the model, with what it takes after the passes."""
    return {
        **loaded.network.source, "task": contract.answers.task, "params": loaded.params, "gflops": loaded.gflops,
        "licence": loaded.licence, "export_parity": loaded.parity,
        "inputs": [f"{s.name} {list(s.shape)} {s.dtype}" for s in contract.inputs],
        "outputs": [f"{s.name} {list(s.shape)} {s.dtype}" for s in contract.outputs],
        "classes": list(contract.answers.classes),
    }  # fmt: skip


def _verdicts(
    work: _Work, limits: Mapping[str, float], link: Link | None, growth: Grows | None
) -> tuple[Verdict, ...]:
    ask, choice = work.ask, work.choice
    evidence = Evidence(
        chosen=choice.outcomes[0],
        reference=next((o for o in choice.outcomes if o.name == choice.reference.wanted.plain), None),
        speedup=choice.speedup,
        why_no_accuracy=_why_no_accuracy(work),
        why_no_device=ask.why_not_here,
        link=link,
        grows=growth,
        emulated=str(ask.passport.get("emulated", "")) if ask.here else "",
    )
    gates = gate_keys()
    return tuple(gates[key].judge(key, limit, evidence) for key, limit in sorted(limits.items()))


def _why_no_accuracy(work: _Work) -> str:
    task = work.loaded.network.contract.answers.task
    if task == "raw":
        return "the model's task has no accuracy measure here yet: arrays out, accuracy not judged"
    if not work.data:
        return "the recipe names no labelled data"
    return "" if work.data.task == task else f"the data is to {work.data.task}, the model is to {task}"


def _notes(work: _Work) -> list[str]:
    ask = work.ask
    notes = [f"{unit}: {why}" for unit, why in ask.profile.others.items()]
    notes += [ask.profile.note] if ask.profile.note else []
    notes += list(work.data.warnings) if work.data else []
    if not work.data and any("guard" in f or "int8_layers" in f for f in work.networks.facts.values()):
        notes.append(
            "int8 ranges were observed on random numbers (data.allow_random): expect to lose accuracy."
        )
    if why := _why_no_accuracy(work):
        notes.append(f"Accuracy: {why}.")
    if ask.here and not have("cv2"):
        notes.append("cv2 is not installed: frames are prepared in numpy, slower, with the same boxes.")
    if not ask.here:
        notes.append(f"Latencies are predicted from published rows: {ask.why_not_here}.")
    if work.choice.chosen.wanted.backend == "tensorrt":
        notes += tensorrt_notes(ask, work.choice.outcomes[0])
    if not work.choice.outcomes[0].steady:
        notes.append(UNSTEADY)
    for name, facts in work.networks.facts.items():
        notes += guard_notes(name, facts)
    return notes


def _write(folder: Path, work: _Work, outcome: Outcome) -> Outcome:
    ask = work.ask
    files = [s.path for s in work.data.validation[:_PICTURES]] if work.data else []
    lowered = (work.choice.chosen, *work.choice.others)
    (folder / "bundle").mkdir()
    write_bundle(folder / "bundle", ask, work.networks.float32, lowered, outcome, files, chains=work.chains)
    rungs = climbed(ask, work.loaded, work.networks, work.choice.chosen, folder / "bundle", files)
    outcome = replace(outcome, ladder=rungs)
    watcher().phase("report")
    pictures = tuple(_pictures(folder / "bundle", work, files))
    write_json(folder / "report.json", report_data(outcome))
    write_text(folder / "report.html", html_report(outcome, pictures))
    write_text(folder / "report.md", markdown_report(outcome))
    return outcome


def _pictures(bundle: Path, work: _Work, files: list[Path]) -> list[str]:
    """Return frames with drawn answers of the bundle itself, as JPEG in base64."""
    frames = work.networks.float32.contract.frames
    raw = work.loaded.network.contract.answers.task == "raw" or (frames and frames.coding)
    if not files or not have("cv2") or raw:
        return []
    cv2 = need("cv2", extra="vision")
    drawn = []
    try:
        with load(bundle) as model:
            model.whole()
            for file in files:
                frame = read_image(file)
                _, data = cv2.imencode(".jpg", draw(frame, model(frame)), [cv2.IMWRITE_JPEG_QUALITY, 80])
                drawn.append(base64.b64encode(data.tobytes()).decode())
    except EdgekitError:
        # A bundle for another machine cannot run here; the report then has no pictures.
        return []
    return drawn
