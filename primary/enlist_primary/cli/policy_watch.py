"""`policy set --watch`: a progress bar of what servers report, until there is nothing more to wait for."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from enlist.runtime.terminal import escape
from enlist_primary.cli import policy_shown

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.policy_pb2 import Policy, PolicyKey, PolicyReport

BAR = 24


class Progress:
    """How a policy fares, on standard error: one line that is drawn again on a terminal, else a line for each change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown = ""

    def show(self, policy: Policy) -> None:
        """Draws it, if there is anything new."""
        line = f"[{_bar(policy)}] {policy_shown.fares(policy, stage=True)}"
        if line == self._shown:
            return
        self._shown = line
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[K{escape(line)[: columns - 1]}")
        else:
            self._stream.write(f"{escape(line)}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leaves the line as it stands."""
        if self._terminal and self._shown:
            self._stream.write("\n")
            self._stream.flush()


def _bar(policy: Policy) -> str:
    """Full where every server that it is for has said how it ended, or cannot be asked."""
    counts = policy.counts
    ended = counts.desired - counts.pending - counts.received
    full = BAR * ended // counts.desired if counts.desired else BAR
    return "#" * full + "." * (BAR - full)


async def watch(channel: grpc.aio.Channel, key: PolicyKey, policy: Policy, progress: Progress) -> tuple[Policy, list[PolicyReport]]:
    """Watches until every server has reported, or another revision comes in between; then how it fares at each of them."""
    from enlist.v1 import policy_pb2, policy_pb2_grpc

    stub: policy_pb2_grpc.PolicyServiceAsyncStub = policy_pb2_grpc.PolicyServiceStub(channel)
    last = policy
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async for seen in stub.WatchPolicy(policy_pb2.WatchPolicyRequest(key=key)):
                if seen.revision != policy.revision:
                    raise _replaced(seen)
                last = seen
                progress.show(seen)
                if over(seen):
                    break
                limit.reschedule(_until(seen))
    listed = await stub.ListPolicyReports(policy_pb2.ListPolicyReportsRequest(key=key))
    return last, list(listed.reports)


def over(policy: Policy) -> bool:
    """Whether there is nothing more to wait for: whoever has the change has said something final, or cannot be asked.

    A rollout is waited for to its end, unless nobody is there to bring it to.
    """
    counts = policy.counts
    if policy.HasField("rollout") and policy_shown.rollout_state(policy.rollout) == "running":
        return counts.desired == counts.unreachable
    return counts.pending - counts.not_begun + counts.received == 0


def _until(policy: Policy) -> float | None:
    """When, by the loop's clock, a rollout that goes no further has given its servers their time; None while it goes on."""
    from enlist_primary.model.rollouts import Stages

    if not policy.HasField("rollout") or policy_shown.rollout_state(policy.rollout) == "running":
        return None
    stages = policy.rollout.stages
    patience = Stages(tuple(stages.sizes), stages.stop_after, stages.confirm_seconds).patience
    return asyncio.get_running_loop().time() + policy.rollout.stage_time.seconds + patience - time.time()


def _replaced(policy: Policy) -> Exception:
    from enlist.reasons import Reason, Refused

    sentence = f"Somebody has set this policy anew meanwhile: revision {policy.revision} is what the servers get now."
    return Refused(Reason.INTERRUPTED, sentence)
