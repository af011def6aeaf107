"""NKeys with the test vectors of RFC 8032 and CRC-16/XMODEM, and a pair from NATS' docs."""

import base64
import binascii
import builtins
from typing import Any

import pytest

from sahool_dlq.errors import MissingPackageError
from sahool_dlq.jetstream.nkeys import check_installed, public_key, seed_fault, sign

# A user of the NATS documentation (running-a-nats-service, nkey_auth).
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

# RFC 8032, 7.1: secret key, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
            "f9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
            "f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
]


def seed_of(secret: str) -> str:
    """As NATS writes it: the prefixes S and U in ten bits, the key, and the checksum."""
    raw = b"\x95\x00" + bytes.fromhex(secret)
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_a_signature_is_that_of_rfc_8032(
    secret: str, public: str, message: str, signature: str
) -> None:
    seed = seed_of(secret)
    assert seed_fault(seed) is None
    text = bytes.fromhex(message).decode()
    assert base64.b64decode(sign(seed, text)) == bytes.fromhex(signature)
    written = base64.b32decode(public_key(seed))
    assert written[0] == 20 << 3
    assert written[1:-2] == bytes.fromhex(public)


def test_the_checksum_is_crc_16_xmodem() -> None:
    assert binascii.crc_hqx(b"123456789", 0) == 0x31C3  # the check value of the catalogue


def test_a_documented_seed_gives_its_documented_public_key() -> None:
    assert seed_fault(SEED) is None
    assert public_key(SEED) == PUBLIC


@pytest.mark.parametrize("at", range(2, len(SEED)))
def test_one_wrong_letter_is_reported(at: int) -> None:
    other = "A" if SEED[at] != "A" else "B"
    assert seed_fault(SEED[:at] + other + SEED[at + 1 :]) is not None


def test_without_cryptography_one_sentence_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingPackageError, match=r"pip install 'sahool-dlq\[nkeys\]'\.$"):
        check_installed()
