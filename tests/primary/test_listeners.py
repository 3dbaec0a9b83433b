"""The listeners and the certificates they serve: `rpc.listeners`, and what `app` does with them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from enlist import certificates, joinline
from enlist.channel import PROTOCOL
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, registration_pb2, trust_pb2
from enlist_primary import app
from enlist_primary.config import Certificates, Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.founding import found
from enlist_primary.rpc import listeners
from tests.support.dialling import dial, served
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary, serving
from tests.support.links import open_link
from tests.support.ports import free_port
from tests.support.waiting import eventually


def pem(key: Any) -> bytes:
    """A private key."""
    form = serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


class Company:
    """The company's own CA, of which Enlist knows nothing."""

    def __init__(self) -> None:
        self._key = certificates.new_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company CA")])

    def make(self, key: Any) -> bytes:
        """A certificate for this host."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=30))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def install(folder: Path, key: Any, certificate: bytes) -> Certificates:
    """Puts both where the configuration names them."""
    for name, data in (("company.key", pem(key)), ("company.pem", certificate)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return Certificates(lifetime="30d", api_certificate="company.pem", api_key_file="company.key")


LOOPBACK = Config(name="Primary", listen="127.0.0.1", ssl_port=0, api_port=0)


def configured(**fields: Any) -> Config:
    """A configuration on loopback."""
    return msgspec.structs.replace(LOOPBACK, **fields)


@pytest.fixture
async def folder(tmp_path: Path) -> DataFolder:
    """A founded data folder."""
    folder = DataFolder(tmp_path / "primary")
    await found(folder, configured(), int(time.time()))
    return folder


async def refused_to_serve(folder: DataFolder, config: Config) -> Refused:
    """Why this configuration is not served."""
    with pytest.raises(Refused) as raised:
        async with serving(folder, config):
            pass
    return raised.value


# --- Swapping ------------------------------------------------------------------------------------------------------------------


async def test_new_connections_get_the_new_certificate_and_open_links_stay(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        asker = Asker(running)
        id = (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id
        async with asker.at_ssl_port() as trusted:
            link = await open_link(trusted, asker)
            before = [await served(port) for port in (running.ssl, running.api)]
            running.primary.renew_certificates()
            after = [await served(port) for port in (running.ssl, running.api)]
            assert not set(before) & set(after)
            assert all(
                certificates.is_server_leaf_of(certificates.load(leaf), running.authority, int(time.time())) for leaf in after
            )
            assert not link.stream.done()
            assert (await running.server(id)).connected
            described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))
            assert certificates.statement_covers(running.authority, after[1], described.leaf_statement)
        async with asker.at_ssl_port() as trusted:  # with a pin on the new leaf
            await open_link(trusted, asker)


async def test_the_primary_s_own_certificates_are_renewed_at_half_life(tmp_path: Path) -> None:
    async with running_primary(tmp_path, certificates=Certificates(lifetime="1s")) as running:
        first = running.primary.context.served.ssl_certificate_ends
        await eventually(lambda: running.primary.context.served.ssl_certificate_ends > first)
        assert certificates.load(await served(running.ssl)) is not None


async def test_a_renewal_that_fails_publishes_nothing_and_the_old_one_is_served_on(tmp_path: Path) -> None:
    """If gRPC's callback raised, or returned nonsense, it would go on in silence: nonsense is refused before."""
    key = certificates.new_key()
    company = Company()
    credential = listeners.Credential(pem(key), company.make(key), None)
    leaf = credential.leaf
    for bad in ((pem(key), b"nonsense"), (b"nonsense", company.make(key)), (pem(certificates.new_key()), company.make(key))):
        with pytest.raises(Refused) as raised:
            credential.publish(*bad)
        assert raised.value.reason is Reason.CONFIG_INVALID
        assert credential._fetch() is None
        assert credential.leaf is leaf
    other = certificates.new_key()
    credential.publish(pem(other), company.make(other))
    assert credential._fetch() is not None
    assert credential._fetch() is None


# --- The company's certificate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
async def test_a_company_certificate_at_the_api_port_comes_with_the_authority_s_statement(folder: DataFolder, kind: str) -> None:
    """trust.md: at the API port only; there the authority signs a statement over the served leaf."""
    makers: dict[str, Callable[[], Any]] = {
        "P-256": certificates.new_key,
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }
    key = makers[kind]()
    made = Company().make(key)
    async with serving(folder, configured(certificates=install(folder.path, key, made))) as running:
        leaf = certificates.load(await served(running.api))
        assert certificates.pem(leaf) == made
        now = int(time.time())
        assert not certificates.is_server_leaf_of(leaf, running.authority, now)
        async with running.stranger() as stub:
            described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))
            assert certificates.answers_for(running.authority, leaf, described.leaf_statement, now)
            await running.admin.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain="acme.example"))
            assert (await Asker(running).register(stub)).server_id
        at_ssl_port = certificates.load(await served(running.ssl))
        assert certificates.is_server_leaf_of(at_ssl_port, running.authority, now)


async def test_a_company_certificate_that_cannot_work_is_refused_at_the_start(folder: DataFolder) -> None:
    key, company = certificates.new_key(), Company()
    good = company.make(key)
    edwards = ed25519.Ed25519PrivateKey.generate()
    p521 = ec.generate_private_key(ec.SECP521R1())
    unfit = [(edwards, company.make(edwards)), (p521, company.make(p521))]  # their handshakes would fail without a word
    for private, certificate in [(key, b"nonsense"), (certificates.new_key(), good), *unfit]:
        refused = await refused_to_serve(folder, configured(certificates=install(folder.path, private, certificate)))
        assert refused.reason is Reason.CONFIG_INVALID
    config = configured(certificates=install(folder.path, key, good))
    (folder.path / "company.key").chmod(0o640)
    assert (await refused_to_serve(folder, config)).reason is Reason.FILE_UNSAFE
    (folder.path / "company.key").unlink()
    refused = await refused_to_serve(folder, config)
    assert refused.reason is Reason.CONFIG_INVALID
    assert "company.key" in refused.message


async def test_a_company_certificate_that_is_replaced_is_served_from_the_next_renewal_on(folder: DataFolder) -> None:
    key, company = certificates.new_key(), Company()
    async with serving(folder, configured(certificates=install(folder.path, key, company.make(key)))) as running:
        newer = company.make(key)
        install(folder.path, key, newer)
        running.primary.reload()
        assert certificates.pem(certificates.load(await served(running.api))) == newer


async def test_a_company_certificate_that_went_missing_stops_neither_the_primary_nor_its_own_renewal(
    folder: DataFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Half-life comes once in a fortnight, perhaps while somebody replaces the files."""
    key, company = certificates.new_key(), Company()
    made = company.make(key)
    install(folder.path, key, made)
    short = Certificates(lifetime="1s", api_certificate="company.pem", api_key_file="company.key")
    async with serving(folder, configured(certificates=short)) as running:
        first = running.primary.context.served.ssl_certificate_ends
        (folder.path / "company.pem").unlink()
        await eventually(lambda: "the certificates stay as they are" in caplog.text)
        await eventually(lambda: running.primary.context.served.ssl_certificate_ends > first)
        assert not running.primary.broken.is_set()
        assert certificates.pem(certificates.load(await served(running.api))) == made


# --- Ports ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def occupied(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server((host, 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("field", "name"), [("ssl_port", "SSL port"), ("api_port", "API port")])
async def test_a_port_in_use_is_named(folder: DataFolder, field: str, name: str) -> None:
    with occupied() as port:
        refused = await refused_to_serve(folder, configured(**{field: port}))
    assert refused.reason is Reason.PORT_IN_USE
    assert f"The {name}, {port}, is in use" in refused.message


async def test_a_second_primary_on_the_same_port_is_refused_and_takes_no_connection_away(
    folder: DataFolder, tmp_path: Path
) -> None:
    """`SO_REUSEPORT` would let it in, and give it half of the connections."""
    async with running_primary(tmp_path / "first") as first:
        refused = await refused_to_serve(folder, configured(api_port=first.api.port))
        assert refused.reason is Reason.PORT_IN_USE
        leaves = {await served(first.api) for _ in range(8)}
        assert len(leaves) == 1


async def test_an_address_that_is_not_this_machine_s_is_named(folder: DataFolder) -> None:
    refused = await refused_to_serve(folder, configured(listen="192.0.2.1"))
    assert refused.reason is Reason.CONFIG_INVALID
    assert "192.0.2.1" in refused.message


async def test_advertised_names_have_one_form_in_certificates_and_join_lines(tmp_path: Path) -> None:
    advertise = ("Primary.Example.", "bücher.example")
    async with running_primary(tmp_path, advertise=advertise) as running:
        leaf = certificates.load(await served(running.api))
        names = certificates.extension(leaf, x509.SubjectAlternativeName)
        assert names is not None
        assert names.get_values_for_type(x509.DNSName)[1:] == ["primary.example", "xn--bcher-kva.example"]
        request = trust_pb2.InviteServersRequest(parent=f"accounts/{ACCOUNT}", invitees=[trust_pb2.Invitee()])
        (invitation,) = (await running.admin.trust.InviteServers(request)).invitations
        assert joinline.parse(invitation.join_line).address.host == "primary.example"


async def test_an_ipv6_address_is_listened_at(folder: DataFolder) -> None:
    async with serving(folder, configured(listen="::1")) as running:
        assert await served(Address("::1", running.api.port))
        with pytest.raises(Refused):
            await served(Address("127.0.0.1", running.api.port))


async def test_every_address_is_ipv4_and_ipv6(folder: DataFolder) -> None:
    async with serving(folder, configured(listen="::", api_port=free_port("::"))) as running:
        for host in ("::1", "127.0.0.1"):
            assert await served(Address(host, running.api.port))


async def test_after_a_failed_start_the_folder_is_free_again(folder: DataFolder) -> None:
    with occupied() as port:
        await refused_to_serve(folder, configured(api_port=port))
    async with serving(folder, configured()) as running:
        assert await served(running.api)


# --- Health and reflection -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One primary without reflection."""
    async with running_primary(tmp_path_factory.mktemp("listeners")) as running:
        yield running


async def test_health_says_serving_to_anyone_and_not_serving_when_it_stops(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "GRACE_SECONDS", 0.3)
    serves, stops = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    told = []
    async with serving(folder, configured()) as running:
        pin = await running.pin(running.api)
        on = dial(running.api, pin)
        stub: Any = health_pb2_grpc.HealthStub(on)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == serves
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        told.append((await watch.read()).status)
        reading = asyncio.create_task(watch.read())
    told.append((await reading).status)
    await on.close()
    assert told == [serves, stops]


async def test_without_the_flag_there_is_no_reflection(running: Running) -> None:
    async with dial(running.api, await running.pin(running.api)) as on:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(on)  # type: ignore[arg-type]  # its stubs know the other API only
        call = stub.ServerReflectionInfo()  # and nothing is sent: it would race with the answer
        with pytest.raises(Exception, match="Method not found"):
            await call.read()
