"""The image classifiers of the catalogue, in the sizes one asks for: ResNet, VGG and ViT."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.plugins import suggestion

# Options with their defaults. A small stem keeps the size of the image, as for CIFAR; `imagenet` quarters it.
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "resnet": {"widths": [32, 64, 128, 256], "depths": [2, 2, 2, 2], "block": "basic", "stem": "small"},
    "vgg": {"widths": [64, 128, 256, 512, 512], "depths": [2, 2, 3, 3, 3]},
    "vit": {"width": 192, "depth": 12, "heads": 3, "patch": 4, "side": 32},
}
WHAT = {
    "resnet": "residual network of four stages (He et al. 2016), timm's blocks",
    "vgg": "plain convolutions with BatchNorm, a stage a pooling (Simonyan 2014), one linear layer as head",
    "vit": "vision transformer (Dosovitskiy et al. 2021), timm's blocks",
}
_WORDS = {"block": ("basic", "bottleneck"), "stem": ("small", "imagenet")}
_STAGES = {"resnet": 4}


def is_classifier(name: str) -> bool:
    """Return whether a name is one of the catalogue's classifiers, or timm's own (`timm/NAME`)."""
    return name in CLASSIFIERS or name.startswith("timm/")


def classifier_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a classifier, the given ones over the defaults.

    Raises:
        RecipeError: There is no such option, or its value is wrong.
    """
    own = CLASSIFIERS.get(name, {})
    for key, value in given.items():
        where = f"model.options.{key}"
        if key not in own:
            raise RecipeError(
                f"{where}: {name} has no such option", hint=suggestion(key, own) if own else "Leave it out."
            )
        if key in _WORDS:
            good = value in _WORDS[key]
        elif isinstance(own[key], list):
            good = (
                isinstance(value, list)
                and bool(value)
                and all(isinstance(v, int) and 1 <= v <= 4096 for v in value)
            )
        else:
            good = isinstance(value, int) and 1 <= value <= 4096
        if not good:
            may = " or ".join(_WORDS[key]) if key in _WORDS else f"{own[key]!r}, for example"
            raise RecipeError(f"{where}: cannot be {value!r}", hint=f"It may be {may}.")
    found = {**own, **given}
    if len(found.get("widths", ())) != len(found.get("depths", ())):
        raise RecipeError(
            "model.options: widths and depths differ in number", hint="Give both for each stage."
        )
    if name in _STAGES and len(found["widths"]) != _STAGES[name]:
        raise RecipeError(
            f"model.options.widths: {name} has {_STAGES[name]} stages", hint="Give one width for each."
        )
    return found


def build_classifier(name: str, *, nc: int, options: Mapping[str, Any] | None = None) -> Any:
    """Return a fresh classifier: images (B, 3, H, W) float32 to logits (B, nc).

    Args:
        name: Of `CLASSIFIERS`, or `timm/NAME`.
        nc: Number of classes.
        options: See `CLASSIFIERS`.

    Raises:
        RecipeError: There is no such option, or timm has no such model.
        MissingError: timm or torchvision is not installed.
    """
    found = classifier_options(name, options or {})
    if name.startswith("timm/"):
        timm = need("timm", extra="train", why=f"build {name}")
        if name[5:] not in timm.list_models():
            raise RecipeError(
                f"model.name: timm has no {name[5:]!r}", hint=suggestion(name[5:], timm.list_models())
            )
        return timm.create_model(name[5:], pretrained=False, num_classes=nc)
    return {"resnet": _resnet, "vgg": _vgg, "vit": _vit}[name](nc, found)


def _resnet(nc: int, options: Mapping[str, Any]) -> Any:
    nn = need("torch.nn", extra="train")
    timm = need("timm.models.resnet", extra="train", why="build a resnet")
    widths = tuple(options["widths"])
    block = timm.BasicBlock if options["block"] == "basic" else timm.Bottleneck
    net = timm.ResNet(block, tuple(options["depths"]), num_classes=nc, channels=widths, stem_width=widths[0])
    if options["stem"] == "small":
        net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net


def _vgg(nc: int, options: Mapping[str, Any]) -> Any:
    nn = need("torch.nn", extra="train")
    made = need("torchvision.models.vgg", extra="train", why="build a vgg").make_layers
    rows: list[Any] = []
    for width, depth in zip(options["widths"], options["depths"], strict=True):
        rows += [width] * depth + ["M"]
    parts = {
        "features": made(rows, batch_norm=True), "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1),
        "classifier": nn.Linear(options["widths"][-1], nc),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(parts))


def _vit(nc: int, options: Mapping[str, Any]) -> Any:
    timm = need("timm.models.vision_transformer", extra="train", why="build a vit")
    return timm.VisionTransformer(
        img_size=options["side"], patch_size=options["patch"], embed_dim=options["width"],
        depth=options["depth"], num_heads=options["heads"], num_classes=nc,
    )  # fmt: skip
