"""The agent that boards get holds everything that it imports."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import pytest

from edgekit.devices.agents import agent_file

pytestmark = pytest.mark.light


def test_every_module_that_the_agent_imports_travels_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A room that the light side begins to use must go to the boards, too."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    with zipfile.ZipFile(agent_file()) as archive:
        # The package's own first file looks for `compile` and the like only when somebody asks for them.
        sources = {n: ast.parse(archive.read(n)) for n in archive.namelist() if n != "edgekit/__init__.py"}
    wanted = {
        (node.module, name)
        for name, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgekit.")
    }
    assert len(wanted) > 50
    lacking = sorted(
        f"{module} (in {name})"
        for module, name in wanted
        if f"{(p := module.replace('.', '/'))}.py" not in sources and f"{p}/__init__.py" not in sources
    )
    assert lacking == []
