"""What an account wants at each of its servers, reckoned from one consistent view of the database.

A server gets, for every kind, the layers of all groups from the root down to its own, then its innermost maintenance window, then
the open runs of tasks it is in. Servers that get the same share one `Desired`, and its bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from enlist import documents
from enlist.documents import Item, ItemVersion
from enlist.reasons import Reason, Refused
from enlist_primary.model import rollouts
from enlist_primary.model.rollouts import Rollout

RUNS = 200
"""Runs of tasks under way in an account, at most."""
RUNS_BYTES = 16 * 1024 * 1024
"""Bytes of their documents together, at most."""
POLICIES = documents.ITEM_LIMIT - RUNS - 1
"""Policies on the way down to a server, at most: what a set holds besides the runs and a maintenance window."""
POLICIES_BYTES = documents.BODIES_LIMIT - RUNS_BYTES - 64 * 1024
"""Bytes of their bodies together, at most."""
NAMES_BYTES = documents.SET_LIMIT - RUNS * 256 - 2048
"""Bytes of what their items say in a set, at most."""
_ITEM_BYTES = 64  # digest, numbers and tags


class Size(NamedTuple):
    """What a policy takes: its kind and its group's path in a set, and the bytes of its body."""

    kind: str
    group: str
    bytes: int


def check_way(path: str, sizes: Sequence[Size]) -> None:
    """Refuses, with DOCUMENT_TOO_LARGE, more policies on the way down to a group than its servers take."""
    whole = sum(each.bytes for each in sizes)
    said = sum(len(each.kind) + len(each.group.encode()) + _ITEM_BYTES for each in sizes)
    where = f'With this, servers in "{path}" would get'
    if len(sizes) > POLICIES or said > NAMES_BYTES:
        raise Refused(Reason.DOCUMENT_TOO_LARGE, f"{where} {len(sizes)} policies: that is more than a server takes.")
    if whole > POLICIES_BYTES:
        sentence = f"{where} {whole} bytes of policies; a server takes at most {POLICIES_BYTES}."
        raise Refused(Reason.DOCUMENT_TOO_LARGE, sentence)


@dataclass(frozen=True)
class Node:
    """A group as the layout needs it; `window` is the body of its maintenance window, None if it has none."""

    id: str
    parent: str | None
    path: str
    window: bytes | None = None
    window_revision: int = 0


@dataclass(frozen=True)
class Run:
    """An open run of a task: its document, and the servers it is for."""

    id: str
    kind: str
    revision: int
    digest: str
    servers: frozenset[str]


@dataclass(frozen=True)
class Desired:
    """The items of a server's set, and what is reckoned from them once for all servers that share them."""

    items: tuple[Item, ...]

    @cached_property
    def content(self) -> bytes:
        """By what both ends compare."""
        return documents.content(self.items)

    @cached_property
    def encoded(self) -> bytes:
        """The items as they travel."""
        return documents.encode_items(self.items)

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The bodies it takes."""
        return frozenset(item.digest for item in self.items)

    @cached_property
    def order(self) -> tuple[bytes, ...]:
        """The same in the order of the items, each once."""
        return tuple(dict.fromkeys(item.digest for item in self.items))

    @cached_property
    def subjects(self) -> frozenset[tuple[str, str]]:
        """What a server that has it may speak of: kind, and run or nothing."""
        return frozenset(documents.about(item) for item in self.items)

    def versions(self, kind: str) -> tuple[ItemVersion, ...]:
        """The items of one kind, in their order: what a report on it must name to count."""
        return tuple(item.version for item in self.items if item.kind == kind)


NOTHING = Desired(())


@dataclass(frozen=True)
class Layout:
    """An account as of one moment. `number` is the last decision that changed what any server of it shall get.

    `policies` are (group, kind, revision); `digests` the bodies of revisions, absent where a policy ended; `unfinished` the
    rollouts that are not done, by revision; `ended` the ids of runs that are over, of which servers may still speak.
    """

    account: str
    epoch: int
    number: int
    groups: Mapping[str, Node]
    policies: Sequence[tuple[str, str, int]] = ()
    digests: Mapping[int, str] = field(default_factory=dict)
    unfinished: Mapping[int, Rollout] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    ended: frozenset[str] = frozenset()
    _shared: dict[object, Desired] = field(default_factory=dict, repr=False, compare=False)

    def desired(self, server_id: str, group_id: str) -> Desired:
        """What this server shall get, standing in this group; a group that is not there wants nothing."""
        layers = tuple(self._layers(server_id, group_id))
        runs = tuple(self._runs_of(server_id))
        key = (group_id, tuple(revision for _, _, revision, _ in layers), tuple(confirm for *_, confirm in layers), runs)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = Desired(tuple(self._items(group_id, layers, runs)))
        return found

    @property
    def bodies(self) -> frozenset[str]:
        """The digests of all bodies that some server may have to get, maintenance windows left out."""
        return frozenset({*self.digests.values(), *(run.digest for run in self.runs)})

    def prepared(self) -> Layout:
        """This layout, with what takes long where many runs are for many servers reckoned now: away from the event loop."""
        assert self._runs_by_server is not None, "reckoned by asking for it"
        return self

    def window_body(self, digest: bytes) -> bytes | None:
        """The body of a maintenance window; other bodies stand in the database."""
        return self._window_bodies.get(digest)

    @cached_property
    def _window_bodies(self) -> dict[bytes, bytes]:
        return {documents.digest(node.window): node.window for node in self.groups.values() if node.window is not None}

    @cached_property
    def _here(self) -> Mapping[str, list[tuple[str, int]]]:
        """Kind and revision of each group's policies."""
        found: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for group, kind, revision in sorted(self.policies):
            found[group].append((kind, revision))
        return found

    @cached_property
    def _runs_by_server(self) -> Mapping[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            for server in {id.partition("/")[0] for id in run.servers}:  # one below a middle server gets what that gets
                found[server].append(run)
        return found

    def path_down(self, group_id: str) -> list[Node]:
        """The groups from the root down to this one."""
        up: list[Node] = []
        node = self.groups.get(group_id)
        while node is not None:
            up.append(node)
            node = self.groups.get(node.parent) if node.parent else None
        return up[::-1]

    def _layers(self, server_id: str, group_id: str) -> Iterator[tuple[str, str, int, int]]:
        """Kind, group, revision and seconds to confirm of each layer that reaches this server."""
        for group, kind, revision in self._above(group_id):
            has, confirm = rollouts.revision_for(revision, self.unfinished.get(revision), server_id)
            if has in self.digests:
                yield kind, group, has, confirm

    def _above(self, group_id: str) -> Sequence[tuple[str, str, int]]:
        """Group, kind and revision of the policies on the way down; reckoned once for each group."""
        found = self._ways.get(group_id)
        if found is None:
            down = self.path_down(group_id)
            found = self._ways[group_id] = [(n.id, kind, revision) for n in down for kind, revision in self._here.get(n.id, ())]
        return found

    @cached_property
    def _ways(self) -> dict[str, list[tuple[str, str, int]]]:
        return {}

    def _runs_of(self, server_id: str) -> Iterator[Run]:
        for run in self._runs_by_server.get(server_id, ()):
            if rollouts.revision_for(run.revision, self.unfinished.get(run.revision), server_id)[0] == run.revision:
                yield run

    def _items(self, group_id: str, layers: Sequence[tuple[str, str, int, int]], runs: Sequence[Run]) -> Iterator[Item]:
        for kind, group, revision, confirm in layers:
            body = bytes.fromhex(self.digests[revision])
            yield Item(documents.POLICY + kind, self.groups[group].path, revision, body, confirm)
        windows = [node for node in self.path_down(group_id) if node.window is not None]
        for node in windows[-1:]:
            assert node.window is not None, "only groups with a window are among them"
            yield Item(documents.WINDOW, node.path, node.window_revision, documents.digest(node.window))
        for run in runs:
            yield Item(documents.TASK + run.kind, run.id, run.revision, bytes.fromhex(run.digest))
