"""grpc.health.v1: whether the primary serves."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2


class Health(health.aio.HealthServicer):
    """gRPC's own servicer, and `List`, which it has not got."""

    async def List(self, request: Any, context: Any) -> Any:
        whole = await self.Check(health_pb2.HealthCheckRequest(), context)
        return health_pb2.HealthListResponse(statuses={"": whole})  # type: ignore[attr-defined]  # newer than the stubs
