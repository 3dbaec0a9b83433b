"""The dialer: the probe and its refusals, the race between addresses, and the pin. Attacks rows 8, 20 and 21."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates, channel
from enlist.channel import Pin
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist.v1 import registration_pb2, registration_pb2_grpc
from tests.support.dialling import Names, dial, served
from tests.support.ports import free_port
from tests.support.pretender import Leaf, new_signer, pretending, secondary_leaf, server_leaf

SIGNER = new_signer()
HANDLER = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: HANDLER, context: ssl.SSLContext | None = None) -> AsyncIterator[Address]:
    """Something else than gRPC at a port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read(1)
    writer.close()


def context(folder: Path, leaf: Leaf, alpn: list[str]) -> ssl.SSLContext:
    """A server's TLS, as other programs have it."""
    (folder / "key.pem").write_bytes(leaf.pem[0])
    (folder / "leaf.pem").write_bytes(leaf.pem[1])
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "leaf.pem", folder / "key.pem")
    if alpn:
        made.set_alpn_protocols(alpn)
    return made


async def refusal_of(address: Address, dialer: Dialer | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        await (dialer or Dialer(within=5.0)).probe(address)
    return caught.value


# --- The probe ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_probe_brings_back_what_is_served(host: str) -> None:
    async with pretending(SIGNER, host=host) as primary:
        assert await served(primary.address) == primary.leaf.der


async def test_a_name_that_does_not_resolve() -> None:
    refused = await refusal_of(Address("no-such-host.invalid", 13299))
    assert refused.reason is Reason.NAME_NOT_FOUND
    assert '"no-such-host.invalid"' in refused.message


async def test_a_port_where_nobody_listens() -> None:
    address = Address("127.0.0.1", free_port())
    refused = await refusal_of(address)
    assert refused.reason is Reason.UNREACHABLE
    assert str(address) in refused.message


async def test_a_port_that_stays_silent_costs_no_more_than_the_deadline() -> None:
    """Attacks row 31, from the other side."""
    async with listening(silence) as address:
        async with asyncio.timeout(3):
            assert (await refusal_of(address, Dialer(within=0.2))).reason is Reason.UNREACHABLE


@pytest.mark.parametrize("handler", [hang_up, banner])
async def test_a_port_that_is_not_enlist(handler: HANDLER) -> None:
    async with listening(handler) as address:
        assert (await refusal_of(address)).reason is Reason.NOT_ENLIST


@pytest.mark.parametrize("alpn", [[], ["http/1.1"]])
async def test_a_web_server_is_not_enlist(tmp_path: Path, alpn: list[str]) -> None:
    async with listening(silence, context(tmp_path, server_leaf(SIGNER), alpn)) as address:
        assert (await refusal_of(address)).reason is Reason.NOT_ENLIST


async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    """Attacks row 21."""
    old = context(tmp_path, server_leaf(SIGNER), ["h2"])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with listening(silence, old) as address:
        assert (await refusal_of(address)).reason is Reason.NOT_ENLIST


async def test_a_verifying_probe_accepts_what_its_authority_vouches_for_and_nothing_else(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(certificates.pem(SIGNER.authority.certificate))
    verifying = ssl.create_default_context(cafile=str(bundle))
    async with pretending(SIGNER, server_leaf(SIGNER, "127.0.0.1")) as primary:
        assert (await Dialer().probe(primary.address, verifying)).leaf_der == primary.leaf.der
    for stranger in (server_leaf(new_signer(), "127.0.0.1"), server_leaf(SIGNER, "10.9.8.7")):
        async with pretending(SIGNER, stranger) as primary:
            with pytest.raises(ssl.SSLCertVerificationError):
                await Dialer().probe(primary.address, verifying)


# --- Several addresses --------------------------------------------------------------------------------------------------------

NAME = "primary.example"


def at(number: int, port: int) -> Endpoint:
    """A further address of this machine."""
    return Endpoint(f"127.0.0.{number}", port)


@contextmanager
def deaf(number: int) -> Iterator[Endpoint]:
    """A port whose queue is full: the system answers no further SYN there."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((f"127.0.0.{number}", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield Endpoint(*listener.getsockname())


@pytest.mark.parametrize("first", ["refused", "silent", "deaf"])
async def test_an_address_that_does_not_answer_costs_a_moment(first: str) -> None:
    """Faults row 29, in small: the next address answers, and the channel goes there."""
    async with pretending(SIGNER, host="127.0.0.3") as primary, listening(silence) as mute:
        with deaf(2) as unheard:
            dead = {"refused": at(2, free_port("127.0.0.2")), "silent": Endpoint(*mute), "deaf": unheard}[first]
            names = Names(dead, Endpoint(*primary.address))
            dialer = Dialer(resolve=names)
            async with asyncio.timeout(3):
                probed = await dialer.probe(Address(NAME, 13299))
            assert probed.leaf_der == primary.leaf.der
            assert probed.endpoint == Endpoint(*primary.address)
            assert names.asked == [Address(NAME, 13299)]
            pin = channel.pin(primary.leaf.certificate)
            async with dialer.channel(probed.endpoint, pin) as dialled:
                stub = registration_pb2_grpc.RegistrationServiceStub(dialled)
                await channel.answer(stub.DescribePrimary(registration_pb2.DescribePrimaryRequest(), timeout=5))


async def test_the_connection_that_lost_is_closed() -> None:
    closed = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        closed.set()

    async with pretending(SIGNER, host="127.0.0.3") as primary, listening(wait_for_the_end) as mute:
        await Dialer(resolve=Names(Endpoint(*mute), Endpoint(*primary.address))).probe(Address(NAME, 13299))
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_deaf_address_does_not_hold_what_another_one_has_refused() -> None:
    with deaf(2) as unheard:
        names = Names(unheard, at(3, free_port("127.0.0.3")))
        async with asyncio.timeout(5):
            refused = await refusal_of(Address(NAME, 13299), Dialer(within=60, silence=0.1, resolve=names))
    assert refused.reason is Reason.UNREACHABLE
    assert "the connection is refused there" in refused.message


async def test_the_address_that_got_furthest_tells_why() -> None:
    async with listening(banner) as other:
        names = Names(at(2, free_port("127.0.0.2")), Endpoint(*other))
        assert (await refusal_of(Address(NAME, 13299), Dialer(resolve=names))).reason is Reason.NOT_ENLIST


async def test_only_the_address_that_was_named_is_probed() -> None:
    async with pretending(SIGNER) as primary:
        names = Names(at(2, free_port("127.0.0.2")))
        probed = await Dialer(resolve=names).probe(Address(NAME, 13299), at=Endpoint(*primary.address))
        assert probed.leaf_der == primary.leaf.der
        assert names.asked == []


async def test_a_dns_that_does_not_answer_costs_no_more_than_the_deadline() -> None:
    async def hang(_: Address) -> Sequence[Endpoint]:
        await asyncio.Event().wait()
        return []

    async with asyncio.timeout(5):
        refused = await refusal_of(Address(NAME, 13299), Dialer(within=0.1, resolve=hang))
    assert refused.reason is Reason.NAME_NOT_FOUND
    assert "no answer came" in refused.message


async def test_a_name_without_an_address_is_not_found() -> None:
    assert (await refusal_of(Address(NAME, 13299), Dialer(resolve=Names()))).reason is Reason.NAME_NOT_FOUND


async def test_one_attempt_looks_a_name_up_once_for_all_ports() -> None:
    async with pretending(SIGNER, host="127.0.0.2") as api, pretending(SIGNER, host="127.0.0.2") as other:
        names = Names(at(3, 13299), at(2, 13299))
        attempt = Dialer(resolve=names).attempt()
        for port in (api.address.port, other.address.port):
            assert (await attempt.probe(Address(NAME, port))).endpoint == at(2, port)
        assert names.asked == [Address(NAME, api.address.port)]
        await Dialer(resolve=names).attempt().probe(Address(NAME, api.address.port))
        assert len(names.asked) == 2


async def test_one_attempt_looks_a_name_up_once_that_is_not_found() -> None:
    names = Names()
    attempt = Dialer(resolve=names).attempt()
    for port in (13299, 13000):
        assert (await refusal_of(Address(NAME, port), attempt)).reason is Reason.NAME_NOT_FOUND
    assert len(names.asked) == 1


# --- The pin ------------------------------------------------------------------------------------------------------------------


async def describe(address: Address, pin: Pin) -> registration_pb2.DescribePrimaryResponse:
    dialer = Dialer()
    probed = await dialer.probe(address)
    async with dialer.channel(probed.endpoint, pin) as dialled:
        stub = registration_pb2_grpc.RegistrationServiceStub(dialled)
        return await channel.answer(stub.DescribePrimary(registration_pb2.DescribePrimaryRequest(), timeout=5))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_the_pinned_certificate_is_accepted_at_an_address_it_does_not_name(host: str) -> None:
    async with pretending(SIGNER, host="::1" if ":" in host else "127.0.0.1") as primary:
        described = await describe(Address(host, primary.address.port), channel.pin(primary.leaf.certificate))
        assert described.primary_name == "Pretender"


@pytest.mark.parametrize("name", ["primary.example", "10.9.8.7"])
async def test_a_company_certificate_is_pinned_by_whatever_name_it_has(name: str) -> None:
    company = Leaf(*_company_leaf(name))
    async with pretending(SIGNER, company) as primary:
        await describe(primary.address, channel.pin(company.certificate))


def _company_leaf(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    signer = new_signer()
    leaf = server_leaf(signer, name)
    names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = x509.CertificateBuilder(
        issuer_name=signer.authority.certificate.subject,
        subject_name=leaf.certificate.subject,
        public_key=leaf.key.public_key(),
        serial_number=1,
        not_valid_before=leaf.certificate.not_valid_before_utc,
        not_valid_after=leaf.certificate.not_valid_after_utc,
    ).add_extension(x509.SubjectAlternativeName(list(names)[1:]), critical=False)
    return builder.sign(signer._key, hashes.SHA256()), leaf.key


IMPOSTORS = {
    "another certificate of the same primary": server_leaf(SIGNER),
    "a secondary's certificate": secondary_leaf(SIGNER),
    "another authority, other names": server_leaf(new_signer()),
    "a primary below, the upper one's names": Leaf(*_company_leaf(SIGNER.authority.stable_name)),
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
async def test_the_pin_refuses_every_other_certificate(impostor: str) -> None:
    """Attacks rows 8 and 20."""
    expected = channel.pin(server_leaf(SIGNER).certificate)
    async with pretending(SIGNER, IMPOSTORS[impostor]) as primary:
        with pytest.raises(Refused) as caught:
            await describe(primary.address, expected)
        assert caught.value.reason is Reason.UNREACHABLE


async def test_nothing_travels_in_clear() -> None:
    """Attacks row 21: before a plaintext server there is a TLS handshake and silence."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.close()

    async with listening(listen) as address, dial(address, channel.pin(server_leaf(SIGNER).certificate)) as dialled:
        stub = registration_pb2_grpc.RegistrationServiceStub(dialled)
        with pytest.raises(Refused):
            await channel.answer(stub.Validate(registration_pb2.ValidateRequest(api_key="planted-secret"), timeout=5))
    assert heard[:2] == b"\x16\x03"  # a TLS handshake record (RFC 8446, 5.1)
    assert b"planted-secret" not in heard


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with pretending(SIGNER) as primary:
        await describe(primary.address, channel.pin(primary.leaf.certificate))
