"""The local authority and its certificates, up to a real handshake in memory."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from hubbub.tls import ensure_authority, ensure_certificate, server_context

NOW = 1_700_000_000_000
DAY = 86_400_000


def handshake(
    server: ssl.SSLContext, trusted: Path, host: str, version: ssl.TLSVersion | None = None
) -> ssl.SSLObject:
    """Joins both ends in memory; the client's side after the handshake. Raises ssl.SSLError."""
    context = ssl.create_default_context(cafile=str(trusted))
    if version is not None:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        context.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ends[0].write(b"ping")
    assert ends[1].read(4) == b"ping"
    return ends[0]


HOSTS = ("contoso.servicebus.windows.net", "*.servicebus.windows.net", "HUBBUB", "10.1.2.3", "bücher.example")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "contoso.servicebus.windows.net",
        "x.servicebus.windows.net",
        "hubbub",
        "10.1.2.3",
    ],
)
def test_clients_that_trust_the_authority_connect(tmp_path: Path, host: str) -> None:
    context = server_context(*ensure_certificate(tmp_path, HOSTS))
    trusted, _ = ensure_authority(tmp_path)
    assert handshake(context, trusted, host).version() == "TLSv1.3"


def test_names_that_are_not_in_it(tmp_path: Path) -> None:
    context = server_context(*ensure_certificate(tmp_path))
    trusted, _ = ensure_authority(tmp_path)
    for host in ("contoso.servicebus.windows.net", "10.1.2.3"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            handshake(context, trusted, host)


def test_a_client_that_trusts_another_authority(tmp_path: Path) -> None:
    context = server_context(*ensure_certificate(tmp_path / "one"))
    stranger, _ = ensure_authority(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, stranger, "localhost")


def test_versions(tmp_path: Path) -> None:
    context = server_context(*ensure_certificate(tmp_path))
    trusted, _ = ensure_authority(tmp_path)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert handshake(context, trusted, "localhost", ssl.TLSVersion.TLSv1_2).version() == "TLSv1.2"


def test_strict_clients_accept_it(tmp_path: Path) -> None:
    context = server_context(*ensure_certificate(tmp_path))
    trusted, _ = ensure_authority(tmp_path)
    strict = ssl.create_default_context(cafile=str(trusted))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = strict.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    server.do_handshake()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_kept_while_they_fit(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["b", "a"], NOW)
    first = contents(tmp_path)
    assert set(first) == {"ca.pem", "ca.key", "server.pem", "server.key"}
    ensure_certificate(tmp_path, ["a", "B.", "localhost"], NOW + DAY)
    assert contents(tmp_path) == first


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    ensure_certificate(tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}


def test_reissued_for_other_hosts_by_the_same_authority(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["a"], NOW)
    before = contents(tmp_path)
    ensure_certificate(tmp_path, ["a", "b"], NOW)
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"server.pem", "server.key"}


def test_reissued_near_its_end(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, [], NOW)
    before = contents(tmp_path)
    ensure_certificate(tmp_path, [], NOW + 365 * DAY)
    assert contents(tmp_path) == before
    ensure_certificate(tmp_path, [], NOW + 367 * DAY)
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"server.pem", "server.key"}


def test_the_authority_is_renewed_near_its_end_and_with_it_the_certificate(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, [], NOW)
    before = contents(tmp_path)
    ensure_certificate(tmp_path, [], NOW + 3640 * DAY)
    after = contents(tmp_path)
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_damaged_certificate_is_replaced(tmp_path: Path, name: str, content: bytes | None) -> None:
    ensure_certificate(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    context = server_context(*ensure_certificate(tmp_path))
    handshake(context, tmp_path / "ca.pem", "localhost")


def test_a_damaged_authority_is_not_replaced_silently(tmp_path: Path) -> None:
    ensure_authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="PEM"):
        ensure_authority(tmp_path)


def test_files_of_two_authorities(tmp_path: Path) -> None:
    ensure_authority(tmp_path / "one")
    ensure_authority(tmp_path / "two")
    (tmp_path / "two" / "ca.key").replace(tmp_path / "one" / "ca.key")
    with pytest.raises(ValueError, match="remove both"):
        ensure_certificate(tmp_path / "one")


@pytest.mark.parametrize(
    "host", ["", "a b", "host:443", "http://x", "-" * 64, "x" * 300, "ü" * 100, "*", "a.*.b"]
)
def test_hosts_are_checked(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        ensure_certificate(tmp_path, [host])
