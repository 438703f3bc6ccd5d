"""Certificates for a local server: an authority of one's own, and a certificate signed by it.

    folder/ca.pem        the authority's certificate: what clients are told to trust     0644
    folder/ca.key        its key (PKCS #8 PEM)                                           0600
    folder/server.pem    the server's certificate, then the authority's                  0644
    folder/server.key    its key                                                         0600

Not here: certificates from elsewhere, which are only loaded. Rules: ECDSA P-256; the authority lives ten
years, a certificate 397 days, the longest that platforms accept; it is issued anew when the host names or the
authority change or 30 days before its end. Files appear whole or not at all. `cryptography` and `ssl` are
imported when needed, to keep the start of a server without TLS quick.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from .clock import SystemClock

if TYPE_CHECKING:
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 397
RENEW_DAYS = 30
BACKDATED = timedelta(hours=24)
"""Before now, so that a client whose clock is behind accepts a fresh certificate."""

_HOST = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,126}")


def ensure_authority(folder: Path, now: int | None = None) -> tuple[Path, Path]:
    """(certificate, key) of the local authority in `folder`, created if missing or near its end.

    `now` is ms, the system's time by default. Raises OSError; ValueError if the files there are no
    authority.
    """
    moment = _moment(now)
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    if certificate_path.exists() and key_path.exists():
        certificate = _load_certificate(certificate_path)
        _check_pair(certificate, key_path)
        if certificate.not_valid_after_utc - moment > timedelta(days=RENEW_DAYS):
            return certificate_path, key_path
    _issue_authority(certificate_path, key_path, moment)
    return certificate_path, key_path


def ensure_certificate(folder: Path, hosts: Sequence[str] = (), now: int | None = None) -> tuple[Path, Path]:
    """(certificate chain, key) for the local names and `hosts`, which may be names, `*.` names or addresses.

    Kept while it fits, issued anew otherwise. Raises OSError, ValueError.
    """
    moment = _moment(now)
    authority = ensure_authority(folder, now)
    names = sorted({_host(host) for host in (*LOCAL_HOSTS, *hosts)})
    certificate_path, key_path = folder / "server.pem", folder / "server.key"
    if not _fits(certificate_path, key_path, authority[0], names, moment):
        _issue_certificate(certificate_path, key_path, authority, names, moment)
    return certificate_path, key_path


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for a server: TLS 1.2 and later. Raises OSError or ssl.SSLError if the files do not load."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # AMQP and HTTP/1.1 clients are long-lived; compression leaks (CRIME), renegotiation costs.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate, key)
    return context


def _moment(now: int | None) -> datetime:
    milliseconds = SystemClock().now() if now is None else now
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def _host(host: str) -> str:
    host = host.strip().strip("[]").lower().rstrip(".")
    if (address := _address(host)) is not None:
        return str(address)
    try:
        # Certificates carry names outside ASCII in their encoded form.
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ValueError(f"'{host}' is not a host name or address (without port) for a certificate.")
    return name


def _fits(certificate: Path, key: Path, authority: Path, names: list[str], moment: datetime) -> bool:
    try:
        leaf = _load_certificate(certificate)
        _check_pair(leaf, key)
        leaf.verify_directly_issued_by(_load_certificate(authority))
    except Exception:
        # Missing, damaged, or of an older authority: in every case the answer is a new one.
        return False
    return _names(leaf) == names and leaf.not_valid_after_utc - moment > timedelta(days=RENEW_DAYS)


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(str(name.value) for name in names)


def _issue_authority(certificate_path: Path, key_path: Path, moment: datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Hubbub local authority")
    certificate = (
        _builder(name, name, key, moment, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_pem(key), 0o600)
    _write(certificate_path, _certificate_pem(certificate), 0o644)


def _issue_certificate(
    certificate_path: Path,
    key_path: Path,
    authority: tuple[Path, Path],
    names: Iterable[str],
    moment: datetime,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer, issuer_key = _load_certificate(authority[0]), _load_key(authority[1])
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(_name("Hubbub"), issuer.subject, key, moment, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    _write(key_path, _key_pem(key), 0o600)
    _write(certificate_path, _certificate_pem(certificate) + _certificate_pem(issuer), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, moment: datetime, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + timedelta(days=days) - BACKDATED)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _load_certificate(path: Path) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificate(path.read_bytes())


def _load_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not an elliptic-curve key.")
    return key


def _check_pair(certificate: x509.Certificate, key_path: Path) -> None:
    if certificate.public_key() != _load_key(key_path).public_key():
        raise ValueError(
            f"{key_path} is not the key of the certificate beside it; remove both to start anew."
        )


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp opens with 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
