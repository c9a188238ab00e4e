"""Describe this machine: the passport that every measurement carries."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgekit.machine import jetson, npus, raspberry
from edgekit.machine.cpuinfo import board_lines, cpu_name, flags, processors
from edgekit.machine.readings import Unknown, plain_text

# Flags that change which int8 or half-precision kernels an engine picks.
_ISA = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_ENGINES = ("onnxruntime", "openvino", "tensorrt")
_ASK_S = 5.0


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
    info = plain_text(root / "proc/cpuinfo")
    first = next(iter(processors(info)), {})
    facts: dict[str, Any] = {
        "arch": platform.machine(),
        "os": _os_name(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_name(info) or platform.processor(),
        "isa": isa(root),
        "cores_logical": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_physical": physical_cores(root),
        "memory_mb": memory_mb(root),
        "engines": engines(),
        "board": plain_text(root / "proc/device-tree/model")
        or plain_text(root / "sys/firmware/devicetree/base/model")
        or board_lines(info).get("Model", ""),
        "microcode": first.get("microcode", ""),
        "governor": _governors(root),
        "no_turbo": plain_text(root / "sys/devices/system/cpu/intel_pstate/no_turbo"),
        "hypervisor": "yes" if "hypervisor" in first.get("flags", "").split() else "",
        "libc": " ".join(platform.libc_ver()).strip(),
        "container": _container(root),
        "emulated": emulator(root),
        "npu": _npu(root),
        **_jetson(root),
        **_raspberry(root),
    }
    return {k: v for k, v in facts.items() if v not in ("", None, [], {})}


def isa(root: Path = Path("/")) -> list[str]:
    """Return the instruction-set flags that matter to inference engines and that every core has."""
    found = flags(plain_text(root / "proc/cpuinfo"))
    return [f for f in _ISA if f in found]


def physical_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores this process may use; siblings count once."""
    usable = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    seen = set()
    for cpu in usable:
        siblings = plain_text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        seen.add(siblings or str(cpu))
    return len(seen)


def memory_mb(root: Path = Path("/")) -> int:
    """Return the machine's memory in MiB, 0 where unknown."""
    for line in plain_text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def engines() -> dict[str, str]:
    """Return the installed inference engines with their versions."""
    # A third of the agent's start on a slow board; most of its calls do not ask for engines.
    import importlib.metadata

    found = {}
    for name in _ENGINES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def emulator(root: Path = Path("/")) -> str:
    """Return the user-mode emulator this process runs in, empty for none.

    qemu answers for /proc/self/exe, but not for the thread's own link, which names qemu itself.
    """
    try:
        name = (root / "proc/thread-self/exe").readlink().name
    except OSError:
        return ""
    return name if name.startswith("qemu-") else ""


def _os_name(root: Path) -> str:
    for line in plain_text(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return sys.platform


def _governors(root: Path) -> str:
    """Return the governor, of each cluster where they differ."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    found = {p.name: plain_text(p / "scaling_governor") for p in policies}
    each = {v for v in found.values() if v}
    return each.pop() if len(each) == 1 else ", ".join(f"{k} {v}" for k, v in found.items() if v)


def _npu(root: Path) -> str:
    """Return a Rockchip or Hailo accelerator with its version, as its driver or tool tells it."""
    text = plain_text(root / "sys/kernel/debug/rknpu/version")
    version = npus.rknpu_version(text) if text else Unknown("no driver")
    if not isinstance(version, Unknown):
        return f"RKNPU driver {version}"
    said = asked("hailortcli", "fw-control", "identify")
    found = npus.hailo(said) if said else Unknown("no tool")
    return "" if isinstance(found, Unknown) else found


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    return "podman" if (root / "run/.containerenv").exists() else ""


def _jetson(root: Path) -> dict[str, str]:
    text = plain_text(root / "etc/nv_tegra_release")
    if not text:
        return {}
    version = jetson.release(text)
    if isinstance(version, Unknown):
        return {}
    mode = jetson.power_mode(asked("nvpmodel", "-q"))
    pack = jetson.jetpack(version)
    return {
        "l4t": version, "jetpack": "" if isinstance(pack, Unknown) else pack,
        "power_mode": "" if isinstance(mode, Unknown) else mode,
    }  # fmt: skip


def _raspberry(root: Path) -> dict[str, Any]:
    path = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    bits = raspberry.throttled_bits(plain_text(path)) if path.exists() else Unknown("no such file")
    return (
        {} if isinstance(bits, Unknown) else {"throttled_since_boot": raspberry.words_of(bits)["since boot"]}
    )


def asked(*words: str) -> str:
    """Return what a tool of the board prints; empty where it is missing, fails to start or hangs."""
    tool = shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not tool:
        return ""
    try:
        done = subprocess.run([tool, *words[1:]], capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
