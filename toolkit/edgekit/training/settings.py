"""What a recipe says of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainPart:
    """Training on `data`, before everything else; the defaults are YOLOv8's own where it has one.

    Attributes:
        epochs: Passes over the training images.
        batch: Images a step.
        imgsz: Side of the square training input in pixels.
        tile: Cut images into squares of `imgsz` pixels instead of scaling them to it.
        limit: Training images (or tiles) at most, the first ones; 0 takes all.
        optimizer: sgd or adamw.
        lr: Highest learning rate.
        final_lr: Last learning rate as a share of the highest.
        schedule: linear or cosine, from highest to last.
        warmup_epochs: Epochs, or a part of one, in which the rate rises from zero.
        momentum: Of sgd; the first beta of adamw.
        weight_decay: On convolution weights alone.
        average: Decay of the weight average that is validated and exported; 0 takes the weights as they are.
        loss: bce, or slide (weights around the mean overlap; MS-YOLO).
        mu_mode: Of slide: the mean overlap of this batch, a running average of it (ema), or fixed.
        mu_fixed: Of slide with `mu_mode: fixed`; 0.2 is what MS-YOLO's authors' code amounts to.
        teacher: A larger detector of the catalogue to learn from; empty learns from labels alone.
        teacher_weights: Its safetensors file.
        distill: Weight of what the teacher says.
        mosaic: Share of images that are joined from four.
        close_mosaic: Last epochs without mosaic.
        zoom: Images are scaled by 1 - zoom to 1 + zoom.
        shift: Images are moved by up to this share of their side.
        hue: Hue is multiplied by 1 - hue to 1 + hue.
        saturation: Largest change of saturation, as a share.
        value: Largest change of brightness, as a share.
        fliplr: Share of images mirrored left to right.
        flipud: Share of images mirrored upside down, for views from above.
        turns: Share of images turned by a quarter, for views from above.
        precision: fp32, bf16, or auto (bf16 where this machine computes in it).
        threads: Of the CPU; 0 takes what torch takes.
        seed: Of weights, order and augmentation.
        val_images: Validation images an epoch is judged on; 0 judges none and keeps the last epoch.
    """

    __pydantic_config__ = {"extra": "forbid"}

    epochs: int = 100
    batch: int = 16
    imgsz: int = 640
    tile: bool = False
    limit: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    final_lr: float = 0.01
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_epochs: float = 3.0
    momentum: float = 0.937
    weight_decay: float = 5e-4
    average: float = 0.9999
    loss: Literal["bce", "slide"] = "bce"
    mu_mode: Literal["batch", "ema", "fixed"] = "batch"
    mu_fixed: float = 0.2
    teacher: str = ""
    teacher_weights: str = ""
    distill: float = 1.0
    mosaic: float = 1.0
    close_mosaic: int = 10
    zoom: float = 0.5
    shift: float = 0.1
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    fliplr: float = 0.5
    flipud: float = 0.0
    turns: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = 0
    seed: int = 0
    val_images: int = 200


# Limits of the numbers above: lowest and highest allowed.
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10000), "batch": (1, 1024), "imgsz": (32, 4096), "limit": (0, 10**9),
    "lr": (1e-7, 1), "final_lr": (0, 1), "warmup_epochs": (0, 100), "momentum": (0, 0.9999),
    "weight_decay": (0, 1), "average": (0, 0.999999), "mu_fixed": (0.2, 1), "distill": (0, 100),
    "mosaic": (0, 1), "close_mosaic": (0, 10000), "zoom": (0, 0.9), "shift": (0, 0.9), "hue": (0, 0.5),
    "saturation": (0, 1), "value": (0, 1), "fliplr": (0, 1), "flipud": (0, 1), "turns": (0, 1),
    "threads": (0, 1024), "seed": (0, 2**31), "val_images": (0, 10**9),
}  # fmt: skip
