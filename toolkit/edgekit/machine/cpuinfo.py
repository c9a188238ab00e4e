"""Read /proc/cpuinfo of x86 and Arm, mixed cores and emulated ones too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

# Implementer and part of Arm's MIDR register, from Arm's and NVIDIA's technical reference manuals.
_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd04"): "Cortex-A35", ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57", ("0x41", "0xd08"): "Cortex-A72", ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0b"): "Cortex-A76", ("0x41", "0xd0c"): "Neoverse-N1", ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE", ("0x4e", "0x003"): "Denver 2", ("0x4e", "0x004"): "Carmel",
}  # fmt: skip


def processors(text: str) -> list[dict[str, str]]:
    """Return each core's lines by key; lines after the last core (Hardware, Model, Revision) are left out."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and colon:
            found.append({})
        if found and colon and key not in {"Hardware", "Model", "Revision", "Serial"}:
            found[-1].setdefault(key, value)
    return found


def board_lines(text: str) -> dict[str, str]:
    """Return Hardware, Model and Revision as a Raspberry Pi's kernel adds them."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {k.strip(): v.strip() for k, c, v in pairs if c and k.strip() in {"Hardware", "Model", "Revision"}}


def cpu_name(text: str) -> str:
    """Return the CPU's name; for Arm the kinds of its cores, such as "4x Cortex-A55 + 4x Cortex-A76"."""
    cores = processors(text)
    if cores and cores[0].get("model name") and "CPU part" not in cores[0]:
        return cores[0]["model name"]
    kinds = Counter(_kind(core) for core in cores if "CPU part" in core)
    return " + ".join(f"{count}x {kind}" for kind, count in kinds.items())


def _kind(core: Mapping[str, str]) -> str:
    who, part = core.get("CPU implementer", "?").lower(), core["CPU part"].lower()
    return _PARTS.get((who, part), f"Arm implementer {who} part {part}")


def flags(text: str) -> frozenset[str]:
    """Return the features that every core has: a thread may run on any of them."""
    each = [set((c.get("flags") or c.get("Features") or "").split()) for c in processors(text)]
    given = [f for f in each if f]
    return frozenset(set.intersection(*given)) if given else frozenset()
