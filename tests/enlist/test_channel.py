"""Channels: what a failed RPC means."""

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from enlist import channel
from enlist.channel import ClientIdentity
from enlist.reasons import Reason


def test_a_private_key_is_not_in_the_repr() -> None:
    """Attacks row 44."""
    assert "secret" not in repr(ClientIdentity(b"certificate", b"secret"))


def failed(code: grpc.StatusCode, details: str = "", info: error_details_pb2.ErrorInfo | None = None) -> grpc.aio.AioRpcError:
    """A failed RPC, with the trailer a primary sends."""
    trailer = grpc.aio.Metadata()
    if info is not None:
        packed = any_pb2.Any()
        packed.Pack(info)
        status = status_pb2.Status(code=code.value[0], message=details, details=[packed])
        trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_comes_back_from_the_wire(reason: Reason) -> None:
    info = error_details_pb2.ErrorInfo(domain="enlist", reason=reason.value)
    refused = channel.refusal(failed(grpc.StatusCode.PERMISSION_DENIED, "So it is.", info))
    assert (refused.reason, refused.message) == (reason, "So it is.")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNREACHABLE),
        (grpc.StatusCode.CANCELLED, Reason.UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.TIMED_OUT),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
        (grpc.StatusCode.INTERNAL, Reason.INTERNAL),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.NOT_ENLIST),
        (grpc.StatusCode.UNKNOWN, Reason.NOT_ENLIST),
    ],
)
@pytest.mark.parametrize(
    "info",
    [
        None,
        error_details_pb2.ErrorInfo(domain="other.example", reason="UNREACHABLE"),
        error_details_pb2.ErrorInfo(domain="enlist", reason="A_REASON_OF_A_LATER_VERSION"),
        error_details_pb2.ErrorInfo(domain="enlist", reason=""),
    ],
    ids=["none", "foreign", "later", "empty"],
)
def test_without_a_reason_of_ours_the_status_tells(
    code: grpc.StatusCode, reason: Reason, info: error_details_pb2.ErrorInfo | None
) -> None:
    assert channel.refusal(failed(code, "text from outside \x1b[31m", info)).reason is reason


def test_a_trailer_that_contradicts_its_status_is_none_of_ours() -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="other")
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailer, "details")
    assert channel.refusal(error).reason is Reason.UNREACHABLE


@pytest.mark.parametrize("trailer", [b"", b"\xff\xff garbage"])
def test_a_trailer_that_cannot_be_read_is_none_of_ours(trailer: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", trailer))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata, "details")
    assert channel.refusal(error).reason is Reason.UNREACHABLE
