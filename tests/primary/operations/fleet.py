"""Policies at a desk: a few servers in groups, their links and their words, and everything that may be decided about a policy."""

from __future__ import annotations

from typing import Any

from enlist.documents import ItemVersion
from enlist.layers import Layer
from enlist_primary.model import policies as model
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.policies import Counts, Policy
from enlist_primary.model.reports import Word
from enlist_primary.model.rollouts import Presence, Rollout, Stages
from enlist_primary.model.servers import Server
from enlist_primary.operations import policies, rollouts
from enlist_primary.store import desired as desired_rows
from enlist_primary.store import groups, surveys
from enlist_primary.store import policies as rows
from enlist_primary.store import rollouts as rollout_rows
from tests.primary.operations.desk import ACME, ANN, BETA, START, Desk

KIND = "chrony"
STAGES = Stages(("1", "50%", "100%"))


class Fleet:
    """The account's servers and policies. `links` says how servers are connected; all are, unless a test says otherwise."""

    def __init__(self, desk: Desk, *paths: str) -> None:
        self.desk = desk
        self.tx = desk.tx
        self.links: dict[str, Presence] = {}
        for path in paths:
            desk.add_group(path)

    # --- Servers ------------------------------------------------------------------------------------------------------------

    def server(self, name: str, group: str = "/", account: str = ACME) -> Server:
        """A trusted server in a group."""
        return self.desk.authorize(self.desk.ask(name, account, name), group=group)

    @property
    def view(self) -> FleetView:
        """How all servers are connected."""
        here = [row["id"] for row in self.tx.rows("SELECT id FROM server")]
        below = [row["id"] for row in self.tx.rows("SELECT via || '/' || path AS id FROM below_server")]
        return FleetView({id: self.links.get(id, Presence(connected=True, since=START)) for id in (*here, *below)})

    def down(self, server: Server) -> None:
        """A server's link closes now."""
        self.links[server.id] = Presence(connected=False, since=self.desk.now)

    def up(self, server: Server) -> None:
        """A server's link opens now."""
        self.links[server.id] = Presence(connected=True, since=self.desk.now)

    def say(self, server: Server, state: str = "applied", message: str = "", kind: str = KIND, **fields: Any) -> None:
        """A server says how what is desired there now fares; that is applied, if it is in force."""
        observed = self.desired(server, kind)
        applied = observed if state in ("applied", "changed_locally") else ()
        said = {"observed": observed, "applied": applied, **fields}
        word = Word(server.id, f"policy/{kind}", "", state, self.desk.now, message, **said)
        self.desk.do(rows.save_reports, server.account, [word])

    # --- Decisions ----------------------------------------------------------------------------------------------------------

    def set(
        self,
        path: str,
        settings: dict[str, Any],
        *locks: str,
        put_back: bool = False,
        stages: Stages | None = None,
        kind: str = KIND,
        account: str = ACME,
    ) -> Policy:
        """Sets a group's policy."""
        layer = Layer(settings, locks, put_back)
        return self.desk.do(policies.set_policy, account, path, kind, layer, stages, self.view, ANN, self.desk.now)

    def remove(self, path: str, kind: str = KIND, account: str = ACME) -> None:
        """Ends a group's policy."""
        self.desk.do(policies.remove, account, path, kind, ANN, self.desk.now)

    def roll_back(self, path: str, to: int = 0, stages: Stages | None = None, kind: str = KIND) -> Policy:
        """Sets a group's policy to what it was."""
        return self.desk.do(policies.roll_back, ACME, path, kind, to, stages, self.view, ANN, self.desk.now)

    def advance(self, revision: int) -> Rollout | None:
        """What the primary decides about a rollout."""
        return self.desk.do(rollouts.advance, ACME, revision, self.view, self.desk.now)

    def look(self) -> tuple[list[int], int | None]:
        """The revisions of rollouts about which there is something to decide, and when time alone may call for that."""
        views, now = {ACME: self.view, BETA: self.view}, self.desk.now
        running = [(account, revision) for account, found in rollout_rows.running(self.tx).items() for revision in found]
        dues = {revision: rollouts.due(self.tx, account, revision, views[account], now) for account, revision in running}
        later = [due for due in dues.values() if due is not None and due > now]
        return [revision for revision, due in dues.items() if due is not None and due <= now], min(later, default=None)

    # --- What there is ------------------------------------------------------------------------------------------------------

    def meant(self, server: Server, kind: str = KIND) -> tuple[int, ...]:
        """The revisions a server shall have now."""
        return tuple(each.revision for each in self.desired(server, kind))

    def desired(self, server: Server, kind: str = KIND) -> tuple[ItemVersion, ...]:
        """What is desired at a server now; links, which send it, must know the same."""
        server = self.desk.load(server)
        root = groups.root(self.tx, server.account)
        found = model.desired_items(rows.scene(self.tx, server.account, kind, root).ways[server.group_id], server.id)
        sent = desired_rows.layout(self.tx, server.account).desired(server.id, server.group_id)
        assert sent.versions(f"policy/{kind}") == found
        return found

    def has(self, policy: Policy, *servers: Server) -> list[str]:
        """The names of those servers that shall have this revision now."""
        return [server.name or "" for server in servers if policy.revision in self.meant(server, policy.kind)]

    def rollout(self, policy: Policy) -> Rollout:
        """A policy's rollout as it stands."""
        found = rollout_rows.find(self.tx, policy.account, policy.revision)
        assert found is not None
        return found

    def counts(self, path: str = "/", kind: str = KIND) -> Counts:
        """How a policy fares; whoever counts one, all, or looks at each server, must come to the same."""
        group = groups.find(self.tx, ACME, path)
        one = surveys.one(self.tx, ACME, group.id, kind, self.view)
        assert one is not None
        every = surveys.everything(self.tx, ACME, self.view)
        assert next(each for each in every if each.placed.policy == one.placed.policy) == one
        singly = Counts()
        for each in self.fares(path, kind).values():
            singly.add(each)
        assert one.counts == singly
        return one.counts

    def fares(self, path: str = "/", kind: str = KIND) -> dict[str, model.Fares]:
        """How it fares at each server, by name."""
        found = surveys.at_servers(self.tx, ACME, groups.find(self.tx, ACME, path).id, kind, self.view)
        assert found is not None
        return {each.target.name: each.fares for each in found}
