"""Refuse files over 500 lines and functions over 40, docstrings left out.

python scripts/sizes.py
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FILE, FUNCTION = 500, 40
ROOT = Path(__file__).resolve().parent.parent


def long_functions(path: Path) -> list[str]:
    """Return the functions of a file that are too long."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        doc = node.body[0] if ast.get_docstring(node) else None
        docs = doc.end_lineno - doc.lineno + 1 if doc and doc.end_lineno else 0
        body = (node.end_lineno or node.lineno) - node.body[0].lineno + 1 - docs
        if body > FUNCTION:
            found.append(
                f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {body} lines, {FUNCTION} are the end"
            )
    return found


def main() -> int:
    """Print every fault; return how many there are."""
    faults = []
    for folder in ("toolkit", "scripts", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            count = len(path.read_text().splitlines())
            if count > FILE:
                faults.append(f"{path.relative_to(ROOT)}: {count} lines, {FILE} are the end")
            if folder != "tests":
                faults += long_functions(path)
    print("\n".join(faults) or "sizes: files and functions are within their limits")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main() > 0)
