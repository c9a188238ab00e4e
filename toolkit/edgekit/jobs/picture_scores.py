"""FID and CLIP score of pictures, through kept libraries, where their weights are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.lazy import have, need

_CLIP = "openai/clip-vit-base-patch16"
# Below this a Fréchet distance of 2,048 features says nothing.
_FID_LEAST = 2048


def picture_scores(
    images: NDArray[np.uint8], dense: NDArray[np.uint8], prompts: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the scores that could be taken, and why the others could not.

    Nothing is fetched: the weights must lie in the libraries' own caches.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        dense: Of the pipeline as it came, the same prompts.
        prompts: One a picture.
    """
    found: dict[str, float] = {}
    why: dict[str, str] = {}
    for name, take in {
        "clip_score": lambda: _clip(images, prompts),
        "fid": lambda: _fid(images, dense),
    }.items():
        _take(name, take, found, why)
    return found, why


def _take(name: str, take: Callable[[], float], found: dict[str, float], why: dict[str, str]) -> None:
    if not have("torchmetrics"):
        why[name] = "torchmetrics is not installed"
        return
    try:
        found[name] = take()
    # Missing weights show as whatever each library raises.
    except Exception as error:  # noqa: BLE001
        why[name] = str(error).strip().partition("\n")[0][:120]


def _clip(images: NDArray[np.uint8], prompts: Sequence[str]) -> float:
    torch = need("torch", extra="diffusion")
    need("huggingface_hub", extra="diffusion").snapshot_download(_CLIP, local_files_only=True)
    score: Any = need("torchmetrics.multimodal.clip_score").CLIPScore(model_name_or_path=_CLIP)
    return float(score(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), list(prompts)))


def _fid(images: NDArray[np.uint8], dense: NDArray[np.uint8]) -> float:
    torch = need("torch", extra="diffusion")
    if len(images) < _FID_LEAST:
        raise ValueError(f"{len(images)} pictures, {_FID_LEAST} are needed")
    score: Any = need("torchmetrics.image.fid").FrechetInceptionDistance()
    for pictures, real in ((dense, True), (images, False)):
        score.update(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), real=real)
    return float(score.compute())
