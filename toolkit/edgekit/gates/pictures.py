"""Judge the pictures of a diffusion pipeline against those of the pipeline as it came."""

from __future__ import annotations

from edgekit.core.outcome import Paints, Verdict
from edgekit.gates.protocol import Evidence, Gate


class Pictures:
    """Error of the final latents, and what a classifier sees."""

    keys = {
        "latent_error": "most relative squared error of the final latents on held-out prompts, same noise",
        "task_drop": "most share of pictures by which a classifier sees less of what was asked for",
    }
    most: float | None = None

    def judge(self, key: str, limit: float, evidence: Evidence) -> Verdict:
        """Compare what was found on held-out prompts with the limit."""
        paints = evidence.paints
        if paints is None:
            detail = "the model is no diffusion pipeline"
            return Verdict(gate=key, limit=limit, found="-", state="not judged", detail=detail)
        found, words, detail = _error(paints) if key == "latent_error" else _drop(paints)
        if found is None:
            return Verdict(gate=key, limit=limit, found="-", state="not judged", detail=detail)
        return Verdict(
            gate=key, limit=limit, found=words, state="pass" if found <= limit else "fail", detail=detail
        )


def _error(paints: Paints) -> tuple[float | None, str, str]:
    if not paints.errors:
        return None, "", "there are no held-out prompts"
    detail = (
        f"mean of {len(paints.errors)} held-out prompts, {min(paints.errors):.2g} to {max(paints.errors):.2g}"
    )
    return paints.error, f"{paints.error:.3g}", detail


def _drop(paints: Paints) -> tuple[float | None, str, str]:
    if paints.right is None or paints.dense_right is None:
        return None, "", "nobody judged (diffusion.judge, diffusion.judged)"
    detail = f"{paints.judge} sees it in {paints.dense_right:.1%} as it came, {paints.right:.1%} here, {paints.judged} pictures each"
    return paints.dense_right - paints.right, f"{paints.dense_right - paints.right:+.4f}", detail


PLUGIN: Gate = Pictures()
