"""Walk a graph: who makes a tensor, who reads it, what lies before a layer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def makers(graph: Any) -> dict[str, Any]:
    """Return the node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output}


def readers(graph: Any) -> dict[str, list[Any]]:
    """Return the nodes that read each tensor."""
    found: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def name_nodes(graph: Any) -> None:
    """Give every node a name of its own: plans and receipts speak of layers by name."""
    seen: set[str] = set()
    for k, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{k}"
        while name in seen:
            name = f"{name}_{k}"
        node.name = name
        seen.add(name)


def before(graph: Any, names: set[str]) -> set[str]:
    """Return the names of all nodes that feed any node of `names`, those included."""
    made = makers(graph)
    by_name = {n.name: n for n in graph.node}
    found, waiting = set(), [by_name[n] for n in names]
    while waiting:
        node = waiting.pop()
        if node.name in found:
            continue
        found.add(node.name)
        waiting.extend(made[i] for i in node.input if i in made)
    return found


def in_order(nodes: list[Any]) -> list[Any]:
    """Return the nodes in topological order, otherwise in the order given."""
    made = {o: n for n in nodes for o in n.output}
    done: set[int] = set()
    order: list[Any] = []
    for start in nodes:
        stack = [start]
        while stack:
            node = stack[-1]
            missing = [made[i] for i in node.input if i in made and id(made[i]) not in done]
            if missing:
                stack.append(missing[0])
                continue
            stack.pop()
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
    return order
