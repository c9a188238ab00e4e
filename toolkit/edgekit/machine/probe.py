"""Describe this machine: the passport that every measurement carries."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

# Flags that change which int8 or half-precision kernels an engine picks.
_ISA = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_ENGINES = ("onnxruntime", "openvino", "tensorrt")


# Instructions without which a CPU only emulates bfloat16.
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def computes_bf16(flags: Collection[str]) -> bool:
    """Return whether a CPU with these instructions computes in bfloat16 instead of emulating it."""
    return bool(_BF16 & set(flags))


def passport(root: Path = Path("/")) -> dict[str, Any]:
    """Return what this machine is; what cannot be read is left out, never guessed.

    Args:
        root: Where /proc and /sys are, for tests on recorded trees.
    """
    facts: dict[str, Any] = {
        "arch": platform.machine(),
        "os": _os_name(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_model(root),
        "isa": isa(root),
        "cores_logical": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_physical": physical_cores(root),
        "memory_mb": memory_mb(root),
        "engines": engines(),
        "board": _text(root / "proc/device-tree/model"),
        "microcode": _cpuinfo(root).get("microcode", ""),
        "governor": _text(root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"),
        "no_turbo": _text(root / "sys/devices/system/cpu/intel_pstate/no_turbo"),
        "hypervisor": "yes" if "hypervisor" in _cpuinfo(root).get("flags", "").split() else "",
        "l4t": _text(root / "etc/nv_tegra_release").partition("\n")[0],
    }
    return {k: v for k, v in facts.items() if v not in ("", None, [], {})}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the first processor's lines of /proc/cpuinfo by key."""
    found: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's name, or implementer and part where Arm's cpuinfo has no name."""
    found = _cpuinfo(root)
    if name := found.get("model name"):
        return name
    if "CPU part" in found:
        return f"Arm implementer {found.get('CPU implementer', '?')} part {found['CPU part']}"
    return platform.processor()


def isa(root: Path = Path("/")) -> list[str]:
    """Return the instruction-set flags that matter to inference engines."""
    found = _cpuinfo(root)
    flags = set((found.get("flags") or found.get("Features") or "").split())
    return [f for f in _ISA if f in flags]


def physical_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores this process may use; siblings count once."""
    usable = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    seen = set()
    for cpu in usable:
        siblings = _text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        seen.add(siblings or str(cpu))
    return len(seen)


def memory_mb(root: Path = Path("/")) -> int:
    """Return the machine's memory in MiB, 0 where unknown."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def engines() -> dict[str, str]:
    """Return the installed inference engines with their versions."""
    found = {}
    for name in _ENGINES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _os_name(root: Path) -> str:
    for line in _text(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return sys.platform
