"""Layers of other widths than a configuration says: what a slimmed diffusion network holds."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# Processors of diffusers that compute plain attention and nothing beside it.
_PLAIN = frozenset({"AttnProcessor", "AttnProcessor2_0"})


class SlimAttention(nn.Module):
    """Multi-head attention with a rank for queries and keys and one for values.

    Logits are divided by the square root of the stored query rank, as every kernel does it.

    Args:
        to_q: (query width) -> heads x qk rank.
        to_k: (context width) -> heads x qk rank.
        to_v: (context width) -> heads x vo rank.
        to_out: heads x vo rank -> (query width).
        heads: Of them.
        divisor: What the output is divided by (`rescale_output_factor`).
        residual: Whether the input is added before that.
    """

    def __init__(
        self, to_q: nn.Linear, to_k: nn.Linear, to_v: nn.Linear, to_out: nn.Linear, *, heads: int,
        divisor: float = 1.0, residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.to_q, self.to_k, self.to_v = to_q, to_k, to_v
        self.to_out = nn.ModuleList([to_out])  # a list, as in diffusers: the weights keep their names
        self.heads, self.divisor, self.residual = heads, divisor, residual

    @property
    def qk_rank(self) -> int:
        """Width of a head's queries and keys."""
        return self.to_q.out_features // self.heads

    @property
    def vo_rank(self) -> int:
        """Width of a head's values."""
        return self.to_v.out_features // self.heads

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, **_: Any,
    ) -> torch.Tensor:  # fmt: skip
        """Return what the attention adds, (N, tokens, query width).

        Args:
            hidden_states: (N, tokens, query width).
            encoder_hidden_states: (N, context tokens, context width); itself where None.
            attention_mask: What is added to the logits, (N, 1, context tokens).
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = self.to_q(hidden_states), self.to_k(context), self.to_v(context)
        query, key, value = (self._by_head(t) for t in (query, key, value))
        mask = None if attention_mask is None else attention_mask[:, None]
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        given: torch.Tensor = self.to_out[0](found.transpose(1, 2).flatten(2))
        if self.residual:
            given = given + hidden_states
        return given / self.divisor if self.divisor != 1 else given

    def _by_head(self, values: torch.Tensor) -> torch.Tensor:
        split: torch.Tensor = values.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)


def why_not(attention: Any) -> str:
    """Return why an attention of diffusers cannot be slimmed, empty where it can."""
    processor = type(attention.processor).__name__
    checks = {
        f"its processor is {processor}, which may do more than plain attention (such as rotary positions)": processor not in _PLAIN,
        "queries or keys are normalised (norm_q, norm_k)": attention.norm_q is not None or attention.norm_k is not None,
        "the context is normalised inside (norm_cross)": attention.norm_cross is not None,
        "it has added key and value projections": attention.added_kv_proj_dim is not None,
        "it normalises its input inside (group_norm, spatial_norm)": attention.group_norm is not None or attention.spatial_norm is not None,
        "keys are shared by heads": attention.inner_kv_dim != attention.inner_dim,
        "its logits are not scaled": not attention.scale_qk,
        "attention is causal": attention.is_causal,
        "projections are fused": attention.fused_projections,
        "projections are not plain linear layers": not _plain_layers(attention),
    }  # fmt: skip
    return next((why for why, found in checks.items() if found), "")


def _plain_layers(attention: Any) -> bool:
    # Adapters wrap layers; what they add would be lost.
    return all(
        type(one) is nn.Linear for one in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    )  # fmt: skip


def slim_from(attention: Any) -> SlimAttention:
    """Return the same attention as a `SlimAttention`, its layers shared; one that is slim already as it is."""
    if isinstance(attention, SlimAttention):
        return attention
    return SlimAttention(
        attention.to_q, attention.to_k, attention.to_v, attention.to_out[0], heads=attention.heads,
        divisor=float(attention.rescale_output_factor), residual=bool(attention.residual_connection),
    )  # fmt: skip


def linear(weight: torch.Tensor, bias: torch.Tensor | None, *, like: nn.Linear) -> nn.Linear:
    """Return a linear layer with these values, (out, in) and (out,), of the dtype and gradient flag of another."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    old = like.weight
    made.weight = nn.Parameter(weight.to(old.dtype), requires_grad=old.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.to(old.dtype), requires_grad=old.requires_grad)
    return made


def with_layers(attention: Any, **layers: nn.Linear) -> SlimAttention:
    """Return an attention as a slim one with some layers replaced: `to_q`, `to_k`, `to_v`, `to_out`."""
    old = slim_from(attention)
    kept: dict[str, Any] = {"to_q": old.to_q, "to_k": old.to_k, "to_v": old.to_v, "to_out": old.to_out[0]}
    return SlimAttention(**(kept | layers), heads=old.heads, divisor=old.divisor, residual=old.residual)


def with_neurons(block: Any, first: nn.Linear, second: nn.Linear) -> Any:
    """Return a feed-forward block of diffusers with other layers; the block itself stays as it is."""
    made = copy.copy(block)
    made._modules = dict(block._modules)  # noqa: SLF001, torch gives no shallow copy
    made.net = nn.ModuleList(block.net)
    made.net[0] = copy.copy(block.net[0])
    made.net[0]._modules = dict(block.net[0]._modules)  # noqa: SLF001
    made.net[0].proj, made.net[2] = first, second
    return made


def shaped_attention(attention: Any, qk_rank: int, vo_rank: int) -> SlimAttention:
    """Return an attention with these ranks and values of no meaning; 0 keeps a rank."""
    one = slim_from(attention)
    layers: dict[str, nn.Linear] = {}
    if qk_rank:
        wide = qk_rank * one.heads
        layers |= {"to_q": _fresh(one.to_q, outputs=wide), "to_k": _fresh(one.to_k, outputs=wide)}
    if vo_rank:
        wide = vo_rank * one.heads
        layers |= {"to_v": _fresh(one.to_v, outputs=wide), "to_out": _fresh(_out_of(one), inputs=wide)}
    return with_layers(one, **layers)


def shaped_feed_forward(block: Any, width: int) -> Any:
    """Return a feed-forward block with that many neurons and values of no meaning."""
    first, second = block.net[0].proj, block.net[2]
    parts = first.out_features // second.in_features
    return with_neurons(block, _fresh(first, outputs=width * parts), _fresh(second, inputs=width))


def _out_of(attention: SlimAttention) -> nn.Linear:
    found = attention.to_out[0]
    assert isinstance(found, nn.Linear)
    return found


def _fresh(layer: nn.Linear, *, outputs: int = 0, inputs: int = 0) -> nn.Linear:
    place = layer.weight.device
    weight = torch.zeros(outputs or layer.out_features, inputs or layer.in_features, device=place)
    return linear(
        weight, None if layer.bias is None else torch.zeros(weight.shape[0], device=place), like=layer
    )
