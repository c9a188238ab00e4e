"""Say what a diffusion pipeline's pictures are worth, and what was cut of its network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edgekit.core.outcome import Outcome, Paints
from edgekit.reports.page import table

# Columns of the sheet.
_SHOWN = 8


def paints_words(paints: Paints) -> str:
    """Return in one line how far pictures are from those of the pipeline as it came, and what they cost."""
    words = f"latent error {paints.error:.3g} on {len(paints.errors)} held-out prompts ({paints.schedule}, {paints.steps} steps)"
    if paints.right is not None and paints.dense_right is not None:
        words += f"; {paints.judge} sees what was asked for in {paints.right:.1%} of {paints.judged}, {paints.dense_right:.1%} as it came"
    for name, value in paints.scores.items():
        words += f"; {name.replace('_', ' ')} {value:.3g}"
    if paints.image_ms is not None:
        words += f"; {paints.image_ms:.3g} ms a picture"
    if paints.step_ratio:
        words += f"; a step {paints.step_ratio[0]:.2f} times as fast as it came"
    return words


def slim_words(facts: Mapping[str, Any]) -> str:
    """Return in one line what slimdiff cut."""
    before, after = facts["params_before"], facts["params_after"]
    return (
        f"{facts['params_removed'] / 1e6:.3g} M of {before / 1e6:.3g} M parameters cut, {after / 1e6:.3g} M left "
        f"({facts['kept_share']:.3f} of what can be cut); {facts['gmacs_before']:.3g} to {facts['gmacs_after']:.3g} "
        f"billion multiply-adds a step, by counting"
    )


def painting_html(outcome: Outcome, sheet: str) -> str:
    """Return the report's section, nothing where the model makes no pictures.

    Args:
        outcome: What was found.
        sheet: PNG in base64: a row of the pipeline as it came, a row of this one.
    """
    paints = outcome.paints
    if paints is None:
        return ""
    parts = ["<h2>Pictures</h2>", f"<p>{escape(paints_words(paints))}.</p>"]
    if sheet:
        parts.append(
            "<p class=soft>Held-out prompts, the same noise: above as it came, in float32; below from this bundle.</p>"
            f'<img alt="Pictures side by side" style="max-width:100%;image-rendering:pixelated" src="data:image/png;base64,{sheet}">'
        )
    rows = [(escape(p), f"{e:.3g}") for p, e in zip(paints.prompts, paints.errors, strict=True)]
    parts.append(table(("prompt", "latent error"), rows[:_SHOWN], numbers=(1,)))
    if len(rows) > _SHOWN:
        more = table(("prompt", "latent error"), rows[_SHOWN:], numbers=(1,))
        parts.append(f"<details><summary>{len(rows) - _SHOWN} more prompts</summary>{more}</details>")
    for name, why in paints.why_no_scores.items():
        parts.append(f"<p class=soft>{escape(name.replace('_', ' '))}: not taken, {escape(why)}.</p>")
    slim = outcome.passes.get("slimdiff")
    return "\n".join(parts) + (_slim(slim) if slim else "")


def _slim(facts: Mapping[str, Any]) -> str:
    rows = [
        (
            escape(g["group"]), str(g["sites"]), f"{g['params']:,}", f"{g['kept']:,}", f"{g['share']:.3f}",
            f'<div class="bar" style="width:{100 * g["share"]:.1f}%"></div>',
        )
        for g in facts["groups"]
    ]  # fmt: skip
    parts = ["<h2>What was cut</h2>", f"<p>{escape(slim_words(facts))}.</p>"]
    parts.append(table(("group", "modules", "parameters", "kept", "share", ""), rows, numbers=(1, 2, 3, 4)))
    if "latent_error" in facts:
        parts.append(
            f"<p>In torch, held-out prompts: one step {facts['step_error']:.2g}, with guidance {facts['guided_error']:.2g}, "
            f"final latents {facts['latent_error']:.2g} (relative squared errors).</p>"
        )
    if facts["timed"]:
        tries = [
            (f"{t['share']:.3f}", f"{t['slim_ms']:.2f}", f"{t['dense_ms']:.2f}", f"{t['ratio']:.3f}")
            for t in facts["timed"]
        ]
        heads = ("share of multiply-adds", "ms", "ms as it came", "times as fast")
        parts.append("<p>Measured on the way to the budget:</p>" + table(heads, tries, numbers=range(4)))
    modules = [
        (escape(m), escape(", ".join(f"{k} {v}" for k, v in s.items())))
        for m, s in sorted(facts["per_module"].items())
    ]
    parts.append(
        f"<details><summary>All {len(modules)} modules</summary>{table(('module', 'size'), modules)}</details>"
    )
    if facts["left_alone"]:
        left = [(escape(one["module"]), escape(one["why"])) for one in facts["left_alone"]]
        parts.append(f"<p>{len(left)} modules were left as they are:</p>" + table(("module", "why"), left))
    return "\n".join(parts)
