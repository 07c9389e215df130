"""The keys of a home: its CA, the server's certificate for loopback, client certificates, the token secret.

Files in one directory that only the owner may read. What is there is used again unless it runs out within a month or is
damaged; `cryptography` is loaded only when something has to be made. Blocking, a few milliseconds each.
"""

import contextlib
import os
import re
import secrets
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

VALID = timedelta(days=3650)
LEAST_LEFT = timedelta(days=30)
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
SERVER_ADDRESSES = ("127.0.0.1", "::1")


class Pair(Struct, frozen=True):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Pki:
    """`now` decides what has run out."""

    def __init__(self, directory: Path, *, now: datetime | None = None) -> None:
        self.directory = directory
        self._now = now or datetime.now(UTC)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def ca(self) -> Path:
        """The CA's certificate. A new one makes every other certificate new."""
        pair = self._pair("ca")
        if not self._is_good(pair.certificate) or not pair.key.exists():
            self._make("ca", common_name="hotvirt home CA")
        return pair.certificate

    def server(self, names: tuple[str, ...] = ()) -> Pair:
        """For loopback, and `names` (host names or addresses) if the home is to be reached by others."""
        self._refresh("server", common_name="hotvirt", names=(*SERVER_NAMES, *SERVER_ADDRESSES, *names))
        return self._pair("server")

    def client(self, name: str, groups: tuple[str, ...] = (), *, file: str = "") -> Pair:
        """For a user `name` in `groups`, in `<file>.crt` and `.key`."""
        file = file or re.sub(r"[^A-Za-z0-9._-]", "-", name)
        self._refresh(file, common_name=name, groups=groups)
        return self._pair(file)

    def token_secret(self) -> bytes:
        path = self.directory / "tokens.key"
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) >= 32:
                return found
        made = secrets.token_bytes(32)
        _write(path, made)
        return made

    def server_context(self, names: tuple[str, ...] = ()) -> ssl.SSLContext:
        """TLS as the server speaks it: asks for a client certificate of our CA, and goes on without one."""
        pair, ca = self.server(names), self.ca
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _pair(self, name: str) -> Pair:
        return Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def _refresh(self, name: str, **wanted: Any) -> None:
        pair, ca = self._pair(name), self.ca
        is_newer = pair.certificate.exists() and pair.certificate.stat().st_mtime_ns >= ca.stat().st_mtime_ns
        if not is_newer or not pair.key.exists() or not self._is_good(pair.certificate):
            self._make(name, **wanted)

    def _is_good(self, certificate: Path) -> bool:
        """Read by the standard library's own decoder, to spare the start `cryptography`."""
        try:
            decode: Any = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]  # noqa: SLF001
            end = ssl.cert_time_to_seconds(decode(str(certificate))["notAfter"])
        except (OSError, ssl.SSLError, KeyError, ValueError):
            return False
        return end > (self._now + LEAST_LEFT).timestamp()

    def _make(self, name: str, *, common_name: str, groups: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name, groups)
        is_ca = name == "ca"
        issuer, signer = (subject, key) if is_ca else self._load_ca()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(hours=1))
            .not_valid_after(self._now + VALID)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
            .add_extension(_usage(is_ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if not is_ca:
            purposes = x509.oid.ExtendedKeyUsageOID
            purpose = purposes.SERVER_AUTH if names else purposes.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        pem = serialization.Encoding.PEM
        plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pair = self._pair(name)
        _write(pair.key, plain)
        _write(pair.certificate, certificate.public_bytes(pem))

    def _load_ca(self) -> "tuple[x509.Name, EllipticCurvePrivateKey]":
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pair = self._pair("ca")
        key: Any = load_pem_private_key(pair.key.read_bytes(), None)
        return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).subject, key


def _name(common_name: str, groups: tuple[str, ...]) -> "x509.Name":
    from cryptography import x509

    oid = x509.oid.NameOID
    parts = [x509.NameAttribute(oid.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(oid.COMMON_NAME, common_name)])


def _usage(is_ca: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=is_ca, crl_sign=is_ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternatives(names: tuple[str, ...]) -> "list[x509.GeneralName]":
    import ipaddress

    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)
