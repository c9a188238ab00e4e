"""Turn a classifier's output into ranked classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.records import Answers
from edgekit.frames.place import Placement


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Classes by falling score.

    Attributes:
        classes: (K,) int64.
        scores: (K,) float32, probabilities.
        names: Class names by index; may be empty.
    """

    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of classes ranked."""
        return len(self.scores)

    def plain(self) -> list[dict[str, object]]:
        """Return the ranking as JSON knows it."""
        return [
            {
                "class": int(c),
                "score": round(float(s), 4),
                "name": self.names[c] if c < len(self.names) else "",
            }
            for c, s in zip(self.classes, self.scores, strict=True)
        ]


class Classify:
    """Ranks the first output's classes; scores that are no probabilities pass a softmax."""

    layouts = ("",)

    def answer(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        spec: Answers,
        placement: Placement,
        *,
        each_class: bool = False,
    ) -> Ranking:
        """Return the five best classes, all of them with `each_class`."""
        del placement
        scores = next(iter(outputs.values())).reshape(-1).astype(np.float32)
        if scores.min() < 0 or abs(float(scores.sum()) - 1) > 1e-3:
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        order = np.argsort(-scores, kind="stable")[: None if each_class else 5]
        return Ranking(classes=order.astype(np.int64), scores=scores[order], names=spec.classes)


PLUGIN = Classify()
