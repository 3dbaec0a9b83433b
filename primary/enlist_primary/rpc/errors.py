"""The one place where an exception becomes what a caller sees.

A `Refused` goes out with its reason (`google.rpc.ErrorInfo`, domain `enlist`). What nobody foresaw goes out as a bland INTERNAL
with an id; what happened stands under that id in the log.
"""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from enlist.names import new_id
from enlist.reasons import DOMAIN, TABLE, Reason, Refused
from enlist.runtime.logs import Log

log = Log("rpc")


def status(refused: Refused) -> grpc.Status:
    """The gRPC status that carries a refusal."""
    code = grpc.StatusCode[TABLE[refused.reason].status]
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=refused.reason.value, domain=DOMAIN))
    number: int = code.value[0]
    return rpc_status.to_status(status_pb2.Status(code=number, message=refused.message, details=[detail]))


def foreseen(error: Exception, method: str) -> Refused:
    """The refusal for an exception; one that nobody foresaw is logged in full and told in none."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, DecodeError):  # not worth a line in the log: anybody can send as much of it as the network carries
        return Refused(Reason.INVALID_ARGUMENT, "What came is not the message that this RPC takes.")
    id = new_id(secrets.token_bytes)
    log.fault("an RPC failed", error, method=method, id=id)
    return Refused(Reason.INTERNAL, f"The primary failed at this request. Its log has the details under {id}.")


async def abort(context: grpc.aio.ServicerContext[Any, Any], refused: Refused) -> NoReturn:
    """Ends the RPC with a refusal."""
    await context.abort_with_status(status(refused))
    raise AssertionError("abort_with_status raises")
