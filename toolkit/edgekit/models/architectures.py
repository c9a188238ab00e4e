"""The catalogue's architecture files: which there are, and one with its scale and options."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.files import write_json
from edgekit.core.lazy import need
from edgekit.core.places import shipped
from edgekit.core.plugins import suggestion
from edgekit.forms.read import read_form

# What an option may be; a tuple lists the words, a type says what kind of value.
_ALLOWED: Mapping[str, Any] = {
    "head": ("dense", "light"),
    "irdcb_wrapper": ("c2f", "csp", "elan"),
    "variant": ("plain", "psa_cib"),
    "backbone_act": ("relu6", "relu"),
    "lateral_widths": list,
    "project_act": bool,
    "dw_act": bool,
    "uib_residual": bool,
}
_BASELINE_OPTIONS = {"head": "dense"}
_BASELINE = re.compile(r"^(yolov8)([nsm])(-p2)?$")


@functools.cache
def architectures() -> dict[str, tuple[Path, str]]:
    """Return every model that an architecture file of ours describes: name to file and scale."""
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(shipped("models").glob("*.yaml")):
        for scale in read_form(path).value["scales"]:
            found[f"{path.stem}-{scale}" if scale else path.stem] = (path, str(scale))
    return found


def is_ours(name: str) -> bool:
    """Return whether the builder of edgekit makes this model: our files, and YOLOv8 as a baseline."""
    return bool(_BASELINE.match(name)) or name in architectures()


def architecture(name: str, *, nc: int, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an architecture as ultralytics' models take it, for `nc` classes.

    Args:
        name: Of the catalogue; YOLOv8's rows come from the installed ultralytics, where `head: light`
            is the one option.
        nc: Number of classes.
        options: Over the file's own.

    Raises:
        RecipeError: There is no such model or option.
        MissingError: A baseline is asked for and ultralytics is not installed.
    """
    found = architectures()
    if baseline := _BASELINE.match(name):
        value = dict(
            need("ultralytics.nn.tasks", extra="train", why=f"build {name}").yaml_model_load(f"{name}.yaml")
        )
        scale = baseline[2]
        value["options"] = own_options(name)
    elif name in found:
        path, scale = found[name]
        value = dict(read_form(path).value)
    else:
        raise RecipeError(f"model.name: no architecture {name!r}", hint=suggestion(name, found))
    own = {**value["options"], **_checked(dict(options or {}), value["options"], name)}
    head = value["head_psa_cib"] if own.get("variant") == "psa_cib" else value["head"]
    return {
        "builder": "edgekit", "nc": nc, "scale": scale, "scales": {scale: value["scales"][scale]},
        "options": own, "backbone": value["backbone"], "head": head, "yaml_file": f"{name}.yaml",
    }  # fmt: skip


def write_architecture(path: Path, name: str, *, nc: int, options: Mapping[str, Any] | None = None) -> Path:
    """Write `architecture` as the YAML file that ultralytics' own trainer takes; return its path.

    Raises:
        RecipeError: There is no such model or option.
    """
    # JSON is YAML, and only the forms room writes the other kind.
    write_json(path, architecture(name, nc=nc, options=options))
    return path


def refuse_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a model of ours does not have, without building it.

    Raises:
        RecipeError: There is no such option, or its value is wrong.
    """
    _checked(dict(options), own_options(name), name)


def own_options(name: str) -> dict[str, Any]:
    """Return the options of a model of ours with their defaults."""
    if _BASELINE.match(name):
        return dict(_BASELINE_OPTIONS)
    return dict(read_form(architectures()[name][0]).value["options"])


def _checked(given: dict[str, Any], own: Mapping[str, Any], name: str) -> dict[str, Any]:
    for key, value in given.items():
        if key not in own:
            raise RecipeError(f"model.options.{key}: {name} has no such option", hint=suggestion(key, own))
        allowed = _ALLOWED[key]
        if isinstance(allowed, tuple) and value not in allowed:
            raise RecipeError(f"model.options.{key}: no {value!r}", hint=f"It is {' or '.join(allowed)}.")
        if isinstance(allowed, type) and not isinstance(value, allowed):
            raise RecipeError(
                f"model.options.{key}: should be {allowed.__name__}, found {value!r}", hint="Correct it."
            )
        if key == "lateral_widths" and (
            len(value) != 4 or not all(isinstance(v, int) and 8 <= v <= 2048 for v in value)
        ):
            raise RecipeError(
                f"model.options.lateral_widths: should be four widths of 8 to 2048, found {value!r}",
                hint="Write L2 to L5, before scaling: [128, 256, 256, 512].",
            )
    return given
