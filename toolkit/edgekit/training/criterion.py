"""The detection loss of a run: ultralytics' own, with SlideLoss in its class part where asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ultralytics.utils.loss import v8DetectionLoss

from edgekit.core.errors import RecipeError
from edgekit.training.settings import TrainPart
from edgekit.training.slide import SlideAssigner, SlideBCE

# Gains of box (CIoU), class and distribution loss: YOLOv8's.
_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}


def criterion_of(model: Any, settings: TrainPart) -> v8DetectionLoss:
    """Return the loss of a detector.

    Raises:
        RecipeError: The detector is end-to-end; its two-branch loss is not offered here.
    """
    if hasattr(model.model[-1], "one2one_cv2"):
        raise RecipeError(
            "train: end-to-end detectors (yolov10, yolo26) are not trained by edgekit",
            hint="Train with ultralytics' own trainer and give the .pt.",
        )
    model.args = SimpleNamespace(**_GAINS)
    loss = v8DetectionLoss(model)
    if settings.loss == "slide":
        slide: Any = SlideBCE(settings.mu_mode, settings.mu_fixed)
        loss.bce, loss.assigner = slide, SlideAssigner(like=loss.assigner, hears=slide)
    return loss
