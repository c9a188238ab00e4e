"""Cut a network into an embedder, stages and a head, so that its parts can be loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.core.errors import RecipeError


class Staged(nn.Module):
    """A network in stages; shares its modules with the network it was cut from.

    Args:
        embed: What comes before the first stage; loaded with it.
        stages: In order; each gives one tensor, its boundary: (B, C, H, W) or (B, tokens, C).
        head: Takes the boundaries of `taps`, in order; loaded with the last stage.
        taps: Stages, from 0, whose boundaries the head takes; the last one is among them.
    """

    def __init__(
        self, embed: nn.Module, stages: Sequence[nn.Module], head: nn.Module, taps: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.embed, self.stages, self.head = embed, nn.ModuleList(stages), head
        self.taps = tuple(taps) or (len(stages) - 1,)

    def boundaries(self, x: Tensor) -> list[Tensor]:
        """Return what each stage gives for inputs (B, C, H, W)."""
        found = [self.stages[0](self.embed(x))]
        for stage in self.stages[1:]:
            found.append(stage(found[-1]))
        return found

    def answer(self, boundaries: Sequence[Tensor]) -> Any:
        """Return what the head makes of all boundaries."""
        return self.head(*(boundaries[k] for k in self.taps))

    def forward(self, x: Tensor) -> Any:
        """Return what the network it was cut from returns."""
        return self.answer(self.boundaries(x))


class Calls(nn.Module):
    """A step that is a method of a network rather than one of its modules; `held` are the modules it uses."""

    def __init__(self, held: dict[str, nn.Module], call: Callable[..., Any]) -> None:
        super().__init__()
        self.held = nn.ModuleDict(held)
        self.call = call

    def forward(self, *given: Tensor) -> Any:
        """Return what the method gives."""
        return self.call(*given)


def channels_of(boundary: Tensor) -> int:
    """Return the width of a boundary: dimension 1 of images, the last one of tokens."""
    return int(boundary.shape[1] if boundary.ndim == 4 else boundary.shape[-1])


def places_of(boundary: Tensor) -> tuple[int, ...]:
    """Return the spatial size of a boundary, or its number of tokens."""
    return tuple(boundary.shape[2:] if boundary.ndim == 4 else boundary.shape[1:-1])


def staged(network: nn.Module, *, shape: Sequence[int], names: Sequence[str] = (), stages: int = 0) -> Staged:
    """Return a network of torchvision, timm or the catalogue in stages, proven to be the same on one input.

    Args:
        network: In eval mode.
        shape: Of one input, (C, H, W).
        names: Modules, each the end of a stage, for networks of other kinds; the first ends the embedder.
        stages: Of a transformer, into which its blocks are cut evenly; 0 takes 4.

    Raises:
        RecipeError: The network cannot be cut so.
    """
    found = _by_names(network, names) if names else _known(network, stages or 4)
    sample = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    mode = network.training
    with torch.no_grad():
        network.eval()
        found.eval()
        same = _equal(network(sample), found(sample))
    network.train(mode)
    if not same:
        raise RecipeError(
            f"{type(network).__name__}: its stages do not give what the whole network gives",
            hint="Its forward() does more than its parts; name its stages (`stages:`), or write them as modules.",
        )
    return found


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return all(_equal(a[k], b[k]) for k in a)
    return all(_equal(x, y) for x, y in zip(a, b, strict=True)) if isinstance(a, list | tuple) else True


def _known(network: Any, stages: int) -> Staged:
    for fits, cut in ((_is_resnet, _resnet), (_is_vgg, _vgg), (_is_detector, _detector)):
        if fits(network):
            return cut(network)
    if hasattr(network, "blocks") and hasattr(network, "patch_embed"):
        return _timm_vit(network, stages)
    if hasattr(network, "encoder") and hasattr(network, "_process_input"):
        return _torchvision_vit(network, stages)
    raise RecipeError(
        f"{type(network).__name__}: edgekit does not know its stages",
        hint="Name the modules that end them: `stages: [stem, layer1, layer2, layer3]`.",
    )


def _is_resnet(network: Any) -> bool:
    return all(hasattr(network, k) for k in ("conv1", "bn1", "maxpool", "layer4", "fc"))


def _resnet(network: Any) -> Staged:
    """Cut a ResNet after each of its four layers."""
    act = network.relu if hasattr(network, "relu") else network.act1
    embed = nn.Sequential(network.conv1, network.bn1, act, network.maxpool)
    pool = network.avgpool if hasattr(network, "avgpool") else network.global_pool
    head = nn.Sequential(pool, nn.Flatten(1), network.fc)
    return Staged(embed, [network.layer1, network.layer2, network.layer3, network.layer4], head)


def _is_vgg(network: Any) -> bool:
    return isinstance(getattr(network, "features", None), nn.Sequential) and (
        hasattr(network, "classifier") or hasattr(network, "pre_logits")
    )


def _vgg(network: Any) -> Staged:
    """Cut a VGG after each pooling."""
    groups: list[list[nn.Module]] = [[]]
    for layer in network.features:
        groups[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
    # What follows the last pooling belongs to the last stage.
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    stages = [nn.Sequential(*g) for g in groups]
    if hasattr(network, "pre_logits"):
        head = nn.Sequential(network.pre_logits, network.head)
    else:
        head = nn.Sequential(network.avgpool, nn.Flatten(1), network.classifier)
    return Staged(nn.Identity(), stages, head)


def _even(blocks: Sequence[nn.Module], stages: int) -> list[nn.Module]:
    """Cut blocks into stages of equal length, the longer ones first."""
    if len(blocks) < stages:
        raise RecipeError(
            f"{len(blocks)} blocks cannot be cut into {stages} stages", hint=f"Take at most {len(blocks)}."
        )
    ends = [round(len(blocks) * (k + 1) / stages) for k in range(stages)]
    return [nn.Sequential(*blocks[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def _timm_vit(network: Any, stages: int) -> Staged:
    def embed(x: Tensor) -> Any:
        tokens = network._pos_embed(network.patch_embed(x))  # noqa: SLF001 - timm has no public name for it
        return network.norm_pre(network.patch_drop(tokens))

    def head(x: Tensor) -> Any:
        return network.forward_head(network.norm(x))

    before = _TokenEmbed(network, embed, ("cls_token", "pos_embed", "reg_token"), ("patch_embed", "norm_pre"))
    held = {k: getattr(network, k) for k in ("norm", "fc_norm", "head_drop", "head")}
    return Staged(before, _even(list(network.blocks), stages), Calls(held, head))


def _torchvision_vit(network: Any, stages: int) -> Staged:
    def embed(x: Tensor) -> Any:
        tokens = network._process_input(x)  # noqa: SLF001 - torchvision has no public name for it
        first = network.class_token.expand(len(tokens), -1, -1)
        return network.encoder.dropout(torch.cat([first, tokens], 1) + network.encoder.pos_embedding)

    def head(x: Tensor) -> Any:
        return network.heads(network.encoder.ln(x)[:, 0])

    before = _TokenEmbed(network, embed, ("class_token",), ("conv_proj",))
    before.position = network.encoder.pos_embedding
    held = {"ln": network.encoder.ln, "heads": network.heads}
    return Staged(before, _even(list(network.encoder.layers), stages), Calls(held, head))


class _TokenEmbed(nn.Module):
    """From images to tokens; holds the parameters that a transformer keeps outside of its modules."""

    def __init__(
        self, network: Any, call: Callable[[Tensor], Any], own: Sequence[str], held: Sequence[str]
    ) -> None:
        super().__init__()
        for name in own:
            if isinstance(getattr(network, name, None), nn.Parameter):
                self.register_parameter(name, getattr(network, name))
        for name in held:
            self.add_module(name, getattr(network, name))
        self.call = call

    def forward(self, x: Tensor) -> Any:
        """Return tokens (B, N, C) of images (B, 3, H, W)."""
        return self.call(x)


def _is_detector(network: Any) -> bool:
    return hasattr(network, "yaml") and hasattr(network, "save") and isinstance(network.model, nn.Sequential)


def _detector(network: Any) -> Staged:
    """Cut an ultralytics detector where its neck takes from the backbone: neck and head keep their contract."""
    layers = list(network.model)
    length = len(network.yaml["backbone"])
    taken = {f for layer in layers[length:] for f in _from(layer, int(layer.i)) if f < length}
    ends = sorted(taken | {length - 1})
    if any(layer.f != -1 for layer in layers[:length]):
        raise RecipeError(
            f"{type(network).__name__}: its backbone is no plain chain", hint="Name its stages (`stages:`)."
        )
    stages = [nn.Sequential(*layers[a + 1 : b + 1]) for a, b in zip([-1, *ends], ends, strict=False)]
    return Staged(nn.Identity(), stages, _Neck(layers[length:], ends), range(len(ends)))


def _from(layer: Any, index: int) -> list[int]:
    """Return the layers that a layer takes from, by index."""
    given = layer.f if isinstance(layer.f, list | tuple) else [layer.f]
    return [index + f if f < 0 else f for f in given]


class _Neck(nn.Module):
    """What follows the backbone of a detector; takes one tensor for each of the backbone's layers `ends`."""

    def __init__(self, layers: Sequence[Any], ends: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.ends = nn.ModuleList(layers), tuple(ends)
        self.links = [(int(x.i), _from(x, int(x.i)), isinstance(x.f, list | tuple)) for x in layers]

    def forward(self, *boundaries: Tensor) -> Any:
        """Return what the detector's head returns."""
        known: dict[int, Any] = dict(zip(self.ends, boundaries, strict=True))
        for layer, (index, sources, many) in zip(self.layers, self.links, strict=True):
            given = [known[f] for f in sources]
            known[index] = layer(given if many else given[0])
        return known[self.links[-1][0]]


def _by_names(network: nn.Module, names: Sequence[str]) -> Staged:
    """Cut a network after each of the named modules; torch.fx finds what runs between them."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            # It would write over the boundary before it, which converters learn from.
            module.inplace = False  # type: ignore[assignment]
    parts = _pieces(network, names)
    if len(parts) < 3:
        raise RecipeError(
            "stages: fewer than two modules are named", hint="Name the embedder's end and each stage's."
        )
    return Staged(parts[0], parts[1:-1], parts[-1])


def _pieces(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    from torch.fx.graph_module import GraphModule
    from torch.fx.passes.split_module import split_module

    known = dict(network.named_modules())
    for name in names:
        if name not in known:
            raise RecipeError(
                f"stages: {type(network).__name__} has no module {name!r}",
                hint=f"It has: {', '.join(k for k, _ in network.named_children())}.",
            )
    traced = GraphModule(network, _Tracer(frozenset(names)).trace(network))
    place, part = {}, 0
    for node in traced.graph.nodes:
        place[node] = part
        if node.op == "call_module" and node.target == names[min(part, len(names) - 1)] and part < len(names):
            part += 1
    if part < len(names):
        raise RecipeError(
            f"stages: {names[part]!r} does not run after {list(names[:part])}", hint="Name them in order."
        )
    whole: Any = split_module(traced, network, lambda node: place[node])
    pieces = [m for _, m in whole.named_children()]
    for piece, name in zip(pieces[1:], names, strict=True):
        taken = [n for n in piece.graph.nodes if n.op == "placeholder"]
        if len(taken) != 1:
            raise RecipeError(
                f"stages: {len(taken)} tensors pass the end of {name!r}, one can be handed on",
                hint="Cut where one tensor carries everything: behind a residual sum, not inside of it.",
            )
    return pieces


class _Tracer(torch.fx.Tracer):
    """Follows forward() down to the named modules, which stay whole."""

    def __init__(self, whole: frozenset[str]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module stays whole."""
        return module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name)
