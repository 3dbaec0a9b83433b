"""Keys in DER that no library makes any more."""

from __future__ import annotations

# The 2048-bit group of RFC 3526, section 3. A parser that tests whether it is sound takes some tenths of a second.
_PRIME = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404ddef9519b3"
    "cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7edee386bfb5a899fa5"
    "ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f356"
    "208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3be39e772c180e86039b2783a2ec07a28f"
    "b5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa051015728e5a8aacaa68ffffffffffffffff",
    16,
)
_KEY_AGREEMENT = bytes.fromhex("06092a864886f70d010301")  # the object identifier of PKCS #3


def diffie_hellman() -> bytes:
    """The SubjectPublicKeyInfo of a Diffie-Hellman key: cheap to send, dear to parse."""
    group = _tagged(0x30, _integer(_PRIME) + _integer(2))
    return _tagged(0x30, _tagged(0x30, _KEY_AGREEMENT + group) + _tagged(0x03, b"\0" + _integer(4)))


def with_key(certificate: bytes, old: bytes, new: bytes) -> bytes:
    """A certificate (longer than 255 bytes) with another SubjectPublicKeyInfo, and so with a signature that no longer holds."""
    der, longer = bytearray(certificate.replace(old, new)), len(new) - len(old)
    for at in (2, 6):  # the certificate's length, and that of what is signed
        der[at : at + 2] = (int.from_bytes(der[at : at + 2], "big") + longer).to_bytes(2, "big")
    return bytes(der)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, content: bytes) -> bytes:
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content if len(content) > 255 else bytes([tag, 0x81, len(content)]) + content
