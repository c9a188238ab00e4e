"""SlimDiff: factors, budgets and rewriters against the mathematics they stand for."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.calibration import budgets
from edgekit.calibration.budgets import Unit
from edgekit.calibration.factors import (
    compensated,
    hidden_error,
    product_errors,
    ridge_leverage,
    top,
    whitened,
)
from edgekit.calibration.rewriting import Site, cut, rewriters, sites_of
from edgekit.calibration.second_moments import Kept, SecondMoments, Tap, in_groups
from edgekit.calibration.slim_set import slim_set
from edgekit.core.errors import ContractError, RecipeError
from edgekit.models.slim_layers import SlimAttention, slim_from
from edgekit.models.slim_network import load_slim, save_slim
from tests.slim import apart, inputs, moments, run, unet

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network() -> UNet2DConditionModel:
    return unet()


@pytest.fixture(scope="module")
def kept(network, tmp_path_factory) -> Kept:
    return moments(network, tmp_path_factory.mktemp("moments"), inputs())


def _solved(network, kept, method_of=lambda r: r.methods[0]):
    sites, _ = sites_of(network)
    return [
        rewriters()[s.rewriter].solve(network, s, kept, method_of(rewriters()[s.rewriter])) for s in sites
    ]


# S1, S6
@pytest.mark.parametrize("head", [2, 4])
def test_at_full_rank_every_module_and_the_network_are_the_dense_ones(head, tmp_path):
    network = unet(head=head, block_out_channels=(24, 48))  # heads of 6, 12 and 24
    given = inputs()
    kept, dense = moments(network, tmp_path, given), run(network, given)
    changed = copy.deepcopy(network)
    for solved in _solved(network, kept):
        made = rewriters()[solved.site.rewriter].rewritten(network, solved, solved.site.size, kept)
        parent, _, name = solved.site.module.rpartition(".")
        old = changed.get_submodule(solved.site.module)
        x = torch.randn(2, 7, (old.to_q if hasattr(old, "to_q") else old.net[0].proj).in_features)
        y = {} if "attn2" not in solved.site.module else {"encoder_hidden_states": torch.randn(2, 5, 24)}
        with torch.inference_mode():
            a, b = made(x, **y).numpy(), network.get_submodule(solved.site.module)(x, **y).numpy()
        assert apart(a, b) < 1e-12  # the square of a relative error of 1e-6
        # Queries-keys first, values-outputs then, onto the same attention.
        again = rewriters()[solved.site.rewriter].rewritten(changed, solved, solved.site.size, kept)
        setattr(changed.get_submodule(parent), name, again)
    assert apart(run(changed, given), dense) < 1e-10


def test_attention_of_heads_of_five_keeps_its_output_at_full_rank():
    attention = Attention(query_dim=20, heads=4, dim_head=5, cross_attention_dim=12).eval()
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 9, 20, generator=rng), torch.randn(3, 4, 12, generator=rng)
    holder = torch.nn.ModuleDict({"attn": attention})
    site = next(s for s in rewriters()["qk"].sites(holder) if isinstance(s, Site))
    q, k = attention.to_q(x).detach().reshape(-1, 4, 5), attention.to_k(y).detach().reshape(-1, 4, 5)
    given = {"attn:q": _moment(q), "attn:k": _moment(k)}
    solved = rewriters()["qk"].solve(holder, site, given, "whitened")
    made = rewriters()["qk"].rewritten(holder, solved, 5, given)
    with torch.inference_mode():
        assert torch.allclose(
            made(x, encoder_hidden_states=y), attention(x, encoder_hidden_states=y), atol=1e-5
        )


def _moment(values: torch.Tensor) -> np.ndarray:
    rows = values.double().numpy()
    return np.einsum("nhi,nhj->hij", rows, rows) / len(rows)


# S2
def test_without_moments_the_factors_are_the_svd_of_the_product():
    left, right = RNG.standard_normal((2, 30, 6)), RNG.standard_normal((2, 20, 6))
    factors = whitened(np.swapaxes(left, 1, 2) @ left, np.swapaxes(right, 1, 2) @ right)
    for head in range(2):
        u, s, vt = np.linalg.svd(left[head] @ right[head].T, full_matrices=False)
        for rank in (1, 3, 5):
            ours = left[head] @ factors.left[head, :, :rank] @ (right[head] @ factors.right[head, :, :rank]).T
            best = (u[:, :rank] * s[:rank]) @ vt[:rank]
            np.testing.assert_allclose(ours, best, atol=1e-6 * s[0])
    tails = [
        sum(
            float((np.linalg.svd(left[h] @ right[h].T, compute_uv=False)[rank:6] ** 2).sum())
            for h in range(2)
        )
        for rank in (2, 4)
    ]
    total = sum(float(((left[h] @ right[h].T) ** 2).sum()) for h in range(2))
    found = product_errors(factors, np.swapaxes(left, 1, 2) @ left, np.swapaxes(right, 1, 2) @ right, (2, 4))
    np.testing.assert_allclose(found, np.array(tails) / total, rtol=1e-6)


# S3
def test_the_error_of_the_logits_is_the_tail_that_was_predicted(network, kept, tmp_path):
    site = next(s for s in sites_of(network)[0] if s.rewriter == "qk" and "attn2" in s.module)
    solved = rewriters()["qk"].solve(network, site, kept, "whitened")
    seen = {}
    attention = network.get_submodule(site.module)
    hooks = [
        getattr(attention, n).register_forward_hook(lambda _, __, out, n=n: seen.update({n: out.detach()}))
        for n in ("to_q", "to_k")
    ]
    run(network, inputs())
    for hook in hooks:
        hook.remove()
    heads, size = attention.heads, site.size
    q, k = (seen[n].double().numpy().reshape(-1, heads, size) for n in ("to_q", "to_k"))
    rank = size // 2
    error = total = 0.0
    for h in range(heads):
        # Independent queries and keys: every one of the calibration set with every other.
        full = q[:, h] @ k[:, h].T
        low = (q[:, h] @ solved.values["left"][h, :, :rank]) @ (
            k[:, h] @ solved.values["right"][h, :, :rank]
        ).T
        error, total = error + ((full - low) ** 2).sum(), total + (full**2).sum()
    assert error / total == pytest.approx(solved.error(rank), abs=1e-4)


def test_the_error_of_what_heads_give_is_the_tail_that_was_predicted(network, kept):
    site = next(s for s in sites_of(network)[0] if s.rewriter == "vo" and "attn1" in s.module)
    solved = rewriters()["vo"].solve(network, site, kept, "attended")
    attention, seen = network.get_submodule(site.module), {}
    hook = attention.to_out[0].register_forward_pre_hook(lambda _, given: seen.update(o=given[0].detach()))
    run(network, inputs())
    hook.remove()
    o = seen["o"].double().numpy().reshape(-1, attention.heads, site.size)
    after = attention.to_out[0].weight.detach().double().numpy().reshape(-1, attention.heads, site.size)
    rank, error, total = site.size // 2, 0.0, 0.0
    for h in range(attention.heads):
        full = o[:, h] @ after[:, h].T
        low = (o[:, h] @ solved.values["left"][h, :, :rank]) @ (
            after[:, h] @ solved.values["right"][h, :, :rank]
        ).T
        error, total = error + ((full - low) ** 2).sum(), total + (full**2).sum()
    assert error / total == pytest.approx(solved.error(rank), abs=1e-4)


# S4
def test_errors_fall_with_rank_and_no_method_beats_whitening_on_its_own_moments(network, kept):
    for site in sites_of(network)[0]:
        if site.rewriter == "ffn":
            continue
        rewriter = rewriters()[site.rewriter]
        best = rewriter.solve(network, site, kept, rewriter.methods[0])
        assert all(a >= b - 1e-12 for a, b in zip(best.errors, best.errors[1:], strict=False))
        for method in rewriter.methods[1:]:
            other = rewriter.solve(network, site, kept, method)
            assert all(a <= b + 1e-9 for a, b in zip(best.errors, other.errors, strict=True)), (
                site.name,
                method,
            )


# S5
def test_compensation_never_makes_a_hidden_layer_worse_and_order_is_without_effect():
    hidden = RNG.standard_normal((400, 24)) @ RNG.standard_normal((24, 24))
    after = RNG.standard_normal((24, 9))
    moment = hidden.T @ hidden / 400
    for size in (3, 8, 16, 23):
        kept = top(ridge_leverage(moment, [size])[0], size)
        with_, without = compensated(moment, kept, after), after[kept]
        assert hidden_error(moment, kept, after, with_) <= hidden_error(moment, kept, after, without) + 1e-9
        true = ((hidden @ after - hidden[:, kept] @ with_) ** 2).sum() / ((hidden @ after) ** 2).sum()
        assert hidden_error(moment, kept, after, with_) == pytest.approx(true, rel=1e-6)
        order = RNG.permutation(24)
        mixed = top(ridge_leverage(moment[np.ix_(order, order)], [size])[0], size)
        assert set(order[mixed]) == set(kept)


@pytest.mark.parametrize(
    "kind", ["geglu", "swiglu", "gelu", "gelu-approximate", "geglu-approximate", "linear-silu"]
)
def test_neurons_keep_their_own_value_and_gate(kind, tmp_path):
    torch.manual_seed(0)
    block = FeedForward(6, activation_fn=kind, mult=3).eval()
    size = block.net[2].in_features
    with torch.no_grad():
        # All neurons but a few are without effect: whoever keeps the right rows keeps the answer.
        block.net[2].weight[:, 5:] = 0
    holder = torch.nn.ModuleDict({"ff": block})
    site = next(s for s in rewriters()["ffn"].sites(holder) if isinstance(s, Site))
    x = torch.randn(300, 6)
    seen = {}
    hook = block.net[2].register_forward_pre_hook(
        lambda _, given: seen.update(h=given[0].detach().double().numpy())
    )
    with torch.inference_mode():
        dense = block(x)
    hook.remove()
    given = {"ff:h": (seen["h"].T @ seen["h"] / 300)[None]}
    solved = rewriters()["ffn"].solve(holder, site, given, "magnitude")
    made = rewriters()["ffn"].rewritten(holder, solved, 5, given)
    assert made.net[2].in_features == 5
    assert size == block.net[2].in_features
    with torch.inference_mode():
        assert torch.allclose(made(x), dense, atol=1e-5)


# S7
def test_zeros_that_fill_a_rank_up_change_nothing():
    attention = Attention(query_dim=32, heads=2, dim_head=16).eval()
    one = slim_from(attention)
    rank, stored = 5, 8
    turn = torch.randn(16, rank, generator=torch.Generator().manual_seed(1)).double().numpy()
    from edgekit.calibration.attention_sites import factored
    from edgekit.models.slim_layers import with_layers

    pair = np.repeat(turn[None], 2, axis=0)
    filled = np.concatenate([pair, np.zeros((2, 16, stored - rank))], axis=2)
    x = torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(2))
    found = []
    for factors, size in ((pair, rank), (filled, stored)):
        scale = (size / 16) ** 0.5
        made = with_layers(
            one, to_q=factored(one.to_q, factors, 2, scale=scale), to_k=factored(one.to_k, factors, 2)
        )
        assert made.qk_rank == size
        with torch.inference_mode():
            found.append(made(x))
    assert torch.allclose(found[0], found[1], atol=1e-5)


# S8
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.2, 0.95), seed=st.integers(0, 99), multiple=st.sampled_from([1, 2, 8]))
def test_a_budget_is_spent_and_never_exceeded(share, seed, multiple):
    rng = np.random.default_rng(seed)

    def unit(k: int) -> Unit:
        fall = float(rng.uniform(0.5, 4))
        return Unit(
            name=f"u{k}", size=int(rng.integers(4, 40)) * 8, cost=float(rng.integers(20, 60)), multiple=multiple,
            error=lambda size: float(np.exp(-fall * size / 80)), weight=float(rng.uniform(0.1, 5)),
        )  # fmt: skip

    units = [unit(k) for k in range(24)]
    total = sum(u.size * u.cost for u in units)
    for allocate in (budgets.spread, budgets.uniform):
        sizes = allocate(units, share * total)
        spent = sum(sizes[u.name] * u.cost for u in units)
        assert 0.99 * share * total <= spent <= share * total
        assert all(u.least <= sizes[u.name] <= u.size for u in units)
        assert all(sizes[u.name] % multiple == 0 or sizes[u.name] == u.size for u in units)
        order = rng.permutation(len(units))
        assert allocate([units[k] for k in order], share * total) == sizes


def test_what_the_least_costs_more_is_taken_from_others():
    units = [Unit(name=f"u{k}", size=64, cost=10, multiple=8, error=lambda k: 1 - k / 64) for k in range(4)]
    wanted = {"u0": 1.0, "u1": 1.0, "u2": 60.0, "u3": 60.0}
    sizes = budgets.fitted(units, wanted, 1220)
    assert sum(sizes.values()) * 10 <= 1220
    scores = {"u0": 9.0, "u1": 1.0, "u2": 0.5, "u3": -9.0}
    assert sum(budgets.by_score(units, 900, scores).values()) * 10 <= 900


def test_who_matters_more_keeps_more():
    units = [
        Unit(name=n, size=64, cost=10, multiple=1, error=lambda k: 1 - k / 64, weight=w)
        for n, w in (("a", 1.0), ("b", 3.0))
    ]
    sizes = budgets.spread(units, 64 * 10)
    assert sizes["b"] > sizes["a"]


def test_a_flat_start_is_seen_through():
    units = [
        Unit(name="steps", size=32, cost=1, multiple=1, error=lambda k: 1.0 if k < 30 else 0.0, weight=100),
        Unit(name="line", size=32, cost=1, multiple=1, error=lambda k: 1 - k / 32),
    ]
    assert budgets.spread(units, 40)["steps"] >= 30


# S9
def test_stable_diffusion_is_counted_without_memory():
    with torch.device("meta"):
        network = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), cross_attention_dim=768, attention_head_dim=8,
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )  # fmt: skip
    total = sum(p.numel() for p in network.parameters())
    assert total == 859_520_964
    sites, left = sites_of(network)
    assert not left
    assert sum(s.size * s.params for s in sites) / 1e6 == pytest.approx(242.31, abs=0.02)
    by_group = {
        g: sum(s.size * s.params for s in sites if s.group == g) / 1e6 for g in {s.group for s in sites}
    }
    assert by_group == pytest.approx(
        {"self-attention QK": 24.78, "self-attention VO": 24.78, "cross-attention QK": 21.98, "cross-attention VO": 21.98, "feed-forward": 148.80},
        abs=0.02,
    )  # fmt: skip
    units = [
        Unit(
            name=s.name,
            size=s.size,
            cost=s.params,
            multiple=64 if s.rewriter == "ffn" else 8,
            error=lambda _: 0.0,
        )
        for s in sites
    ]
    # arXiv 2509.21498 speaks of about 100 M fewer; the table is counted, see docs/slimdiff.md.
    for share, kept in ((0.9, 834.7), (0.75, 800.1), (0.587, 760.5), (0.4, 714.1), (0.25, 676.7)):
        sizes = budgets.nearest(units, share)
        removed = sum((u.size - sizes[u.name]) * u.cost for u in units)
        assert (total - removed) / 1e6 == pytest.approx(kept, abs=0.2)


# S11
def test_what_cannot_be_cut_is_left_with_its_reason(network, kept):
    normed = Attention(query_dim=16, heads=2, dim_head=8, qk_norm="rms_norm", eps=1e-6)
    added = Attention(query_dim=16, heads=2, dim_head=8, added_kv_proj_dim=8)
    crossed = Attention(
        query_dim=16, heads=2, dim_head=8, cross_attention_dim=8, cross_attention_norm="layer_norm"
    )
    grouped = Attention(query_dim=16, heads=2, dim_head=8, norm_num_groups=4)
    rotary = Attention(query_dim=16, heads=2, dim_head=8)
    rotary.processor = type("HunyuanAttnProcessor2_0", (), {})()
    shared = Attention(query_dim=16, heads=2, dim_head=8, kv_heads=1)
    plain = Attention(query_dim=16, heads=2, dim_head=8)
    sites, left = sites_of(
        torch.nn.ModuleDict(
            {f"m{k}": m for k, m in enumerate((normed, added, crossed, grouped, rotary, shared, plain))}
        )
    )
    assert {s.module for s in sites} == {"m6"}
    reasons = {one.module: one.why for one in left}
    for name, word in (
        ("m0", "norm_q"),
        ("m1", "added"),
        ("m2", "norm_cross"),
        ("m3", "group_norm"),
        ("m4", "Hunyuan"),
        ("m5", "shared"),
    ):
        assert word in reasons[name]


def test_a_network_without_anything_to_cut_is_refused():
    with pytest.raises(RecipeError, match="nothing|no attention"):
        sites_of(torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 3, 3)}))


def test_biased_projections_are_cut_exactly(tmp_path):
    network = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    given = {
        "hidden_states": torch.randn(2, 4, 8, 8), "timestep": torch.tensor([5, 700]), "class_labels": torch.tensor([1, 2])
    }  # fmt: skip
    kept, dense = moments(network, tmp_path, given), run(network, given)
    assert {s.rewriter for s in sites_of(network)[0]} == {"qk", "vo", "ffn"}
    for solved in _solved(network, kept):
        made = rewriters()[solved.site.rewriter].rewritten(network, solved, solved.site.size, kept)
        parent, _, name = solved.site.module.rpartition(".")
        setattr(network.get_submodule(parent), name, made)
    assert apart(run(network, given), dense) < 1e-10


# S13
def test_prompts_of_every_kind_come_before_any_second_one():
    rng = np.random.default_rng(3)
    centres = np.linalg.qr(rng.standard_normal((16, 8)))[0].T
    states = np.concatenate(
        [np.repeat(centres[k : k + 1], n, axis=0) for k, n in enumerate((70, 5, 5, 5, 5, 4, 3, 3))]
    )
    picked, scores = slim_set(states, 20)
    assert len(set(picked)) == 20
    kinds = [int(np.argmax(centres @ states[k])) for k in picked]
    assert set(kinds[:8]) == set(range(8))
    assert slim_set(states, 20) == (picked, scores)
    assert len(slim_set(states, 1000)[0]) == len(states)


# S14
def test_no_gradient_is_asked_for_and_flags_stay(network, kept):
    before = {n: p.requires_grad for n, p in network.named_parameters()}
    assert any(before.values())
    solved = _solved(network, kept)
    with torch.inference_mode(), cut(network, [(s, max(s.site.size // 2, 1)) for s in solved], kept):
        flags = {
            p.requires_grad for m in network.modules() if isinstance(m, SlimAttention) for p in m.parameters()
        }
        assert flags == {True}
    assert {n: p.requires_grad for n, p in network.named_parameters()} == before
    assert all(p.grad is None for p in network.parameters())


def test_a_cut_network_is_whole_again_after_a_failure(network, kept):
    solved, dense = _solved(network, kept), run(network, inputs())
    with (
        pytest.raises(ZeroDivisionError),
        cut(network, [(s, max(s.site.size // 2, 1)) for s in solved], kept),
    ):
        assert apart(run(network, inputs()), dense) > 0
        raise ZeroDivisionError
    assert (run(network, inputs()) == dense).all()


def test_a_slimmed_network_is_kept_and_loaded(network, kept, tmp_path):
    changed, given = copy.deepcopy(network), inputs()
    per_module: dict[str, dict[str, int]] = {}
    for solved in _solved(network, kept):
        size = max(solved.site.size // 3, 1)
        made = rewriters()[solved.site.rewriter].rewritten(changed, solved, size, kept)
        parent, _, name = solved.site.module.rpartition(".")
        setattr(changed.get_submodule(parent), name, made)
        key = {"qk": "qk_rank", "vo": "vo_rank", "ffn": "ff_width"}[solved.site.rewriter]
        per_module.setdefault(solved.site.module, {})[key] = size
    save_slim(changed, tmp_path / "slim", facts={"per_module": per_module})
    assert (run(load_slim(tmp_path / "slim"), given) == run(changed, given)).all()
    said = json.loads((tmp_path / "slim" / "slim.json").read_text())
    said["per_module"].popitem()
    (tmp_path / "slim" / "slim.json").write_text(json.dumps(said))
    with pytest.raises(RecipeError, match="no slimmed network"):
        load_slim(tmp_path / "slim")


def test_moments_are_the_same_however_their_memory_is_split(network, tmp_path):
    taps = [
        t
        for s in sites_of(network)[0]
        for t in rewriters()[s.rewriter].taps(network, s, rewriters()[s.rewriter].methods[0])
    ]
    groups = in_groups(taps, 0.05)
    assert len(groups) > 3
    assert [t for g in groups for t in g] == taps
    whole, parts = SecondMoments(taps, tokens=3, seed=1), [SecondMoments(g, tokens=3, seed=1) for g in groups]
    for k, sums in enumerate((whole, *parts)):
        sums.weight = 1.0
        (tmp_path / str(k)).mkdir()
        with torch.inference_mode(), sums.watching(network):
            network(**inputs())
        sums.save(tmp_path / str(k))
    one, several = Kept([tmp_path / "0"]), Kept([tmp_path / str(k + 1) for k in range(len(parts))])
    assert sorted(one) == sorted(several)
    for name in one:
        np.testing.assert_allclose(one[name], several[name], rtol=1e-6, atol=1e-9)


def test_values_that_are_not_finite_end_calibration(network):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight[0, 0] = float("nan")
    tap = Tap(
        name="q",
        module="mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        side="out",
        blocks=2,
        width=48,
    )
    sums = SecondMoments([tap], tokens=0, seed=0)
    sums.weight = 1.0
    with pytest.raises(ContractError, match="not finite"), torch.inference_mode(), sums.watching(broken):
        broken(**inputs())


def test_a_tap_that_nothing_runs_through_is_told(network, tmp_path: Path):
    tap = Tap(
        name="q",
        module="mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        side="out",
        blocks=2,
        width=48,
    )
    with pytest.raises(ContractError, match="nothing ran through"):
        SecondMoments([tap], tokens=0, seed=0).save(tmp_path)
