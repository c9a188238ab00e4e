"""Pages tell the truth: commands exist and have examples, links lead somewhere, tables are what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgekit.cli.frame import edgekit
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "models").glob("*.md")),
]


def commands(group: click.Group, path: str):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(
    ("path", "command"), list(commands(edgekit, "edgekit")), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_command_has_an_example_of_itself(path: str, command: click.Command):
    assert f"{path} " in (command.help or "") or path in (command.help or "")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_pages_have_options_that_exist(page: Path):
    known = dict(commands(edgekit, "edgekit"))
    for line in re.findall(r"^(?:\$ )?(edgekit [^\n#]+)$", page.read_text(), re.MULTILINE):
        words = line.split()
        path = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), None)
        assert path, line
        options = {o for p in known[path].params for o in p.opts}
        for word in words:
            if word.startswith("-") and len(word) > 1:
                assert word.partition("=")[0] in options, f"{word} in: {line}"


def test_generated_pages_and_tables_are_not_stale():
    for script in ("reference.py", "evidence/tables.py"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / script), "--check"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_names_a_machine_of_ours():
    done = subprocess.run(
        ["git", "grep", "-nE", "(^|[^.])/(home|Users)/[a-z]+/"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode in {0, 1}, done.stderr
    lines = [x for x in done.stdout.splitlines() if not x.startswith("tests/docs/")]
    assert lines == []
