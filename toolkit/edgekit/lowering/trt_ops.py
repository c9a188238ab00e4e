"""Say which ONNX operators a TensorRT version reads.

The table beside this file is condensed from onnx-tensorrt's operators.md of the 8.5, 8.6 and 10.1 releases
(Apache-2.0); later versions are judged by 10.1, the newest one tabled.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).with_name("trt_onnx_ops.csv")
_TYPES = {1: "FP32", 10: "FP16", 16: "BF16", 6: "INT32", 7: "INT64", 3: "INT8", 2: "UINT8", 9: "BOOL"}


@dataclass(frozen=True, kw_only=True)
class Support:
    """What the table says of one operator for one version.

    Attributes:
        listed: Version whose column it is.
        supported: Whether it is read at all.
        types: Types of its data, such as "FP32"; empty where the table names none.
        restrictions: In words.
    """

    listed: str
    supported: bool
    types: frozenset[str]
    restrictions: str


def column(version: tuple[int, int]) -> str:
    """Return the tabled version that stands for one: the newest that is not newer."""
    if version < (8, 6):
        return "8.5"
    return "8.6" if version < (10, 0) else "10.1"


@functools.cache
def table(listed: str) -> dict[str, Support]:
    """Return every operator of one column; those the version's table does not name are not in it."""
    found = {}
    with _TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if said := row[f"{listed}_supported"]:
                types = frozenset(t.strip() for t in row[f"{listed}_types"].split(",") if t.strip())
                found[row["op"]] = Support(
                    listed=listed,
                    supported=said == "Y",
                    types=types,
                    restrictions=row[f"{listed}_restrictions"],
                )
    return found


def largest_opset(version: tuple[int, int]) -> int:
    """Return the newest opset that a version reads.

    8.5 and 8.6: 17; 10.0 and 10.1: 20 (onnx-tensorrt's operators.md). 24 was read by TensorRT for RTX
    1.7, of the family of TensorRT 11; between them 20 is what is known.
    """
    if version < (10, 0):
        return 17
    return 24 if version >= (11, 0) else 20


def type_word(number: int) -> str:
    """Return the table's word for an ONNX element type, empty where it has none."""
    return _TYPES.get(number, "")
