"""Certificates for the demo and for tests: an authority, and what it signs, as files."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sahool_dlq.embedded.private import write_private

_DAY = timedelta(days=1)


class Authority:
    """A certificate authority; clients trust it by `file`."""

    def __init__(self, home: Path, name: str = "Test CA") -> None:
        self._home = home
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self._name, self._key, -60, 90)
        builder = builder.add_extension(constraints, critical=True).add_extension(usage, True)
        self.file = home / "ca.pem"
        self.file.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *hosts: str, from_days: int = -60, days: int = 30) -> str:
        """A `tls` block's lines, with a certificate for these hosts, valid between these days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = self._builder(subject, key, from_days, days).add_extension(
            alternatives, critical=False
        )
        certificate, private = self._home / f"{name}.pem", self._home / f"{name}.key"
        certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_private(private, secret.decode())
        return f'cert_file: "{certificate}", key_file: "{private}"'

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, from_days: int, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + from_days * _DAY)
            .not_valid_after(now + days * _DAY)
            .add_extension(identifier, critical=False)
            .add_extension(issuer, critical=False)
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
