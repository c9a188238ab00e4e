"""How far two sets of detections agree, and the parity ladder."""

import pytest

from edgekit.core.errors import ContractError
from edgekit.core.outcome import Rung
from edgekit.jobs.ladder import _step
from edgekit.measure.agreement import unmatched

ONE = {"box": [0, 0, 10, 10], "class": 0}
FAR = {"box": [50, 50, 60, 60], "class": 0}
OTHER = {"box": [0, 0, 10, 10], "class": 1}


@pytest.mark.parametrize(
    ("expected", "found", "share"),
    [
        ([[ONE]], [[ONE]], 0.0),
        ([[ONE]], [[FAR]], 1.0),
        ([[ONE]], [[OTHER]], 1.0),
        # 2 x 1 pair of 3 boxes: F1 is 2/3.
        ([[ONE, FAR]], [[ONE]], 1 / 3),
        # Two boxes on one: only one of them finds a partner.
        ([[ONE]], [[ONE, ONE]], 1 / 3),
        # An IoU of 0.5 exactly: 10 x 10 against its half.
        ([[ONE]], [[{"box": [0, 0, 10, 5], "class": 0}]], 0.0),
        ([[]], [[]], 0.0),
    ],
)
def test_boxes_are_matched_one_to_one_within_their_class(expected: list, found: list, share: float):
    assert unmatched(expected, found) == pytest.approx(share)


def test_the_first_rung_that_breaks_is_named_with_those_that_hold():
    rungs: list[Rung] = []
    _step(rungs, Rung(name="ONNX from torch", error=1e-6, limit=1e-3))
    _step(rungs, Rung(name="onnxruntime-int8", error=0.3, limit=None))
    with pytest.raises(ContractError, match="parity breaks at board on pi5") as caught:
        _step(rungs, Rung(name="board", error=0.2, limit=0.05, where="pi5"))
    assert "ONNX from torch, onnxruntime-int8" in caught.value.hint
