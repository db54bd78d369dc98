"""Make what a broker needs to know who is who: an authority, a certificate, passwords.

ca.pem                 who signs the broker's certificate; its key is thrown away
broker.pem             the broker's key and certificate
<principal>.password   one random password each

All files are for their owner only. Clients show a password (SCRAM-SHA-512, inside TLS). The
broker shows its own certificate to the controller in the same process: it is the only one there
is, so nobody else gets in there.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.stack.plan import SECRETS
from messaging.errors import InputRefused

SETUP = "setup"  # may do everything; used to make topics and grants, by no process of the stack
HOSTS = ("localhost", "127.0.0.1")
VALID = timedelta(days=3_650)
SKEW = timedelta(days=1)  # that another machine's clock may be behind
PASSWORD_BYTES = 24
_BROKER = "broker"

_SETTINGS = """\
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.enabled.protocols=TLSv1.3
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.controller.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:{setup};User:CN={broker}
"""


class Secure(NamedTuple):
    """What `prepare_secure` has made, in the folder where it is."""

    folder: Path

    @property
    def ca_file(self) -> Path:
        """Return the file that says who signs the broker's certificate."""
        return self.folder / "ca.pem"

    def settings(self, folder: Path) -> str:
        """Return settings of a broker that works in `folder`."""
        return _SETTINGS.format(
            keys=_path(self.folder / f"{_BROKER}.pem", folder),
            authority=_path(self.ca_file, folder),
            setup=SETUP,
            broker=_BROKER,
        )

    @contextmanager
    def credentials(self) -> Iterator[Path]:
        """Yield a file of arguments that give the broker all passwords; it is deleted then."""
        path = self.folder / "credentials"
        path.unlink(missing_ok=True)  # of a start that was killed
        words = []
        for file in sorted(self.folder.glob("*.password")):
            credential = f"name={file.stem},password={file.read_text().strip()}"
            words += ["--add-scram", f"SCRAM-SHA-512=[{credential}]"]
        _write(path, "\n".join(words).encode())
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def prepare_secure(folder: Path, principals: Iterable[str], hosts: Iterable[str] = HOSTS) -> Secure:
    """Make the secrets of a stack in `folder`/secrets, or return those that it has.

    Args:
        folder: of the stack.
        principals: who gets a password, besides the one who sets up.
        hosts: names and addresses that clients know the broker by.

    Raises:
        InputRefused: the folder has secrets, but not of these principals; or cannot be written.
    """
    names = tuple(dict.fromkeys((SETUP, *principals)))
    secure = Secure(folder.absolute() / SECRETS)
    if secure.folder.is_dir():
        for name in names:
            path = secure.folder / f"{name}.password"
            if not path.is_file():
                raise InputRefused(str(path), expected="a password", found="none")
        return secure
    fresh = secure.folder.with_name(f"{SECRETS}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)  # of a start that was interrupted
        fresh.mkdir(parents=True, mode=0o700)
        authority, keys = certificates(hosts)
        _write(fresh / "ca.pem", authority)
        _write(fresh / f"{_BROKER}.pem", keys)
        for name in names:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            _write(fresh / f"{name}.password", f"{password}\n".encode())
        fresh.rename(secure.folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(secure.folder), expected="a folder to write", found=reason) from None
    return secure


def certificates(hosts: Iterable[str]) -> tuple[bytes, bytes]:
    """Return PEM of a new authority, and of a key and certificate that it signs for a broker."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    signer = authority_key.public_key()
    issuer = _name("omnimargin local authority")
    authority = (
        _certificate(issuer, signer, issuer, signer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certifies=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _certificate(_name(_BROKER), key.public_key(), issuer, signer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certifies=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_host, hosts)), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return authority.public_bytes(Encoding.PEM), private + certificate.public_bytes(Encoding.PEM)


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    by, of = x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
        .add_extension(of.from_public_key(key), critical=False)
        .add_extension(by.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=certifies,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _path(path: Path, start: Path) -> str:
    """Return a path from `start`, as a file of Java properties has it."""
    return json.dumps(os.path.relpath(path, start))[1:-1]


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
