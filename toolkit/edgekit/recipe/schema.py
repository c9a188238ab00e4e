"""Publish the JSON Schema of recipes, passes and gates included."""

from __future__ import annotations

from typing import Any

from edgekit.core.plugins import family
from edgekit.devices.profiles import profiles
from edgekit.forms.read import json_schema
from edgekit.gates.protocol import gate_keys
from edgekit.recipe.records import SCHEMA, Recipe


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `edgekit/recipe/v1`."""
    schema = json_schema(Recipe)
    gates = {
        key: {"type": "number", "minimum": 0, "description": gate.keys[key]}
        for key, gate in gate_keys().items()
    }
    closed = {"type": "object", "properties": gates, "additionalProperties": False}
    schema["properties"]["gates"] = {**closed, "description": "What must hold on every device."}
    schema["properties"]["passes"] = {
        "type": "array",
        "items": {"oneOf": [_pass(n, p) for n, p in family("passes").items()]},
    }
    words = {
        "precision": {"enum": ["fp32", "fp16", "bf16", "int8"]},
        "backend": {"enum": sorted({b for p in profiles().values() for b in p.backends})},
    }
    device = {"type": "object", "properties": {**gates, **words}, "additionalProperties": False}
    schema["properties"]["devices"] = {"type": "object", "additionalProperties": device}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def _pass(name: str, one: Any) -> dict[str, Any]:
    settings = {**json_schema(one.settings), "additionalProperties": False}
    named = {
        "type": "object",
        "properties": {name: {"oneOf": [settings, {"type": "null"}]}},
        "required": [name],
        "additionalProperties": False,
    }
    return {"description": one.summary, "oneOf": [{"const": name}, named]}
