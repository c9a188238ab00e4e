"""Add boards to the user's devices file, look at them, and put engines there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.core.digest import digest_file
from edgekit.core.errors import DeviceError, EdgekitError, MissingError, RecipeError
from edgekit.core.files import resource_errors, write_text
from edgekit.core.places import cache_home
from edgekit.core.watch import watcher
from edgekit.devices.connect import agent_of
from edgekit.devices.profiles import Profile, own_file, profile_of, profiles

# What an engine's wheel needs at run time and no more: openvino_telemetry writes an id into the home folder.
_WHEELS = {
    "onnxruntime": ("numpy", "onnxruntime", "flatbuffers", "protobuf", "packaging"),
    "openvino": ("numpy", "openvino", "packaging"),
}
_SYSTEM = {"tensorrt": "comes with JetPack (sudo apt install nvidia-jetpack), not as a wheel"}
# pip does not take manylinux_2_28 as leave for older tags: each is named.
_OLDEST, _OLD_NAMES = 17, {17: "manylinux2014", 12: "manylinux2010"}


def add(
    name: str, *, address: str, extends: str = "", tags: Sequence[str] = (), root: str = "", python: str = "",
    lock: str = "", probe: bool = True,
) -> tuple[Path, str]:  # fmt: skip
    """Add a board to the user's devices file; return the file and the profile it extends.

    Args:
        name: Of the board.
        address: `user@host` or a name of ssh's configuration.
        extends: Profile; found by a look at the board where empty.
        tags: To choose many boards at once.
        root: The agent's folder there.
        python: The Python there.
        lock: File that says that the board is taken.
        probe: Whether to look at the board first.

    Raises:
        RecipeError: The name is taken or no name, or no profile fits.
        DeviceError: The board does not answer.
    """
    if name in profiles():
        raise RecipeError(
            f"{name}: is known already, see {own_file()}", hint="Choose another name, or edit the file."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise RecipeError(f"{name!r}: is no device name", hint="Use letters, digits, '-', '_' and '.'.")
    base = profile_of(extends, where="--extends").name if extends else ""
    entry = {"ssh": address, "tags": list(tags), "root": root, "python": python, "lock": lock}
    if probe:
        trial = Profile(
            **{
                **vars(profiles()["local"]),
                "name": name,
                "ssh": address,
                "root": root,
                "python": python,
                "lock": lock,
            }
        )
        machine = agent_of(trial).hello()["passport"]
        base = base or _fitting(name, machine)
    if not base:
        raise RecipeError(
            f"{name}: what is it?", hint="Give --extends with a profile of `edgekit devices list`."
        )
    row = {"extends": base, **{k: v for k, v in entry.items() if v}}
    path = own_file()
    old = (
        path.read_text()
        if path.is_file()
        else "# Your own devices: `edgekit devices add` writes here, and so may you.\n"
    )
    with resource_errors(path):
        write_text(path, f"{old.rstrip()}\n{name}: {_flow(row)}\n")
    profiles.cache_clear()
    return path, base


# Words that YAML takes for something else than text.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _flow(row: dict[str, Any]) -> str:
    # JSON texts are YAML; plain words need no quotes.
    def word(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(word, value))}]"
        return (
            value
            if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./@-]*", value) and value.lower() not in _YAML_WORDS
            else json.dumps(value)
        )

    return "{" + ", ".join(f"{k}: {word(v)}" for k, v in row.items()) + "}"


def _fitting(name: str, machine: dict[str, Any]) -> str:
    """Return the shipped profile that a board looks like.

    Raises:
        RecipeError: There is none.
    """
    found = [
        p.name for p in profiles().values() if not p.own and not p.match.always and p.is_machine(machine)
    ]
    if found:
        return found[0]
    what = machine.get("board") or machine.get("cpu") or "a board"
    raise RecipeError(
        f"{name}: no profile fits {what} ({machine['arch']})",
        hint="Choose one with --extends: `edgekit devices list`.",
    )


def diagnosed(profile: Profile) -> dict[str, Any]:
    """Return what a device has, what it lacks, and what to do, after a look at it.

    Raises:
        DeviceError: It does not answer.
    """
    agent = agent_of(profile)
    hello = agent.hello()
    there = agent.ask("engines", timeout_s=180)["engines"]
    machine = hello["passport"]
    rows = []
    for engine in profile.backends:
        found = there.get(engine, {})
        state = f"{found['version']}" if found.get("works") else found.get("why", "missing")
        rows.append(
            {
                "engine": engine,
                "works": bool(found.get("works")),
                "state": state,
                "advice": "" if found.get("works") else _advice(profile, engine, machine),
            }
        )
    warnings = []
    if not profile.looks_like(machine):
        warnings.append(f"it does not look like {profile.name}: {machine.get('board') or machine.get('cpu')}")
    if not hello["numpy"]:
        warnings.append("no numpy in its Python: provision brings it")
    if not hello["decoder"]:
        warnings.append("no image decoder (cv2 or Pillow): frames are sent as raw arrays, which takes longer")
    if machine.get("throttled_since_boot"):
        warnings.append(f"since boot the firmware has noted: {', '.join(machine['throttled_since_boot'])}")
    if hello["holder"] is not None:
        warnings.append(f"taken by {hello['holder'].get('who', 'someone')}")
    return {
        "device": profile.name, "connection": agent.connection.facts(), "passport": machine, "engines": rows,
        "free_mb": hello["free_mb"], "waiting": hello["waiting"], "done": hello["done"], "warnings": warnings,
    }  # fmt: skip


def _advice(profile: Profile, engine: str, machine: dict[str, Any]) -> str:
    if engine in _SYSTEM:
        return _SYSTEM[engine]
    if engine not in _WHEELS:
        return "edgekit cannot bring it"
    glibc = _glibc(machine)
    known = "unknown" if glibc is None else f"2.{glibc}"
    return f"edgekit devices provision {profile.name} --engine {engine} (its glibc is {known})"


def _glibc(machine: dict[str, Any]) -> int | None:
    found = re.match(r"glibc 2\.(\d+)", str(machine.get("libc", "")))
    return int(found[1]) if found else None


def provision(
    profile: Profile, *, engine: str, wheelhouse: Path | None = None, fill: bool = False
) -> dict[str, str]:
    """Put an engine's wheels on a device, below the agent's folder, without root or pip there; return the versions.

    Args:
        profile: The device.
        engine: onnxruntime or openvino.
        wheelhouse: Folder of wheels; nothing else is used then, so that no network is needed.
        fill: Download the wheels into the wheelhouse and stop.

    Raises:
        RecipeError: No wheel of the engine.
        MissingError: No wheel fits the board's Python and glibc.
    """
    if engine not in _WHEELS:
        raise RecipeError(
            f"--engine: no wheels of {engine!r}",
            hint=_SYSTEM.get(engine, f"There are: {', '.join(_WHEELS)}."),
        )
    agent = agent_of(profile)
    machine = agent.hello()["passport"]
    folder = wheelhouse or cache_home() / "wheels" / profile.name
    if fill or wheelhouse is None:
        watcher().phase(f"{profile.name}: fetching wheels")
        _pip(profile, machine, engine, folder, offline=None)
    if fill:
        return {p.name.split("-")[0]: p.name.split("-")[1] for p in sorted(folder.glob("*.whl"))}
    import tempfile

    with tempfile.TemporaryDirectory() as aside:
        _pip(profile, machine, engine, Path(aside), offline=folder)
        wheels = {digest_file(p): p for p in sorted(Path(aside).glob("*.whl"))}
        agent.upload(wheels)
        watcher().phase(f"{profile.name}: unpacking")
        agent.ask("unpack", given=json.dumps(list(wheels)).encode(), timeout_s=600)
    found = agent.ask("engines", timeout_s=180)["engines"].get(engine, {})
    if not found.get("works"):
        raise DeviceError(
            f"{profile.name}: {engine} was unpacked and does not start: {found.get('why', 'no reason given')}",
            hint=_others(profile, engine),
        )
    return {engine: str(found["version"])}


def _pip(
    profile: Profile, machine: dict[str, Any], engine: str, folder: Path, *, offline: Path | None
) -> None:
    """Fetch the wheels that fit the board, by pip's own rules, from the registry or a folder."""
    version = ".".join(machine["python"].split(".")[:2])
    glibc = _glibc(machine)
    if glibc is None:
        raise MissingError(
            f"{profile.name}: its C library is not glibc ({machine.get('libc', 'unknown')}), wheels need that",
            hint="Install the engine there by hand.",
        )
    tags = [f"manylinux_2_{k}_{machine['arch']}" for k in range(glibc, _OLDEST - 1, -1)]
    tags += [f"{name}_{machine['arch']}" for name in _OLD_NAMES.values()]
    words = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--implementation", "cp", "--python-version", version, "--dest", str(folder),
        *(w for a in (f"cp{version.replace('.', '')}", "abi3", "none") for w in ("--abi", a)),
        *(w for t in tags for w in ("--platform", t)),
        *(("--no-index", "--find-links", str(offline)) if offline else ()), *_WHEELS[engine],
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [x for x in done.stderr.splitlines() if "ERROR" in x]
        place = f"in {offline}" if offline else "in the package registry"
        raise MissingError(
            f"{profile.name}: no {engine} {place} for Python {version}, glibc 2.{glibc}, {machine['arch']}: "
            f"{said[-1].removeprefix('ERROR: ') if said else 'pip failed'}",
            hint=_others(profile, engine),
        )


def _others(profile: Profile, engine: str) -> str:
    others = [b for b in profile.backends if b != engine and b in _WHEELS]
    return f"Try {' or '.join(others)} instead." if others else "Update the board's system or its Python."


def unlock(profile: Profile) -> dict[str, Any] | None:
    """End whoever holds a device; return who it was, None where nobody did."""
    found: dict[str, Any] | None = agent_of(profile).ask("unlock")["held_by"]
    return found


def looked_at(chosen: Sequence[Profile]) -> list[dict[str, Any]]:
    """Return each device's passport, or why it has none."""
    rows = []
    for profile in chosen:
        try:
            rows.append({"device": profile.name, **agent_of(profile).hello()["passport"]})
        except EdgekitError as error:
            rows.append({"device": profile.name, "error": error.message})
    return rows
