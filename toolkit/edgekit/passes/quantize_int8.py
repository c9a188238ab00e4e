"""Decide which layers run in int8, with which ranges, and which stay in float to keep accuracy."""

from __future__ import annotations

import fnmatch
import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgekit.calibration.errors import alone_errors, output_error
from edgekit.calibration.layers import choices, float_tensors
from edgekit.calibration.ranges import observe
from edgekit.calibration.search import fewest
from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.records import LayerChoice, Network, QuantPlan
from edgekit.graph.onnx_file import read_onnx
from edgekit.lowering.qdq import Style, write_qdq
from edgekit.passes.protocol import Change, Context, Pass

# Labels are not needed to rank layers, and beyond 64 images the order no longer changed.
_RANKING_SAMPLES = 64
_ACCURACY_RUNS = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of quantize-int8.

    Attributes:
        max_drop: Largest accuracy drop on unseen training images, a share from 0 to 1; empty sets no
            guard. Layers are kept in float, the fewest that suffice, until it holds.
        max_error: Largest mean relative squared error of the outputs on calibration inputs, of one step of a diffusion
            pipeline; needs no labels. Layers are kept in float as for `max_drop`. Judged with layers in uint8 by onnxruntime
            and everything between them in float, which is how pipelines run; an engine that rounds more loses more.
        ranges: `typical` takes the mean of the samples' extremes, `extremes` the outermost values. Empty takes
            `extremes` for a diffusion pipeline, whose steps differ, and `typical` for any other model.
        keep_float: Name patterns (`/model.22/*`) of layers that stay in float.
    """

    max_drop: float | None = None
    max_error: float | None = None
    ranges: Literal["", "typical", "extremes"] = ""
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= 0.5:
            raise ValueError("max_drop should be a share from 0 to 0.5; 0.01 is one point")
        if self.max_error is not None and not 0 < self.max_error <= 1:
            raise ValueError("max_error should be above 0 and at most 1; 0.001 is usual")
        if self.max_error is not None and self.max_drop is not None:
            raise ValueError("max_error and max_drop are two guards; give one")

    def kind(self, *, paints: bool) -> Literal["typical", "extremes"]:
        """Return which ranges to take of a model that paints, or of any other."""
        return self.ranges or ("extremes" if paints else "typical")


class QuantizeInt8:
    """Leaves the ONNX in float and returns a plan; each lowering writes it for its engine."""

    works_on = "onnx"
    settings = Settings
    needs_samples = True
    recodes = False
    summary = "int8 weights and activations, with an accuracy guard that keeps layers in float"

    def run(self, network: Network, settings: Settings, context: Context) -> Change:
        """Observe ranges, choose layers, and walk back from int8 where accuracy asks for it.

        Raises:
            RecipeError: Nothing can be quantized, or the graph is not float32.
        """
        if network.source.get("precision", "fp32") != "fp32":
            raise RecipeError(
                "passes.quantize-int8: the graph is in fp16 already", hint="Put quantize-int8 before to-fp16."
            )
        assert context.samples
        model = _with_shapes(read_onnx(network.main.path))
        layers = tuple(_kept(c, settings.keep_float) for c in choices(model))
        if not any(c.precision == "int8" for c in layers):
            raise RecipeError(
                "passes.quantize-int8: no layer of this model can run in int8",
                hint="Leave the pass out, or narrow keep_float.",
            )
        seen = observe(model, float_tensors(model), context.samples())
        paints = context.scene is not None
        ranges = seen.typical() if settings.kind(paints=paints) == "typical" else seen.over_all()
        # A sum that is rounded to 8 bits at every step is no picture at the end.
        plan = QuantPlan(ranges=ranges, layers=layers, calibration=context.digest, between=not paints)
        facts: dict[str, Any] = {"int8_layers": len(plan.int8_layers()), "layers": len(layers)}
        if settings.max_drop is not None and context.score:
            plan, guard = _guard(network, model, plan, settings.max_drop, context)
            facts["guard"] = guard
        elif settings.max_drop is not None:
            facts["guard"] = {"state": "not judged", "why": context.why_no_score}
        if settings.max_error is not None:
            plan, facts["guard"] = _error_guard(model, plan, settings.max_error, context)
        return Change(network=network, changed=True, facts=facts, plan=plan)


def _with_shapes(model: Any) -> Any:
    return need("onnx", extra="host").shape_inference.infer_shapes(model)


def _kept(choice: LayerChoice, patterns: tuple[str, ...]) -> LayerChoice:
    for pattern in patterns:
        if choice.precision == "int8" and fnmatch.fnmatchcase(choice.name, pattern):
            return replace(choice, precision="float", reason=f"keep_float {pattern}")
    return choice


def exempt(plan: QuantPlan, names: list[str], reason: str) -> QuantPlan:
    """Return the plan with the named layers in float."""
    chosen = frozenset(names)
    layers = tuple(
        replace(c, precision="float", reason=reason) if c.name in chosen else c for c in plan.layers
    )
    return replace(plan, layers=layers)


def _guard(
    network: Network, model: Any, plan: QuantPlan, max_drop: float, context: Context
) -> tuple[QuantPlan, dict[str, Any]]:
    """Return the plan that holds `max_drop` with the fewest exempted layers, and what was found."""
    assert context.score
    floor = context.score((network, None)) - max_drop
    runs = {0: context.score((network, plan))}
    facts: dict[str, Any] = {
        "state": "held", "float": floor + max_drop, "int8": runs[0], "max_drop": max_drop, "exempted": [],
    }  # fmt: skip
    if runs[0] >= floor:
        return plan, facts
    ranking = _ranked(model, plan, context)
    names = [n for n, _ in ranking]

    def tried(count: int) -> float:
        if count not in runs:
            assert context.score
            runs[count] = context.score((network, exempt(plan, names[:count], "accuracy guard")))
        return runs[count]

    count = fewest(tried, floor, len(names), _ACCURACY_RUNS)
    if count is None:
        facts["state"] = "missed"
        count = max(runs, key=lambda c: runs[c])
    chosen = exempt(plan, names[:count], "accuracy guard")
    facts |= {"kept": runs[count], "runs": {str(k): v for k, v in sorted(runs.items())}}
    left = _ACCURACY_RUNS - (len(runs) - 1)
    facts["exempted"] = _prices(network, plan, ranking[:count], runs[count], left, context)
    return chosen, facts


def _error_guard(
    model: Any, plan: QuantPlan, most: float, context: Context
) -> tuple[QuantPlan, dict[str, Any]]:
    """Return the plan that holds `most` error of the outputs with the fewest exempted layers, and what was found."""
    assert context.samples
    samples = list(itertools.islice(context.samples(), _RANKING_SAMPLES))
    errors: dict[int, float] = {}
    names: list[str] = []

    def tried(count: int) -> float:
        if count not in errors:
            written = write_qdq(model, exempt(plan, names[:count], "error guard"), Style(unsigned=True))
            errors[count] = output_error(model, written, samples)
        return -errors[count]

    facts: dict[str, Any] = {"state": "held", "max_error": most, "int8": -tried(0), "exempted": []}
    if errors[0] <= most:
        return plan, facts | {"kept": errors[0]}
    ranking = _ranked(model, plan, context)
    names += [n for n, _ in ranking]
    count = fewest(tried, -most, len(names), _ACCURACY_RUNS)
    if count is None:
        facts["state"] = "missed"
        count = min(errors, key=errors.__getitem__)
    facts |= {"kept": errors[count], "runs": {str(k): v for k, v in sorted(errors.items())}}
    facts["exempted"] = [{"layer": n, "output_error": e} for n, e in ranking[:count]]
    return exempt(plan, names[:count], "error guard"), facts


def _ranked(model: Any, plan: QuantPlan, context: Context) -> list[tuple[str, float]]:
    """Return the int8 layers by the output error each causes alone, worst first."""
    assert context.samples
    style = Style(unsigned=True)

    def alone(name: str) -> Any:
        others = [n for n in plan.int8_layers() if n != name]
        return write_qdq(model, exempt(plan, others, "ranking"), style)

    samples = itertools.islice(context.samples(), _RANKING_SAMPLES)
    errors = alone_errors(model, sorted(plan.int8_layers()), alone, samples)
    return sorted(errors.items(), key=lambda pair: (-pair[1], pair[0]))


def _prices(
    network: Network,
    plan: QuantPlan,
    exempted: list[tuple[str, float]],
    kept: float,
    left: int,
    context: Context,
) -> list[dict[str, Any]]:
    """Return for each exempted layer what int8 cost there: output error, accuracy, and latency won back.

    Accuracy is that of the final plan less that of the plan with this layer in int8 again; the
    runs that the bisection left over are spent on it, worst layers first.
    """
    rows: list[dict[str, Any]] = [{"layer": n, "output_error": e} for n, e in exempted]
    names = [n for n, _ in exempted]
    for row in rows[:left] if context.score else []:
        others = [n for n in names if n != row["layer"]]
        assert context.score
        row["accuracy_cost"] = kept - context.score((network, exempt(plan, others, "accuracy guard")))
    if context.time and rows:
        tried = [(network, plan), *((network, exempt(plan, [r["layer"]], "price")) for r in rows[:8])]
        base, *alone = context.time(tried)
        for row, ms in zip(rows, alone, strict=False):
            row["latency_ms"] = ms - base
    return rows


PLUGIN: Pass = QuantizeInt8()
