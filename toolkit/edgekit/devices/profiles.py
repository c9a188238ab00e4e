"""Read device profiles: those that come with edgekit, and the user's own."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError
from edgekit.core.places import config_home, shipped
from edgekit.core.plugins import suggestion
from edgekit.forms.read import Form, read_form


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact of a device; certainty A (vendor) to D (from memory)."""

    key: str
    value: str
    source: str = ""
    certainty: str = "D"
    unit: str = ""
    condition: str = ""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a machine is recognised: regular expressions on the passport's facts, or always."""

    arch: str = ""
    board: str = ""
    cpu: str = ""
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One profile as a file has it."""

    title: str = ""
    extends: str = ""
    aliases: tuple[str, ...] = ()
    arch: str = ""
    backends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    published: str = ""
    match: Match | None = None
    others: dict[str, str] = field(default_factory=dict)
    note: str = ""
    facts: tuple[Fact, ...] = ()
    kind: str = ""
    ssh: str = ""
    tags: tuple[str, ...] = ()
    root: str = ""
    python: str = ""
    lock: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A device edgekit can compile for.

    Attributes:
        name: Its name.
        title: For people.
        aliases: Other names, those of published rows among them.
        arch: Machine architecture, empty for any.
        backends: Engines edgekit can use there, with the precisions to try.
        published: Name by which published latencies know it.
        match: How this machine is recognised as one.
        others: Units without a backend, with the reason.
        facts: With source and certainty.
        own: Whether it stands in the user's own file.
        kind: Of connection, empty for `ssh`.
        ssh: Address: `user@host` or a name of ssh's configuration.
        tags: To choose many boards at once.
        root: The agent's folder there.
        python: The Python that runs it.
        lock: File that says that the board is taken.
        looks: Marks of the profile it extends.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    arch: str
    backends: Mapping[str, tuple[str, ...]]
    published: str
    match: Match
    others: Mapping[str, str]
    note: str
    facts: tuple[Fact, ...]
    own: bool = False
    kind: str = ""
    ssh: str = ""
    tags: tuple[str, ...] = ()
    root: str = ""
    python: str = ""
    lock: str = ""

    looks: Match = field(default_factory=Match)

    def looks_like(self, passport: Mapping[str, Any]) -> bool:
        """Return whether a board's passport is that of its profile; True where a profile tells no marks."""
        rule = self.looks
        return rule == Match() or replace(self, match=rule).is_machine(passport)

    @property
    def reachable(self) -> bool:
        """Whether its entry says how to reach it."""
        return bool(self.ssh or self.kind)

    def is_machine(self, passport: Mapping[str, Any]) -> bool:
        """Return whether the machine of that passport is this device."""
        rule = self.match
        asked = [(rule.arch, "arch"), (rule.board, "board"), (rule.cpu, "cpu")]
        found = [bool(re.search(rule_, str(passport.get(key, "")))) for rule_, key in asked if rule_]
        return rule.always or (bool(found) and all(found))

    @property
    def builds_engines(self) -> bool:
        """Whether its first engine is built on the device itself."""
        return next(iter(self.backends)) == "tensorrt"


def own_file() -> Path:
    """Return the path of the user's own devices file; it need not exist."""
    return config_home() / "devices.yaml"


@functools.cache
def profiles() -> dict[str, Profile]:
    """Return every profile by name.

    Raises:
        RecipeError: A devices file has faults; all are listed.
    """
    found: dict[str, Profile] = {}
    for path, own in ((shipped("devices.yaml"), False), (own_file(), True)):
        if own and not path.is_file():
            continue
        form = read_form(path)
        for name, value in form.value.items():
            if profile := _profile(form, str(name), value, found, own=own):
                found[str(name)] = profile
        form.refuse()
    return found


def _profile(form: Form, name: str, value: Any, known: dict[str, Profile], *, own: bool) -> Profile | None:
    entry = form.record(Entry, value, (name,))
    if entry is None:
        return None
    for key in ("arch", "board", "cpu"):
        try:
            re.compile(getattr(entry.match, key, "") or "")
        except re.error as error:
            form.fault((name, "match", key), f"is no regular expression ({error})")
            return None
    base = next((p for p in known.values() if entry.extends in {p.name, *p.aliases}), None)
    if entry.extends and base is None:
        form.fault((name, "extends"), f"no device {entry.extends!r}. {suggestion(entry.extends, known)}")
        return None
    if base is None and not entry.backends:
        form.fault((name,), "needs `backends`, or `extends` with a profile that has some")
        return None
    if base is None:
        return Profile(
            name=name, title=entry.title or name, aliases=entry.aliases, arch=entry.arch,
            backends=entry.backends, published=entry.published or name, match=entry.match or Match(),
            others=entry.others, note=entry.note, facts=entry.facts, own=own, kind=entry.kind, ssh=entry.ssh,
            tags=entry.tags, root=entry.root, python=entry.python, lock=entry.lock,
        )  # fmt: skip
    given = {k: v for k, v in vars(entry).items() if v and k in vars(base) and k != "name"}
    # A user's own board is this machine only where its own entry says so.
    looks = Match() if base.match.always else base.match
    return replace(
        base, **{"aliases": (), "match": Match(), "looks": looks, **given, "name": name, "own": own}
    )


def profile_of(name: str, *, where: str = "--device") -> Profile:
    """Return the profile of a name or alias; a published row's "name (unit)" counts as its name.

    Raises:
        RecipeError: There is none.
    """
    bare = re.sub(r"\s*\(.*\)$", "", name)
    if bare in profiles():
        return profiles()[bare]
    for one in profiles().values():
        if bare in one.aliases:
            return one
    words = [w for p in profiles().values() for w in (p.name, *p.aliases)]
    raise RecipeError(f"{where}: no device {name!r}", hint=suggestion(name, words))


def chosen(words: str) -> list[Profile]:
    """Return the reachable devices that a list names: names and `tag:NAME`, with commas between.

    Raises:
        RecipeError: A name or tag is not known, or a device's entry does not say how to reach it.
    """
    found: dict[str, Profile] = {}
    for word in filter(None, (w.strip() for w in words.split(","))):
        if word.startswith("tag:"):
            tagged = {n: p for n, p in profiles().items() if word[4:] in p.tags}
            if not tagged:
                tags = {t for p in profiles().values() for t in p.tags}
                raise RecipeError(
                    f"--devices: no device has the tag {word[4:]!r}", hint=suggestion(word[4:], tags)
                )
            found |= tagged
        else:
            one = profile_of(word, where="--devices")
            found[one.name] = one
    if not found:
        raise RecipeError(
            f"--devices: {words!r} names none", hint="Give names or tag:NAME, with commas between."
        )
    for one in found.values():
        if not one.reachable:
            raise RecipeError(
                f"{one.name}: its entry does not say how to reach it",
                hint=f"Add one: edgekit devices add my-board --ssh user@host --extends {one.name}",
            )
    return list(found.values())


def one_of(name: str) -> Profile:
    """Return the one reachable device of a name.

    Raises:
        RecipeError: There is none, or the word names several.
    """
    if name.startswith("tag:") or "," in name:
        raise RecipeError(f"--device: {name!r} may name several", hint="Use --devices for those.")
    return chosen(name)[0]


def refuse_backend(profile: Profile, backend: str, precision: str, *, where: str) -> str:
    """Return why a device cannot take a backend or precision, empty when it can."""
    if backend and backend not in profile.backends:
        return f"{where}: {profile.name} has no {backend!r}. {suggestion(backend, profile.backends)}"
    offered = {p for b, ps in profile.backends.items() for p in ps if backend in {"", b}}
    if precision and precision not in offered:
        return f"{where}: {profile.name} has no {precision!r}. {suggestion(precision, offered)}"
    return ""
