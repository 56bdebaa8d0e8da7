"""A captured trace, and its events as a tree."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from epsagon_fast.pages import see
from epsagon_fast.protocol import RUNNER_ORIGIN


@dataclass(eq=False)
class Node:
    """An event, and the events that were recorded inside it, by their start. `str(node)` is an outline of the names."""

    event: dict[str, Any]
    children: list["Node"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The event's name: that of its resource."""
        return str(self.event["resource"]["name"])

    def find(self, name: str) -> "Node":
        """Return the first event of that name, this one or one below. LookupError: there is none."""
        for node in self:
            if node.name == name:
                return node
        raise LookupError(f"no event {name!r} in\n{self}{see('tests')}")

    def __iter__(self) -> Iterator["Node"]:
        """Yield this event and all below, each before its children."""
        yield self
        for child in self.children:
            yield from child

    def __str__(self) -> str:
        return "\n".join(self._outline())

    def _outline(self) -> Iterator[str]:
        yield self.name
        for child in self.children:
            yield from (f"    {line}" for line in child._outline())


class Trace(dict[str, Any]):
    """A trace's body as it would be sent, parsed."""

    @property
    def runner(self) -> dict[str, Any]:
        """The event that stands for the whole trace. LookupError: it has none."""
        for event in self["events"]:
            if event["origin"] == RUNNER_ORIGIN:
                return event  # type: ignore[no-any-return]
        raise LookupError(f"the trace has no runner{see('tests')}")

    def tree(self) -> Node:
        """Return the runner's node. An event that names no other event of the trace as its parent stands right below.

        LookupError: the trace has no runner.
        """
        root, *nodes = (Node(event) for event in [self.runner, *self._others()])
        by_id: dict[str, Node] = {}
        for node in nodes:
            by_id.setdefault(node.event["id"], node)
        for node in nodes:
            parent = _parent(node, by_id)
            (root if parent is None or _is_below(parent, node, by_id) else parent).children.append(node)
        return root

    def _others(self) -> list[dict[str, Any]]:
        """Return all events but the runner, by their start."""
        runner = self.runner
        return sorted((event for event in self["events"] if event is not runner), key=itemgetter("start_time"))


def _parent(node: Node, by_id: dict[str, Node]) -> Node | None:
    return by_id.get(str(node.event.get("parent_id")))


def _is_below(node: Node, above: Node, by_id: dict[str, Node]) -> bool:
    """Say whether `node` is `above` or stands below it, by what the events say: applications may say anything."""
    seen: set[Node] = set()
    here: Node | None = node
    while here is not None and here not in seen:
        if here is above:
            return True
        seen.add(here)
        here = _parent(here, by_id)
    return False
