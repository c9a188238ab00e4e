"""Networks in stages, the pair of student and teacher, and the masks they are mixed by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision.models as zoo
import yaml
from torch import nn

from edgekit.core.errors import RecipeError
from edgekit.core.plugins import family
from edgekit.models.architectures import architecture
from edgekit.models.classifiers import build_classifier
from edgekit.models.find import find_by_name, shipped_models
from edgekit.models.staged import staged
from edgekit.models.torch_models import build, fresh
from edgekit.training.distillation.criterion import TERMS, Distilled
from edgekit.training.distillation.masks import prefix_masks, random_mask
from edgekit.training.distillation.pair import Pair
from edgekit.training.distillation.tasks import Boxes, Classes
from edgekit.training.terms.protocol import Weights
from tests.conftest import ROOT

SMALL = (3, 32, 32)


def seeded(make, seed: int = 0):
    torch.manual_seed(seed)
    return make().eval()


NETWORKS = {
    "torchvision resnet18": (lambda: zoo.resnet18(num_classes=5), SMALL, 4),
    "torchvision vgg11_bn": (lambda: zoo.vgg11_bn(num_classes=5), SMALL, 5),
    "torchvision vit": (
        lambda: zoo.VisionTransformer(
            image_size=32, patch_size=8, num_layers=6, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
        ),
        SMALL,
        4,
    ),
    "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=5), SMALL, 4),
    "timm vgg11_bn": (lambda: timm.create_model("vgg11_bn", num_classes=5), (3, 64, 64), 5),
    "timm vit": (
        lambda: timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=6, num_heads=2, num_classes=5
        ),
        SMALL,
        4,
    ),
    "ours resnet": (lambda: build_classifier("resnet", nc=5, options={"widths": [4, 6, 8, 12]}), SMALL, 4),
    "ours vgg": (lambda: build_classifier("vgg", nc=5), SMALL, 5),
    "ours vit": (lambda: build_classifier("vit", nc=5, options={"width": 24, "depth": 6}), SMALL, 4),
    "yolov8n": (lambda: fresh("yolov8n.yaml", nc=3), (3, 64, 64), 3),
    "hierlight-yolo-n": (lambda: fresh(architecture("hierlight-yolo-n", nc=3), nc=3), (3, 64, 64), 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_stages_is_the_network_to_the_bit(name: str):
    make, shape, stages = NETWORKS[name]
    network = seeded(make)
    found = staged(network, shape=shape)
    assert len(found.stages) == stages
    x = torch.rand(2, *shape)
    with torch.no_grad():
        whole, parts = network(x), found(x)
    whole, parts = (v[0] if isinstance(v, tuple) else v for v in (whole, parts))
    assert torch.equal(whole, parts)
    # Its parameters are the network's own, all of them.
    assert {id(p) for p in found.parameters()} == {id(p) for p in network.parameters()}


class Own(nn.Module):
    """A network of no known kind, with work between its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x)) * 2
        x = torch.relu(self.one(x))
        return self.fc(self.two(x).mean((2, 3)))


def test_stages_are_named_where_the_network_is_of_no_known_kind():
    network = seeded(Own)
    with pytest.raises(RecipeError, match="does not know its stages"):
        staged(network, shape=SMALL)
    found = staged(network, shape=SMALL, names=("stem", "one", "two"))
    assert len(found.stages) == 2
    x = torch.rand(2, *SMALL)
    assert torch.equal(network(x), found(x))


def test_stages_that_cannot_be_cut_say_why():
    resnet = seeded(NETWORKS["ours resnet"][0])
    with pytest.raises(RecipeError, match="no module 'layer9'"):
        staged(resnet, shape=SMALL, names=("bn1", "layer9"))
    # Inside of a block the shortcut passes beside.
    with pytest.raises(RecipeError, match="2 tensors pass"):
        staged(resnet, shape=SMALL, names=("bn1", "layer1.0.conv1", "layer2"))
    with pytest.raises(RecipeError, match="does not run after"):
        staged(resnet, shape=SMALL, names=("layer2", "layer1", "layer3"))


def resnet(widths, depth=1, seed=0, nc=5):
    options = {"widths": widths, "depths": [depth] * 4}
    return staged(seeded(lambda: build_classifier("resnet", nc=nc, options=options), seed), shape=SMALL)


def test_whole_masks_are_teacher_and_student_themselves():
    teacher, student = resnet([8, 12, 16, 24], 2), resnet([4, 6, 8, 12])
    pair = Pair(teacher, student, shape=SMALL).eval()
    x = torch.rand(3, *SMALL)
    with torch.no_grad():
        assert torch.equal(pair.mixed(x, "TTTT"), teacher(x))
        assert torch.equal(pair.mixed(x, "SSSS"), student(x))
        # A prefix may start from boundaries that are known.
        known = teacher.boundaries(x)
        assert torch.equal(pair.mixed(x, "TTSS"), pair.mixed(x, "TTSS", taught=known))


def test_the_teacher_stays_in_eval_mode_and_out_of_what_is_saved():
    teacher = resnet([8, 12, 16, 24], 2)
    pair = Pair(teacher, resnet([4, 6, 8, 12]), shape=SMALL)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    pair.train()
    pair.forward(torch.rand(8, *SMALL))
    assert not any(m.training for m in teacher.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not any("teacher" in k for k in pair.state_dict())


def test_equal_widths_need_no_converters():
    pair = Pair(resnet([4, 6, 8, 12], 2), resnet([4, 6, 8, 12]), shape=SMALL)
    assert not list(pair.encoders.parameters())
    assert not list(pair.decoders.parameters())


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (lambda: resnet([16, 12, 16, 24]), "the student has 16 channels, the teacher 8"),
        (lambda: staged(seeded(NETWORKS["ours vgg"][0]), shape=SMALL), "4 stages, the student 5"),
        (
            lambda: staged(
                seeded(
                    lambda: build_classifier(
                        "resnet", nc=5, options={"widths": [4, 6, 8, 12], "stem": "imagenet"}
                    )
                ),
                shape=SMALL,
            ),
            "after stage 1 the teacher has 32 x 32, the student 8 x 8 places",
        ),
    ],
)
def test_pairs_that_do_not_go_together_are_refused_before_training(student, words: str):
    with pytest.raises(RecipeError, match=words):
        Pair(resnet([8, 12, 16, 24], 2), student(), shape=SMALL)


def test_random_masks_are_mixed_and_all_occur():
    rng = np.random.default_rng(0)
    seen = Counter(random_mask(4, rng) for _ in range(10_000))
    assert len(seen) == 14
    assert not {"SSSS", "TTTT"} & set(seen)
    assert prefix_masks(3) == ("SSS", "TSS", "TTS", "TTT")


@pytest.mark.parametrize("masks", ["prefix", "random"])
def test_a_student_that_is_its_teacher_has_nothing_left_to_learn_but_labels(masks: str):
    teacher = resnet([4, 6, 8, 12], 2)
    pair = Pair(teacher, resnet([4, 6, 8, 12], 2), shape=SMALL).eval()
    batch = {"cls": torch.tensor([0, 1, 2, 3]), "step": 3}
    criterion = Distilled(pair, Classes(), Weights(), masks=masks, seed=0)
    _, parts = criterion.loss(pair(torch.rand(4, *SMALL)), batch)
    assert all(abs(float(parts[f"{t}_loss"])) < 1e-5 for t in ("soft", "sync", "recon", "cross"))
    assert float(parts["hard_loss"]) > 0.1


def test_detectors_that_are_equal_have_nothing_left_to_learn_either():
    network = seeded(NETWORKS["yolov8n"][0])
    one, two = (staged(network, shape=(3, 64, 64)) for _ in range(2))
    pair = Pair(one, two, shape=(3, 64, 64)).eval()
    with torch.no_grad():
        found = pair(torch.rand(2, 3, 64, 64))
        assert float(Boxes(None).soft(found["student"], found["teacher"])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("masks", ["prefix", "random", "all"])
def test_pairs_learn_in_bfloat16_and_the_teacher_does_not(masks: str):
    torch.manual_seed(0)
    pair = Pair(resnet([4, 6, 8, 12], 2), resnet([2, 3, 4, 6], 1), shape=SMALL).train()
    pair.bf16 = True
    criterion = Distilled(pair, Classes(), Weights(), masks=masks, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        found = pair(torch.rand(4, *SMALL))
    loss, _ = criterion.loss(found, {"cls": torch.tensor([0, 1, 2, 3]), "step": 3})
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pair.student.parameters())
    assert all(p.grad is None for p in pair.teacher.parameters())


def test_distances_and_divergence_are_those_of_the_paper():
    from edgekit.training.terms.distance import apart

    a, b = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Squares 0 4 9 9 over 4, and cosines 1 / sqrt 5 and 0.
    assert float(apart(a, b)) == pytest.approx(5.5 + 1 - (1 / 5**0.5 + 0) / 2)
    z, t = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p = torch.tensor([0.5, 0.5])
    q = torch.softmax(torch.tensor([1.0, 0.0]), 0)
    assert float(Classes(tau=2.0).soft(z, t)) == pytest.approx(4 * float((p * (p / q).log()).sum()))


def test_every_term_is_part_of_a_distillation():
    assert set(family("training.terms")) == set(TERMS)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("progressive-*.yaml")), ids=lambda p: p.stem)
def test_students_of_shipped_recipes_are_less_than_two_fifths_of_their_teachers(path: Path):
    text = yaml.safe_load(path.read_text())
    model, own = text["model"], text["passes"][0]["progressive-load"]
    trained = shipped_models().get(model["name"])
    weights = trained.with_suffix(".safetensors") if trained else None
    teacher = find_by_name(
        model["name"], weights=weights, nc=10 if "options" in model else 0, options=model.get("options")
    )
    options = {**model.get("options", {}), **own.get("options", {})}
    student = find_by_name(own.get("student", model["name"]), nc=int(teacher.settings["nc"]), options=options)
    one, two = (sum(p.numel() for p in build(source).module.parameters()) for source in (student, teacher))
    assert one < 0.4 * two
