"""Say what evidence was measured on."""

from __future__ import annotations

from typing import Any


def machine(data: dict[str, Any]) -> str:
    """Return what was measured on, in words."""
    facts = data["machine"]
    isa = " ".join(f for f in facts["isa"] if f.startswith(("avx512_", "avx_vnni", "amx", "asimddp")))
    return f"{facts['cpu']}, {facts['cores_physical']} cores ({isa})"
