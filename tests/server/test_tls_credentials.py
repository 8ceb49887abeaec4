"""What a server needs for TLS, what its clients get, and what is wrong with either."""

from __future__ import annotations

import os
import platform
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fakenbd.conversation import Handshake
from fakenbd.errors import ServeError
from fakenbd.faults import Fault, When, make_kind
from fakenbd.profile import Profile
from fakenbd.protocol.uri import Uri
from fakenbd.server import TLS, prepare
from fakenbd.server.certificates import Authority
from fakenbd.server.factory import close
from fakenbd.server.tls import TLSCredentials

HOSTS = ("localhost",)
CLIENTS_FILES = ["ca-cert.pem", "client-cert.pem", "client-key.pem"]
PSK = getattr(ssl, "HAS_PSK", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates as others make them, without the key of the CA."""
    path = tmp_path_factory.mktemp("certificates")
    authority = Authority.made(HOSTS)
    (path / "ca-cert.pem").write_bytes(authority.ca)
    (path / "server-cert.pem").write_bytes(authority.good.chain)
    (path / "server-key.pem").write_bytes(authority.good.key)
    return path


@pytest.fixture
def security():
    made = []

    def make(*hosts, **options):
        made.append(TLSCredentials.of(TLS(**options), hosts))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- what clients get ----------------------------------------------------------------------------


def test_made_certificates_are_laid_out_for_libnbd_and_qemu(security):
    made = security()
    assert sorted(os.listdir(made.directory)) == CLIENTS_FILES
    assert made.ca_file == os.path.join(made.directory, "ca-cert.pem")
    assert made.psk_file == ""
    assert made.parameters() == {"tls_certificates": made.directory}
    assert stat.S_IMODE(os.stat(made.directory).st_mode) == 0o700
    modes = {os.stat(os.path.join(made.directory, name)).st_mode for name in CLIENTS_FILES}
    assert {stat.S_IMODE(mode) for mode in modes} == {0o600}


def test_nothing_is_left_behind():
    server = prepare(size=512, tls=TLS("required"))
    folder = server.security.directory
    assert Path(folder).is_dir()
    close(server)
    assert not Path(folder).exists()


def test_a_given_folder_is_what_clients_get(security, folder):
    given = security(certificates=folder)
    assert given.directory == str(folder)
    assert given.ca_file == str(folder / "ca-cert.pem")


def test_given_files(security, folder):
    files = {"certificate": folder / "server-cert.pem", "key": folder / "server-key.pem"}
    given = security(**files, ca=folder / "ca-cert.pem")
    assert os.listdir(given.directory) == ["ca-cert.pem"]
    assert Path(given.ca_file).read_bytes() == (folder / "ca-cert.pem").read_bytes()
    alone = security(**files)
    assert Path(alone.ca_file).read_bytes() == (folder / "server-cert.pem").read_bytes()


@pytest.mark.parametrize(
    ("mode", "scheme"), [("off", "nbd"), ("optional", "nbd"), ("required", "nbds")]
)
def test_uris(mode, scheme):
    server = prepare(size=512, tls=TLS(mode))
    try:
        uri = Uri.parse(server.uri)
        assert (uri.scheme, uri.tls_certificates) == (scheme, None)
        uri = Uri.parse(server.uri_of("", credentials=True))
        assert uri.scheme == scheme
        if mode != "off":
            assert uri.tls_certificates == server.security.directory
        assert (server.security is None) == (mode == "off")
    finally:
        close(server)


def test_the_profile_says_whether_unless_the_caller_does():
    profile = Profile.of(size=512, handshake=Handshake(tls="required"))
    for tls, mode in ((None, "required"), (TLS(), "required"), (TLS("optional"), "optional")):
        server = prepare(profile, tls=tls)
        close(server)
        assert server.shared.handshake.tls == mode


def test_the_certificate_is_for_the_host_listened_on():
    server = prepare(size=512, tcp="127.0.0.7", tls=TLS("required"))
    close(server)
    assert server.security.authority.hosts == ("localhost", "127.0.0.1", "::1", "127.0.0.7")


# --- mistakes -------------------------------------------------------------------------------------

CONTRADICTIONS = {
    "TLS needs only one of a folder of certificates and pre-shared keys": {
        "certificates": "x",
        "psk": "y",
    },
    "TLS needs only one of a certificate and pre-shared keys": {
        "certificate": "x",
        "key": "y",
        "psk": "z",
    },
    "a certificate for TLS and its key belong together": {"certificate": "x"},
    "a CA for TLS goes with a certificate and its key": {"ca": "x"},
    "clients' certificates cannot be verified without a CA": {
        "certificate": "x",
        "key": "y",
        "verify_clients": True,
    },
}


@pytest.mark.parametrize("sentence", CONTRADICTIONS)
def test_contradictions(sentence):
    with pytest.raises(ServeError) as caught:
        TLS(**CONTRADICTIONS[sentence])
    assert str(caught.value) == sentence


def test_a_handshake_without_starttls():
    profile = Profile.of(handshake=Handshake(style="newstyle"))
    with pytest.raises(ServeError) as caught:
        prepare(profile, tls=TLS("required"))
    assert str(caught.value) == "the newstyle handshake of this profile has no STARTTLS"


def test_a_host_that_no_certificate_can_name(security):
    with pytest.raises(ServeError, match=r"^no certificate can be made for .*, under_score: "):
        security("under_score")


def test_libraries_for_certificates_are_imported_for_tls_only():
    program = (
        "import sys, fakenbd.server.factory as server\n"
        "server.close(server.prepare(size=512))\n"
        "print(*sorted({'trustme', 'cryptography'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_files_that_are_missing(tmp_path):
    with pytest.raises(ServeError) as caught:
        TLSCredentials.of(TLS(certificates=tmp_path))
    assert str(caught.value) == f"cannot read {tmp_path}/ca-cert.pem: No such file or directory"


def locked(folder):
    key = load_pem_private_key((folder / "server-key.pem").read_bytes(), None)
    lock = BestAvailableEncryption(b"secret")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize("key", [lambda folder: b"x", locked])
def test_files_that_are_something_else(key, tmp_path, folder):
    path = tmp_path / "x.pem"
    path.write_bytes(key(folder))
    with pytest.raises(ServeError) as caught:
        TLSCredentials.of(TLS(certificate=folder / "server-cert.pem", key=path))
    assert str(caught.value) == (
        f"{folder}/server-cert.pem with {path} cannot be used for TLS: "
        "expected a certificate and its key, not locked, as PEM"
    )


def test_a_key_of_another_certificate(tmp_path, folder):
    for name in ("ca-cert.pem", "server-cert.pem"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "server-key.pem").write_bytes(Authority.made(HOSTS).good.key)
    with pytest.raises(ServeError) as caught:
        TLSCredentials.of(TLS(certificates=tmp_path))
    assert str(caught.value) == (
        f"the certificate in {tmp_path} cannot be used for TLS: the key is another certificate's"
    )


INVALID = {
    "expired": "an expired certificate cannot be made",
    "wrong-host": "a wrong host's certificate cannot be made",
}


@pytest.mark.parametrize("kind", INVALID)
def test_certificates_that_need_the_key_of_the_ca_are_refused_at_the_start(kind, folder):
    fault = Fault("", When(option="starttls"), make_kind("certificate", certificate=kind))
    with pytest.raises(ServeError) as caught:
        prepare(size=512, tls=TLS("required", certificates=folder), faults=[fault])
    assert str(caught.value) == (
        f"{INVALID[kind]}: the key of the CA is not known"
        " (ca-key.pem beside ca-cert.pem would be it)"
    )


def test_with_the_key_of_the_ca_all_certificates_are_possible(tmp_path, folder):
    import trustme

    issuer = trustme.CA()
    good = issuer.issue_cert(*HOSTS)
    issuer.cert_pem.write_to_path(tmp_path / "ca-cert.pem")
    issuer.private_key_pem.write_to_path(tmp_path / "ca-key.pem")
    good.cert_chain_pems[0].write_to_path(tmp_path / "server-cert.pem")
    good.private_key_pem.write_to_path(tmp_path / "server-key.pem")
    authority = Authority.of_folder(tmp_path, HOSTS)
    for kind in INVALID:
        assert authority.certificate(kind).chain.startswith(b"-----BEGIN CERTIFICATE-----")
    (tmp_path / "ca-key.pem").write_text("x")
    with pytest.raises(ServeError, match=r"ca-key\.pem and ca-cert\.pem make no CA: "):
        Authority.of_folder(tmp_path, HOSTS)


# --- pre-shared keys -----------------------------------------------------------------------------


@pytest.mark.skipif(PSK, reason="this Python has pre-shared keys")
def test_a_python_without_keys_says_so(tmp_path):
    with pytest.raises(ServeError) as caught:
        TLSCredentials.of(TLS(psk=tmp_path / "keys.psk"))
    assert str(caught.value) == (
        f"TLS with pre-shared keys needs Python 3.13 or newer, this is {platform.python_version()}"
    )


@pytest.fixture
def keys(tmp_path):
    def write(text):
        path = tmp_path / "given.psk"
        path.write_bytes(text.encode("latin-1"))
        return path

    return write


@pytest.mark.skipif(not PSK, reason="this Python has no pre-shared keys")
def test_keys_are_handed_out_as_qemu_expects_them(security, keys):
    path = keys("# of our house\n\nalice:0A0b\nwith:colon:ff\n")
    made = security(psk=path)
    assert made.keys == {"alice": b"\x0a\x0b", "with:colon": b"\xff"}
    assert (made.ca_file, made.psk_file) == ("", os.path.join(made.directory, "keys.psk"))
    assert Path(made.psk_file).read_text() == "alice:0a0b\nwith:colon:ff\n"
    assert made.parameters() == {"username": "alice", "tls_psk_file": made.psk_file}


BAD_KEYS = {
    "": "{path} holds no pre-shared key",
    "alice:00\nbob": "{path}, line 2: expected USER:KEY, the key in hexadecimal digits",
    "alice:0": "{path}, line 1: expected USER:KEY, the key in hexadecimal digits",
    "alice:": "{path}, line 1: expected USER:KEY, the key in hexadecimal digits",
    ":00": "{path}, line 1: expected USER:KEY, the key in hexadecimal digits",
    "alic\xe9:00": "{path} is not UTF-8 at byte 4",
}


@pytest.mark.skipif(not PSK, reason="this Python has no pre-shared keys")
@pytest.mark.parametrize("text", BAD_KEYS)
def test_files_that_hold_no_keys(text, keys):
    path = keys(text)
    with pytest.raises(ServeError) as caught:
        TLSCredentials.of(TLS(psk=path))
    assert str(caught.value) == BAD_KEYS[text].format(path=path)


@pytest.mark.skipif(not PSK, reason="this Python has no pre-shared keys")
def test_a_certificate_cannot_be_shown_where_keys_are_used(keys):
    fault = Fault("", When(option="starttls"), make_kind("certificate", certificate="expired"))
    with pytest.raises(ServeError) as caught:
        prepare(size=512, tls=TLS("required", psk=keys("alice:00")), faults=[fault])
    assert str(caught.value) == (
        "no expired certificate can be shown: this server uses keys instead"
    )
