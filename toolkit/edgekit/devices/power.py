"""Say how fast a Jetson's GPU can be in a power mode, from the clocks and SMs that its profile lists."""

from __future__ import annotations

import re

from edgekit.core.errors import RecipeError
from edgekit.devices.profiles import Fact, Profile

# Dense fp16 operations of one streaming multiprocessor in a cycle, Ampere's tensor cores.
_PER_SM = 2048


def peak_in(profile: Profile, mode: str) -> float:
    """Return the GPU's dense fp16 GFLOPS in a power mode, 0 where the profile lists none of that name.

    SMs x GHz x 2048; a mode without a limit of its own runs at the module's highest clock.

    Args:
        profile: The device.
        mode: Such as "30W"; empty for none in particular.

    Raises:
        RecipeError: The profile lists modes, and this looks like one, but is none of them.
    """
    listed = {_name(f): f.value for f in profile.facts if f.key == "power_mode"}
    if mode not in listed:
        if listed and re.fullmatch(r"\d+W|MAXN\S*", mode):
            raise RecipeError(
                f"--power-mode: {profile.name} has no {mode!r}", hint=f"It has {', '.join(listed)}."
            )
        return 0.0
    words = dict(re.findall(r"(\w+)=(\S+)", listed[mode]))
    highest = next((f.value for f in profile.facts if f.key == "gpu_max_ghz"), "0")
    clock = words.get("gpu_max_ghz", "max")
    return int(words["gpu_sm"]) * float(highest if clock == "max" else clock) * _PER_SM


def _name(fact: Fact) -> str:
    return fact.value.partition(":")[0].partition(" (")[0]
