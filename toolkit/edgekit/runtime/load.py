"""Open a bundle for use: verify it, pick the variant for this machine, run frames."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import engines
from edgekit.backends.protocol import Session
from edgekit.bundle.manifest import Variant
from edgekit.bundle.read import Bundle, open_bundle
from edgekit.bundle.stream import Stream, is_address
from edgekit.core.errors import ContractError, EdgekitError, MissingError, RecipeError
from edgekit.core.plugins import pick
from edgekit.core.records import Artifact, Contract
from edgekit.frames.coded import coded
from edgekit.frames.prepare import check_frame, prepare
from edgekit.machine.probe import passport
from edgekit.plans.diffusion import PLAN as DIFFUSION
from edgekit.plans.diffusion import diffusion_from
from edgekit.plans.progressive import Segment, growth_from
from edgekit.runtime.growing import Event, Growing, Limits
from edgekit.runtime.painting import Painted, Painting, open_painting


class Model:
    """An open model; a context manager. It has one set of outputs: let one thread at a time call it.

    Attributes:
        contract: What it takes and gives, with the declared pre- and post-processing.
        variant: The variant in use.
        why: Why this variant, in one line.
        signature: "none", "not checked", or "good".
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        why: str,
        session: Session | Painting,
        *,
        done: Callable[[], None],
    ) -> None:
        self._bundle, self._done = bundle, done
        self.contract: Contract = bundle.manifest.contract
        self.variant, self.why, self.signature = variant, why, bundle.signature
        self._session = session
        self._answers = None
        if self.contract.frames and self.contract.answers.task != "raw":
            self._answers = pick("answers", self.contract.answers.task, what="task")

    def generate(
        self, prompt: str | Sequence[str], *, negative: str = "", seed: int = 0, steps: int = 0, guidance: float | None = None,
        schedule: str = "", latents: NDArray[np.float32] | None = None, heard: Callable[[int, int], None] | None = None,
    ) -> Painted:  # fmt: skip
        """Return pictures that a diffusion model makes of prompts.

        Args:
            prompt: One or several; of a class-conditional model labels or numbers of classes.
            negative: What there shall not be.
            seed: Of the first picture's noise; the next ones take the next seeds.
            steps: Instead of the bundle's.
            guidance: The same; 1 for none.
            schedule: ddim, dpm++ or lcm, instead of the bundle's.
            latents: Noise to begin with, (N, C, h, w), instead of the seeds'.
            heard: Is told picture and step after each step.

        Raises:
            RecipeError: The model makes no pictures, a prompt is empty, or a number is out of range.
        """
        if not isinstance(self._session, Painting):
            raise RecipeError(
                f"{self._bundle.manifest.name}: is no diffusion model",
                hint="Call model(frame), or model.run.",
            )
        given = [prompt] if isinstance(prompt, str) else list(prompt)
        return self._session.paint(
            given,
            negative=negative,
            seed=seed,
            steps=steps,
            guidance=guidance,
            schedule=schedule,
            latents=latents,
            heard=heard,
        )

    @property
    def paints(self) -> bool:
        """Whether it makes pictures from prompts."""
        return isinstance(self._session, Painting)

    @property
    def growing(self) -> Growing | None:
        """What is loaded so far of a model that grows while it serves; None of any other."""
        return self._session if isinstance(self._session, Growing) else None

    def settle(self, timeout_s: float | None = None) -> Model:
        """Wait until a model that grows has nothing left to load; return itself, at once where it was loaded whole.

        While a file is missing or a line is cut this goes on; `whole` does not wait for what does not come.
        """
        if self.growing:
            self.growing.wait(timeout_s)
        return self

    def whole(self) -> Model:
        """Wait until a model that grows serves its last step; return itself, at once where it was loaded whole.

        Raises:
            VerificationError: A file is not what the manifest says.
            LinkError: The line broke three times in a row.
            ResourceError: No memory or disk for it.
        """
        if self.growing:
            self.growing.whole()
        return self

    def __enter__(self) -> Model:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the engine and what was unpacked."""
        self.close()

    def close(self) -> None:
        """Free the engine and what was unpacked."""
        self._session.__exit__()
        self._done()

    def __call__(self, frame: NDArray[Any]) -> Any:
        """Return the answers for one frame: `Detections` or `Ranking`.

        Args:
            frame: BGR uint8 (H, W, 3); for a model behind a sensor's codec the sensor's integers, (H, W) of an image or
                (samples, axes) of a time series, or its packed codes as `encode` gives them.

        Raises:
            RecipeError: The frame is not that, or the model declares no pre- and post-processing.
        """
        if isinstance(self._session, Painting):
            raise RecipeError(
                f"{self._bundle.manifest.name}: makes pictures, it takes none",
                hint="Call model.generate(prompt).",
            )
        if self._answers is None or self.contract.frames is None:
            raise RecipeError(
                f"{self._bundle.manifest.name}: declares no pre- and post-processing",
                hint="Use model.run({name: array}) and read the arrays.",
            )
        shape = self.contract.inputs[0].shape
        given = frame if self.contract.frames.coding else check_frame(frame)
        tensor, placement = prepare(given, self.contract.frames, (shape[2], shape[3]))
        outputs = self._session.look({self.contract.inputs[0].name: tensor})
        return self._answers.answer(outputs, self.contract.answers, placement)

    def encode(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        """Return what the device sends of one frame: its packed codes, (1, channels, height, bytes a row).

        Raises:
            RecipeError: The model is behind no sensor's codec, or the frame is not that sensor's.
        """
        if self.contract.frames is None or self.contract.frames.coding is None:
            raise RecipeError(
                f"{self._bundle.manifest.name}: takes frames as they are, no codes", hint="Call model(frame)."
            )
        return coded(frame, self.contract.frames.coding)[0]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the model's outputs by name.

        Args:
            inputs: One array for each input of `contract.inputs`, its shape and dtype.

        Raises:
            RecipeError: A name, shape or dtype is not the contract's.
        """
        if isinstance(self._session, Painting):
            raise RecipeError(
                f"{self._bundle.manifest.name}: is a pipeline of several networks",
                hint="Call model.generate(prompt).",
            )
        for spec in self.contract.inputs:
            value = inputs.get(spec.name)
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "nothing"
            if found != f"{np.dtype(spec.dtype)} {spec.shape}":
                raise RecipeError(
                    f"input {spec.name!r}: {found} given, {spec.dtype} {spec.shape} wanted",
                    hint="See model.contract.inputs.",
                )
        if extra := sorted(set(inputs) - {s.name for s in self.contract.inputs}):
            raise RecipeError(f"no input {extra[0]!r}", hint="See model.contract.inputs.")
        return self._session.infer(inputs)


def load(
    path: str | Path,
    *,
    variant: str | None = None,
    threads: int | None = None,
    trusted_key: str | Path | None = None,
    limits: Limits | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Model:
    """Return the model of a bundle, verified and ready to run on this machine.

    A model that grows while it serves answers as soon as its student's files are here and verified; the others follow
    in the background, each verified before it is used.

    Args:
        path: A bundle folder or `.ekb` file, or the `http://` or `https://` address of either.
        variant: Name of the variant to use; None takes the best one that suits this machine.
        threads: Threads of the engine; None takes what the bundle was measured with.
        trusted_key: PEM file with the public key that must have signed the bundle.
        limits: What loading in the background may take.
        on_event: Called with each event of it, in the loader's thread.

    Raises:
        RecipeError: No bundle at `path`, or no variant of that name.
        VerificationError: The bundle or its signature does not verify.
        ContractError: No variant suits this machine.
        MissingError: The engine asked for is not installed.
        LinkError: The server cannot be reached.
    """
    where, key = str(path), Path(trusted_key) if trusted_key else None
    stream = Stream(where, trusted_key=key)
    try:
        bundle = Bundle(folder=stream.folder, manifest=stream.manifest, signature=stream.signature)
        _fetch_builds(stream)
        chosen, why = choose(bundle, variant)
        if chosen.plan == DIFFUSION:
            return Model(bundle, chosen, why, _painting(stream, chosen, threads), done=stream.close)
        if chosen.plan:
            session: Session = _growing(stream, chosen, threads, limits, on_event)
            return Model(bundle, chosen, why, session, done=stream.close)
        if is_address(where):
            for file in stream.manifest.order:
                stream.fetch(file)
            return Model(bundle, chosen, why, _opened(bundle, chosen, threads), done=stream.close)
    except BaseException:
        stream.close()
        raise
    stream.close()
    whole = open_bundle(Path(where), trusted_key=key)
    try:
        return Model(whole, chosen, why, _opened(whole, chosen, threads), done=whole.close)
    except BaseException:
        whole.close()
        raise


def _fetch_builds(stream: Stream) -> None:
    """Fetch what engines are known by, where this machine has their runtime: one is found by the files it was built from."""
    machine = passport()
    for variant in stream.manifest.variants:
        if variant.engine == "in-bundle" or pick("backends", variant.backend, what="backend").refusal(
            machine
        ):
            continue
        place = PurePosixPath(variant.main).parent
        for file in stream.manifest.files:
            if place in PurePosixPath(file).parents and PurePosixPath(file).suffix in {".json", ".onnx"}:
                stream.fetch(file)


def _opened(bundle: Bundle, variant: Variant, threads: int | None) -> Session:
    artifact = _threaded(variant.artifact(bundle.folder, bundle.manifest.contract), threads)
    session: Session = pick("backends", variant.backend, what="backend").open(artifact)
    return session


def _threaded(artifact: Artifact, threads: int | None) -> Artifact:
    if threads is None:
        return artifact
    return replace(artifact, options={**artifact.options, "threads": threads})


def _growing(
    stream: Stream, variant: Variant, threads: int | None, limits: Limits | None,
    heard: Callable[[Event], None] | None,
) -> Growing:  # fmt: skip
    """Return the model of a variant that is loaded segment by segment."""
    backend = pick("backends", variant.backend, what="backend")
    pace = limits.mb_s if limits else 0.0
    growth = growth_from(
        json.loads(stream.fetch(variant.main).read_text()), where=f"{stream.where}: {variant.main}"
    )
    folder, contract = PurePosixPath(variant.main).parent, stream.manifest.contract

    def fetched(segment: Segment, ended: threading.Event) -> None:
        for name in segment.files:
            stream.fetch(str(folder / name), mb_s=pace, ended=ended)

    def opened(segment: Segment) -> Session:
        artifact = variant.artifact(stream.folder, contract, segment=str(folder / segment.file))
        session: Session = backend.open(_threaded(artifact, threads))
        return session

    sample = {s.name: np.zeros(s.shape, s.dtype) for s in contract.inputs}
    return Growing(growth, opened, sample, fetched=fetched, limits=limits, heard=heard)


def _painting(stream: Stream, variant: Variant, threads: int | None) -> Painting:
    """Return the open parts of a diffusion pipeline, every file verified before it is read."""
    where = f"{stream.where}: {variant.main}"
    plan = diffusion_from(stream.fetch(variant.main).read_text(), where=where)
    folder = PurePosixPath(variant.main).parent
    for file in plan.files:
        stream.fetch(str(folder / file))
    backend = pick("backends", variant.backend, what="backend")

    def opened(part: Segment) -> Session:
        artifact = variant.artifact(stream.folder, stream.manifest.contract, segment=str(folder / part.file))
        if variant.engine != "in-bundle":
            # An engine's inputs are held against its own part's, not against the network's.
            artifact = replace(artifact, contract=engines.contract_in(artifact.folder))
        session: Session = backend.open(_threaded(artifact, threads))
        return session

    return open_painting(plan, stream.folder / folder, opened)


def choose(bundle: Bundle, name: str | None) -> tuple[Variant, str]:
    """Return the first variant whose fingerprint this machine has, and why not an earlier one."""
    machine = passport()
    if name is not None:
        for variant in bundle.manifest.variants:
            if variant.name == name:
                if reason := refusal(variant, machine, bundle.folder):
                    raise MissingError(f"variant {name}: {reason}", hint="Choose another variant.")
                return variant, f"asked for{_built_as(variant, bundle.folder)}"
        names = ", ".join(v.name for v in bundle.manifest.variants)
        raise RecipeError(f"{bundle.manifest.name}: no variant {name!r}", hint=f"There are: {names}.")
    reasons: list[str] = []
    for variant in bundle.manifest.variants:
        reason = refusal(variant, machine, bundle.folder)
        if not reason:
            return variant, "; ".join([*reasons, f"{variant.name} suits{_built_as(variant, bundle.folder)}"])
        reasons.append(f"{variant.name}: {reason}")
    missing = all("not installed" in r for r in reasons)
    raise (MissingError if missing else ContractError)(
        f"{bundle.manifest.name}: no variant suits this machine ({'; '.join(reasons)})",
        hint="Install one of the engines, or compile for this device.",
    )


def refusal(variant: Variant, machine: Mapping[str, Any], folder: Path) -> str:
    """Return why a variant of the bundle in `folder` does not suit a machine, empty when it does."""
    wanted = variant.needs.get("arch", [])
    if wanted and machine["arch"] not in wanted:
        return f"made for {' or '.join(wanted)}, this is {machine['arch']}"
    flags = variant.needs.get("isa", [])
    if flags and not set(flags) & set(machine.get("isa", [])):
        return f"needs a CPU with {' or '.join(flags)}"
    found: str = pick("backends", variant.backend, what="backend").refusal(machine)
    if found or variant.engine == "in-bundle":
        return found
    places = variant.builds(folder)
    try:
        built = bool(places) and all(engines.found_for(p) for p in places)
    except EdgekitError as error:
        return error.message
    return "" if built else "no engine was built on this board yet (edgekit engine build)"


def _built_as(variant: Variant, folder: Path) -> str:
    """Return, of an engine that is not what its variant's name says, what it is."""
    found = []
    for place in variant.builds(folder):
        engine = engines.found_for(place)
        # Parts around a pipeline's network are float32, whatever it is.
        wanted = str(engines.builds_in(place)[0]["precision"])
        if engine and (what := engine.other_than(wanted)):
            found.append(f"{place.name}: {what}" if variant.plan else what)
    return f" (its engine is {'; '.join(found)})" if found else ""
