"""Export the segments of a pair: each stage of student and teacher, and the converters, as ONNX of its own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.lazy import need
from edgekit.plans.progressive import chain


@dataclass(frozen=True, kw_only=True)
class Part:
    """One segment, not written yet: its ONNX, and the names of what it takes and gives."""

    model: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def parts_of(
    pair: Any, masks: Sequence[str], *, shape: Sequence[int], input_name: str, opset: int
) -> dict[str, Part]:
    """Return every segment that the masks run, by name, in the order in which they are first run.

    Boundaries are called by their owner and stage ("t1"). Where widths are equal there is no converter, and a segment
    takes the boundary of either owner: it is then called "b1".

    Args:
        pair: `training.distillation.pair.Pair`, in eval mode.
        masks: Such as ("SSSS", "TSSS").
        shape: Of one input, (C, H, W).
        input_name: Of the model's input.
        opset: ONNX opset.
    """
    wanted = dict.fromkeys(n for m in masks for n in chain(m, converters_of(pair), taps=pair.student.taps))
    values = _values(pair, shape, input_name)
    return {name: _part(pair, name, values, input_name, opset) for name in wanted}


def converters_of(pair: Any) -> frozenset[str]:
    """Return the names of the converters that a pair has."""
    kinds = (("enc", pair.encoders), ("dec", pair.decoders))
    return frozenset(
        f"{w}{k + 1}" for w, held in kinds for k, c in enumerate(held) if any(True for _ in c.parameters())
    )


def _slot(pair: Any, owner: str, stage: int) -> str:
    """Return the name of a boundary (stage from 0)."""
    shared = stage + 1 < pair.stages and f"enc{stage + 1}" not in converters_of(pair)
    return f"{'b' if shared else owner}{stage + 1}"


def _values(pair: Any, shape: Sequence[int], input_name: str) -> dict[str, Any]:
    """Return an example of every value, for tracing."""
    torch = need("torch", extra="train")
    x = torch.zeros(1, *shape)
    found = {input_name: x}
    with torch.no_grad():
        for owner, net in (("s", pair.student), ("t", pair.teacher)):
            for k, b in enumerate(net.boundaries(x)[:-1]):
                found[_slot(pair, owner, k)] = b
    return found


def _part(pair: Any, name: str, values: Mapping[str, Any], input_name: str, opset: int) -> Part:
    if name.startswith(("enc", "dec")):
        k = int(name[3:]) - 1
        module = (pair.encoders if name[0] == "e" else pair.decoders)[k]
        ends = ("t", "s") if name[0] == "e" else ("s", "t")
        return _traced(module, (f"{ends[0]}{k + 1}",), (f"{ends[1]}{k + 1}",), values, opset)
    owner, k = name[0], int(name[1:]) - 1
    net, last = pair.teacher if owner == "t" else pair.student, k + 1 == pair.stages
    inputs: tuple[str, ...] = (input_name,) if k == 0 else (_slot(pair, owner, k - 1),)
    if last:
        inputs += tuple(_slot(pair, owner, j) for j in net.taps if j < k - 1)
    outputs = () if last else (_slot(pair, owner, k),)
    return _traced(_module(net, k), inputs, outputs, values, opset)


def _module(net: Any, k: int) -> Any:
    """Return a stage with what is loaded together with it: the embedder before the first, the head behind the last."""
    nn = need("torch.nn", extra="train")
    last = k + 1 == len(net.stages)

    class Segment(nn.Module):  # type: ignore[misc, name-defined]
        """A stage as one module."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any, *beside: Any) -> Any:
            """Return the boundary, or the model's outputs."""
            found = self.net.stages[k](self.net.embed(x) if k == 0 else x)
            if not last:
                return found
            known = dict(zip((j for j in net.taps if j < k - 1), beside, strict=True)) | {k - 1: x, k: found}
            return self.net.head(*(known[j] for j in net.taps))

    # Fresh modules are in train mode, and exporting one leaves what it wraps in that mode.
    return Segment().eval()


def _traced(
    module: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], values: Mapping[str, Any], opset: int
) -> Part:
    torch, onnx = need("torch", extra="train"), need("onnx", extra="host")
    buffer, given = io.BytesIO(), tuple(values[n] for n in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = module.eval()(*given)
        if not outputs:
            outputs = tuple(f"output{k}" for k in range(len(said) if isinstance(said, list | tuple) else 1))
        torch.onnx.export(
            module, given, buffer, opset_version=opset, dynamo=False,
            input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
    return Part(model=onnx.load_from_string(buffer.getvalue()), inputs=inputs, outputs=outputs)
