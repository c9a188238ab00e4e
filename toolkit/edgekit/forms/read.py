"""Read YAML files into checked records, and report every fault with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from edgekit.core.errors import RecipeError
from edgekit.core.lazy import need
from edgekit.core.plugins import suggestion

Record = TypeVar("Record")
Place = tuple[str | int, ...]


class Form:
    """One YAML file: its plain value, where each key stands, and the faults found so far."""

    def __init__(self, path: Path, value: Any, lines: dict[Place, int]) -> None:
        self.path, self.value, self._lines = path, value, lines
        self.faults: list[tuple[int, str]] = []

    def fault(self, at: Place, text: str) -> None:
        """Note a fault at a key."""
        key = _dotted(at)
        line = self.line(at)
        self.faults.append((line, f"{self.path}:{line}: {f'{key}: ' if key else ''}{text}"))

    def line(self, at: Place) -> int:
        """Return the line of a key, or of its nearest parent that stands in the file."""
        while at and at not in self._lines:
            at = at[:-1]
        return self._lines.get(at, 1)

    def record(self, kind: type[Record], value: Any, at: Place = ()) -> Record | None:
        """Return `value` as a record of dataclass `kind`, None after noting what is wrong with it."""
        pydantic = need("pydantic", extra="host", why="check recipes")
        if unknown := self._unknown_keys(kind, value):
            for key, known in unknown:
                self.fault((*at, key), f"no such key. {suggestion(key, known)}")
            value = {k: v for k, v in value.items() if k not in {key for key, _ in unknown}}
        try:
            found: Record = pydantic.TypeAdapter(kind).validate_python(value)
        except pydantic.ValidationError as error:
            for one in error.errors(include_url=False):
                self._pydantic_fault(kind, one, at)
            return None
        return None if unknown else found

    def _unknown_keys(self, kind: type, value: Any) -> list[tuple[str, list[str]]]:
        if not isinstance(value, dict) or not dataclasses.is_dataclass(kind):
            return []
        known = [f.name for f in dataclasses.fields(kind)]
        return [(str(k), known) for k in value if k not in known]

    def _pydantic_fault(self, kind: type, one: Any, at: Place) -> None:
        place = tuple(p for p in one["loc"] if not _is_union_tag(p))
        given = one.get("input")
        shown = f", found {given!r}" if isinstance(given, str | int | float | bool) else ""
        text = one["msg"][0].lower() + one["msg"][1:]
        if one["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            known = _known(kind, place)
            text, shown = f"no such key. {suggestion(str(place[-1]), known)}", ""
        elif one["type"] in {"missing", "missing_argument"}:
            text, shown = "is required and missing", ""
        self.fault((*at, *place), text + shown)

    def refuse(self) -> None:
        """Raise if any fault was noted.

        Raises:
            RecipeError: All faults, in the order of their lines.
        """
        if self.faults:
            lines = [text for _, text in sorted(self.faults)]
            raise RecipeError("\n".join(lines), hint=f"Correct {self.path} and run again.")


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool", "none"})


def _known(kind: type, place: Place) -> list[str]:
    """Return the keys that are known where `place`'s last key stands."""
    current: Any = kind
    for part in place[:-1]:
        if not dataclasses.is_dataclass(current):
            return []
        hints = _hints(current)
        current = hints.get(str(part), None)
        current = _dataclass_in(current)
    return [f.name for f in dataclasses.fields(current)] if dataclasses.is_dataclass(current) else []


def _hints(kind: Any) -> dict[str, Any]:
    import typing

    found: dict[str, Any] = typing.get_type_hints(kind)
    return found


def _dataclass_in(hint: Any) -> Any:
    import typing

    if dataclasses.is_dataclass(hint):
        return hint
    return next((a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)), None)


def _dotted(at: Place) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_form(path: Path) -> Form:
    """Return the YAML file at `path`, safely loaded, with the line of every key.

    Raises:
        RecipeError: It is missing, unreadable, no UTF-8, no YAML, no mapping, or has a key twice.
    """
    return form_of(read_text(path, what="file", hint="Check the path."), path)


def read_text(path: Path, *, what: str, hint: str) -> str:
    """Return the text of a file a person wrote.

    Args:
        path: The file.
        what: What it should be, for the message of a missing one.
        hint: What to do where it is missing.

    Raises:
        RecipeError: It is missing, unreadable or no UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such {what}", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})", hint="Give a UTF-8 text file.") from error


def form_of(text: str, path: Path) -> Form:
    """Return YAML text as a form; `path` stands in messages, it need not exist.

    Raises:
        RecipeError: It is no YAML, no mapping, or has a key twice.
    """
    yaml = need("yaml", extra="host", why="read recipes")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(text, Loader=loader)
        value = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(
            f"{path}:{line}: is no YAML: {problem}", hint="Check the indentation and the quotes there."
        ) from error
    if not isinstance(value, dict):
        raise RecipeError(
            f"{path}:1: holds no keys", hint="See `edgekit recipes show hierlight-yolo-n-mini`."
        )
    lines: dict[Place, int] = {}
    form = Form(path, value, lines)
    _walk(node, (), lines, form)
    form.refuse()
    return form


def _walk(node: Any, at: Place, lines: dict[Place, int], form: Form) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if node.id == "mapping":
        seen = set()
        for key, value in node.value:
            place = (*at, key.value)
            lines[place] = key.start_mark.line + 1
            if key.value in seen:
                form.fault(place, "stands here twice")
            seen.add(key.value)
            _walk(value, place, lines, form)
    elif node.id == "sequence":
        for k, value in enumerate(node.value):
            lines[(*at, k)] = value.start_mark.line + 1
            _walk(value, (*at, k), lines, form)


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    pydantic = need("pydantic", extra="host", why="write the schema")
    schema: dict[str, Any] = pydantic.TypeAdapter(kind).json_schema()
    return schema
