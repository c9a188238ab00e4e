"""Have the engine of a TensorRT variant built where it will be measured."""

from __future__ import annotations

from typing import Any

from edgekit.backends import engines
from edgekit.core.errors import ContractError
from edgekit.core.outcome import Check
from edgekit.core.watch import watcher
from edgekit.jobs.ask import Ask
from edgekit.jobs.variants import Lowered

_LIMIT_S = 3600.0


def engine_ready(ask: Ask, one: Lowered) -> tuple[Check, ...]:
    """Build a variant's engine on the measured device, or find it in the device's cache; say how that went.

    Variants whose files are engines already need nothing.

    Raises:
        ContractError: No engine of this precision could be built; the attempts are named.
    """
    if one.wanted.backend != "tensorrt":
        return ()
    watcher().phase(f"engine {one.wanted.plain} on {ask.where}")
    if ask.board:
        found = ask.board.engine(one.artifact, limit_s=_LIMIT_S)
    else:
        power = str(ask.host.get("power_mode", ""))
        found = engines.built(one.artifact.folder, power_mode=power, limit_s=_LIMIT_S)
    if found["precision"] != one.wanted.precision:
        # The twin stands in the bundle for boards in the field; here it is a variant of its own.
        raise ContractError(_failed(found), hint="The fp16 twin was built instead.")
    if found.get("provider"):
        raise ContractError(_failed(found), hint=f"onnxruntime's {found['provider']} runs it instead.")
    return (_check(found),)


def _check(found: dict[str, Any]) -> Check:
    failed = found["attempts"][:-1]
    words = f"{found['mb']:g} MB in {found['seconds']:g} s"
    if failed:
        words += f"; {len(failed)} attempts before: {failed[-1]['outcome']}"
    if found.get("warning"):
        words += f"; {found['warning']}"
    return Check(
        name="engine", state="warn" if failed else "pass", by=f"TensorRT {found['tensorrt']}", detail=words
    )


def _failed(found: dict[str, Any]) -> str:
    return f"not built: {'; '.join(a['outcome'] for a in found['attempts'][:-1]) or 'the board gave another precision'}"
