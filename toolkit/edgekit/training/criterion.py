"""The loss of a run: ultralytics' own for detectors, with SlideLoss where asked; cross-entropy for classifiers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from edgekit.core.errors import RecipeError
from edgekit.training.settings import TrainPart
from edgekit.training.slide import SlideAssigner, SlideBCE

# Gains of box (CIoU), class and distribution loss: YOLOv8's.
_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}


class Classes:
    """Cross-entropy of a classifier's logits."""

    loss_names = ("cls_loss",)
    bce = None

    def loss(self, found: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts."""
        value = cross_entropy(found, batch["cls"])
        return value, {"cls_loss": value.detach()}


def criterion_of(network: Any, settings: TrainPart) -> Any:
    """Return the loss of a detector, or of a classifier.

    Raises:
        RecipeError: The detector is end-to-end; its two-branch loss is not offered here.
    """
    if not isinstance(network, DetectionModel):
        return Classes()
    model: Any = network
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
