"""The server's TLS certificate: read from files, made on request, and replaced while the server runs.

To change the certificate, replace its files, as certbot and similar programs do. The server checks them every few
seconds. Connections that are open keep the old certificate, new ones get the new one. Files that can't be read, or that
do not belong together because only one of them is written yet, are tried again at the next check; until then the old
certificate remains. A certificate that has expired does not replace a valid one.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import socket
import ssl
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeAlias

from atomstream.errors import ConfigError
from atomstream.server.settings import ServerSettings
from atomstream.system.files import write_private
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_link

log = get_logger("atomstream.server")

CERTIFICATE_FILE: Final = "tls-cert.pem"
KEY_FILE: Final = "tls-key.pem"
CHECK_PERIOD_S: Final = 5.0
"""Interval, in s, at which the files are checked."""
MAX_BYTES: Final = 1 << 20
"""Longest file of a certificate with its chain, or of a key."""
VALID_DAYS: Final = 3650
"""Validity of a self-signed certificate. A client that pins it does not check the date."""

_State: TypeAlias = "tuple[tuple[int, int, int], ...]"


class ServerCertificate:
    """A certificate (a PEM file, with the chain to its authority if there is one) and its key (PEM, not encrypted).

    Raises:
        ConfigError: a file can't be read, is not PEM, or the key is not that of the certificate.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._state = self._files()
        self.fingerprint = ""
        """SHA-256 of the certificate (DER) in hexadecimal digits."""
        self._current, self.fingerprint, self._ends = _load(certificate, key)
        if _is_over(self._ends):
            log.warning(
                "The TLS certificate %s expired on %s UTC: clients refuse it, unless they pin its fingerprint.",
                certificate,
                f"{self._ends:%Y-%m-%d %H:%M}",
            )
        self._failed: _State | None = None
        self.context = _new_context()
        """For the listening socket; each handshake uses the newest certificate."""
        self.context.load_cert_chain(certificate, key, password=_no_password)
        self.context.sni_callback = self._select

    def _select(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: object) -> None:
        # A handshake that failed half-way in the same context would leave it without a key. So a context never changes.
        connection.context = self._current

    def reload(self) -> bool:
        """Read the files again if they have changed; True if the server has another certificate now."""
        state = self._files()
        if state in (self._state, self._failed):
            return False
        try:
            context, fingerprint, ends = _load(*self._paths)
            if _is_over(ends) and not _is_over(self._ends):
                raise ConfigError(f"{self._paths[0]} expired on {ends:%Y-%m-%d %H:%M} UTC.")
        except ConfigError as error:
            self._failed = state
            log.warning("The old TLS certificate remains: %s", error)
            return False
        changed = fingerprint != self.fingerprint
        self._current, self.fingerprint, self._ends = context, fingerprint, ends
        self._state, self._failed = state, None
        if changed:
            log.warning("The TLS certificate was replaced; new SHA-256 fingerprint: %s", fingerprint)
        return changed

    async def watch(self) -> None:
        """Check the files every few seconds, for as long as the server runs."""
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            await asyncio.to_thread(self.reload)

    def _files(self) -> _State:
        """What changes with the files' content; links are followed, because programs change them to new files."""
        found = []
        for path in self._paths:
            try:
                one = os.stat(path)
                found.append((one.st_mtime_ns, one.st_size, one.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)


def load_certificate(settings: ServerSettings) -> ServerCertificate | None:
    """The certificate of a server: from the given files, or its own self-signed one; None without TLS.

    Raises:
        ConfigError: the files can't be used, or a self-signed pair can't be made.
    """
    if settings.tls_cert is not None and settings.tls_key is not None:
        return ServerCertificate(settings.tls_cert, settings.tls_key)
    if settings.tls == "self-signed":
        return ServerCertificate(*self_signed_pair(settings))
    return None


def self_signed_pair(settings: ServerSettings) -> tuple[Path, Path]:
    """The files of the server's own certificate and key in its data folder, made at the first call.

    The certificate is for this computer's names, the loopback addresses, and the addresses and names in the settings.

    Raises:
        ConfigError: one of the two files is missing, one is a link, or they can't be written.
    """
    certificate, key = settings.data_dir / CERTIFICATE_FILE, settings.data_dir / KEY_FILE
    for path in (certificate, key):
        if is_link(path):
            raise ConfigError(
                f"{path} is a link, which the server does not follow. Name the files by --tls-cert."
            )
    if certificate.exists():
        if not key.exists():
            raise ConfigError(
                f"{key} is missing. Restore it, or remove {certificate} to have a new pair made; clients that pin the "
                "old certificate need the new fingerprint then."
            )
        return certificate, key
    made, private = _make_self_signed(_names(settings))
    try:
        write_private(key, private)  # the certificate last: where it exists, the pair is complete
        write_private(certificate, made)
    except OSError as error:
        raise ConfigError(f"The TLS certificate can't be stored in {settings.data_dir}: {error}.") from None
    return certificate, key


def _names(settings: ServerSettings) -> list[str]:
    own = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn(), *settings.allowed_hosts]
    public = [settings.public_host] if settings.public_host else []
    names = [*own, settings.host, *public]
    return [name for name in dict.fromkeys(name.lower() for name in names) if not _is_wildcard(name)]


def _is_wildcard(name: str) -> bool:
    try:
        return ip_address(name).is_unspecified
    except ValueError:
        return not name


def _make_self_signed(names: list[str]) -> tuple[bytes, bytes]:
    """A new certificate for ``names`` and its key (P-256), both PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ModuleNotFoundError:
        raise ConfigError(
            "A self-signed certificate needs the package cryptography: pip install 'atomstream[server]'. "
            "Or give files by --tls-cert and --tls-key."
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "atomstream")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the clock of a client may be behind
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    alternatives: list[x509.GeneralName] = []
    for one in names:
        try:
            alternatives.append(x509.IPAddress(ip_address(one)))
        except ValueError:
            try:
                alternatives.append(x509.DNSName(one.encode("idna").decode()))
            except ValueError:  # a name that the DNS can't have
                continue
    certificate = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False).sign(
        key, hashes.SHA256()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_context() -> ssl.SSLContext:
    """Settings for a server: TLS 1.2 or newer, without compression."""
    return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)


def _no_password() -> bytes:
    return b""  # without this an encrypted key would make OpenSSL ask on the terminal


def _load(certificate: Path, key: Path) -> tuple[ssl.SSLContext, str, datetime.datetime | None]:
    """A context with this certificate, the certificate's SHA-256, and the time at which it expires."""
    context = _new_context()
    text = _read(certificate)
    _read(key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        first = _first_certificate(text)
        return context, hashlib.sha256(first).hexdigest(), _end_of(first)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(
            f"The TLS certificate {certificate} can't be used with the key {key} ({_reason(error)}). Both must be "
            "PEM files, the key without a password and that of the certificate."
        ) from None


def _read(path: Path) -> bytes:
    """The content of a PEM file; raises ConfigError, also for a pipe or a device, which may have no end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"The TLS file {path} can't be read: it is not a file.")
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The TLS file {path} can't be read: {error.strerror or error}.") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(f"The TLS file {path} is longer than {MAX_BYTES} bytes.")
    return text


def _end_of(certificate: bytes) -> datetime.datetime | None:
    """When a certificate (DER) expires; None if that is unknown, as without the package cryptography."""
    try:
        from cryptography import x509
    except ModuleNotFoundError:
        return None
    try:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion):  # OpenSSL reads some that this package does not
        return None


def _is_over(ends: datetime.datetime | None) -> bool:
    return ends is not None and ends < datetime.datetime.now(datetime.UTC)


def _first_certificate(text: bytes) -> bytes:
    """The first certificate of a PEM file, which is the server's own, as DER."""
    end = b"-----END CERTIFICATE-----"
    begin = text.index(b"-----BEGIN CERTIFICATE-----")
    block = text[begin : text.index(end, begin) + len(end)]
    return ssl.PEM_cert_to_DER_cert(block.decode("ascii"))


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error)
