"""Join a student and its teacher at their boundaries, so that either may run any stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.core.errors import RecipeError
from edgekit.models.staged import Staged, channels_of, places_of


class Affine(nn.Module):
    """An affine map over the channels of a boundary, with bias: a 1x1 convolution, or a linear layer over tokens."""

    def __init__(self, given: int, wanted: int, *, tokens: bool) -> None:
        super().__init__()
        self.map: nn.Module = nn.Linear(given, wanted) if tokens else nn.Conv2d(given, wanted, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a boundary of the other width."""
        # Terms ask for boundaries that were made in bfloat16.
        found: Tensor = self.map(x.float())
        return found


class Pair(nn.Module):
    """A student that learns and a teacher that stays as it is (arXiv 2509.22319).

    The teacher is no part of `state_dict()` and always in eval mode: a training framework that flips it to train mode
    moves its BatchNorm statistics, and it is no longer the teacher.

    Args:
        teacher: Staged, trained.
        student: Staged, as many stages, no wider.
        shape: Of one input, (C, H, W).

    Attributes:
        encoders: From the teacher's width to the student's at each inner boundary; identities where they are equal.
        decoders: Back.

    Raises:
        RecipeError: The two do not go together.
    """

    def __init__(self, teacher: Staged, student: Staged, *, shape: Sequence[int]) -> None:
        super().__init__()
        ours, theirs = matched(teacher, student, shape=shape)
        self.student = student
        # Mixed networks run in the loss, outside of the loop's own autocast.
        self.bf16 = False
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for own, other in list(zip(ours, theirs, strict=True))[:-1]:
            small, large, tokens = channels_of(own), channels_of(other), own.ndim == 3
            same = small == large
            self.encoders.append(nn.Identity() if same else Affine(large, small, tokens=tokens))
            self.decoders.append(nn.Identity() if same else Affine(small, large, tokens=tokens))
        # Outside of torch's registry: neither trained, nor averaged, nor saved with the student.
        self.__dict__["_teacher"] = teacher.eval()
        for p in teacher.parameters():
            p.requires_grad = False

    @property
    def teacher(self) -> Staged:
        """The teacher."""
        found: Staged = self.__dict__["_teacher"]
        return found

    @property
    def stages(self) -> int:
        """Number of stages of either."""
        return len(self.student.stages)

    def to(self, *given: Any, **named: Any) -> Pair:
        """Move both."""
        self.teacher.to(*given, **named)
        return super().to(*given, **named)

    def converted(self, x: Tensor, boundary: int, own: str, wanted: str) -> Tensor:
        """Return the boundary of one owner ("T" or "S") as the other one expects it."""
        if own == wanted:
            return x
        found: Tensor = (self.encoders if own == "T" else self.decoders)[boundary](x)
        return found

    def mixed(self, x: Tensor, mask: str, *, taught: Sequence[Tensor] = ()) -> Any:
        """Return what the mixed network answers.

        Args:
            x: Inputs (B, C, H, W).
            mask: Who runs each stage, such as "TTSS".
            taught: The teacher's boundaries for `x`, so that its first stages need not run again.
        """
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16 and self.training):
            return self._mixed(x, mask, taught)

    def _mixed(self, x: Tensor, mask: str, taught: Sequence[Tensor]) -> Any:
        nets = {"T": self.teacher, "S": self.student}
        lead = len(mask) - len(mask.lstrip("T")) if taught else 0
        found = list(taught[:lead])
        for k in range(lead, len(mask)):
            net = nets[mask[k]]
            given = net.embed(x) if k == 0 else self.converted(found[-1], k - 1, mask[k - 1], mask[k])
            found.append(net.stages[k](given))
        last = mask[-1]
        return nets[last].answer([self.converted(f, k, mask[k], last) for k, f in enumerate(found)])

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Return answers and boundaries of both, as the terms of a loss take them."""
        own = self.student.boundaries(x)
        with torch.no_grad():
            other = self.teacher.boundaries(x)
            said = self.teacher.answer(other)
        return {
            "images": x, "student": self.student.answer(own), "own": own, "teacher": said, "other": other,
        }  # fmt: skip


def matched(teacher: Staged, student: Staged, *, shape: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the boundaries of both on one input, student's first.

    Raises:
        RecipeError: They differ in stages or sizes, or the student is wider.
    """
    if len(teacher.stages) != len(student.stages):
        raise RecipeError(
            f"progressive-load: the teacher has {len(teacher.stages)} stages, the student {len(student.stages)}",
            hint="Cut both into as many; a stage may hold one block.",
        )
    if teacher.taps != student.taps:
        raise RecipeError(
            "progressive-load: the heads take from other stages",
            hint="Take a student of the teacher's family.",
        )
    modes = teacher.training, student.training
    x = torch.zeros(1, *shape)
    with torch.no_grad():
        ours, theirs = student.eval().boundaries(x), teacher.eval().boundaries(x)
    teacher.train(modes[0])
    student.train(modes[1])
    for k, (own, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if places_of(own) != places_of(other):
            sizes = " and ".join(" x ".join(map(str, places_of(b))) for b in (other, own))
            raise RecipeError(
                f"progressive-load: after stage {k} the teacher has {sizes.replace(' and ', ', the student ')} places",
                hint="Stages must end at the same stride (or number of tokens).",
            )
        if channels_of(own) > channels_of(other):
            raise RecipeError(
                f"progressive-load: after stage {k} the student has {channels_of(own)} channels, the teacher {channels_of(other)}",
                hint="Take a student that is nowhere wider than its teacher.",
            )
    return ours, theirs


class Mixed:
    """A mixed network of a pair as a judge calls one."""

    def __init__(self, pair: Pair, mask: str) -> None:
        self._pair, self._mask = pair, mask

    def __call__(self, x: Tensor) -> Any:
        """Return its answer to (B, C, H, W)."""
        return self._pair.mixed(x, self._mask)

    def parameters(self) -> Any:
        """Return the student's, which say where it runs."""
        return self._pair.parameters()
