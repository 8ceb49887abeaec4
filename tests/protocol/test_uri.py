from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakenbd.errors import UriError
from fakenbd.protocol.layout import unpack_string
from fakenbd.protocol.uri import Uri

# (what a user writes, what it means, how it is written back)
URIS: list[tuple[str, Uri, str]] = [
    ("nbd://example.com", Uri(host="example.com"), "nbd://example.com/"),
    ("nbd://example.com/", Uri(host="example.com"), "nbd://example.com/"),
    ("NBD://example.com:10809/", Uri(host="example.com"), "nbd://example.com/"),
    ("nbd://example.com:/", Uri(host="example.com"), "nbd://example.com/"),
    ("nbd://", Uri(host="localhost"), "nbd://localhost/"),
    ("nbd:///disk", Uri(host="localhost", export="disk"), "nbd://localhost/disk"),
    ("nbd:/disk", Uri(host="localhost", export="disk"), "nbd://localhost/disk"),
    (
        "nbds://example.com:1/disk",
        Uri(tls=True, host="example.com", port=1, export="disk"),
        "nbds://example.com:1/disk",
    ),
    ("nbd://h//disk", Uri(host="h", export="/disk"), "nbd://h//disk"),
    ("nbd://h/hello%20world", Uri(host="h", export="hello world"), "nbd://h/hello%20world"),
    ("nbd://h/a+b", Uri(host="h", export="a+b"), "nbd://h/a%2Bb"),
    ("nbd://h/a:b@c/d", Uri(host="h", export="a:b@c/d"), "nbd://h/a:b@c/d"),
    ("nbd://h/%c3%A9", Uri(host="h", export="é"), "nbd://h/%C3%A9"),
    ("nbd://h/é", Uri(host="h", export="é"), "nbd://h/%C3%A9"),
    ("nbd://h/%ff", Uri(host="h", export="\udcff"), "nbd://h/%FF"),
    ("nbd://h/%3F%23%25", Uri(host="h", export="?#%"), "nbd://h/%3F%23%25"),
    ("nbd://127.0.0.1:41873/", Uri(host="127.0.0.1", port=41873), "nbd://127.0.0.1:41873/"),
    ("nbd://[::1]", Uri(host="::1"), "nbd://[::1]/"),
    ("nbd://[::1]:99/x", Uri(host="::1", port=99, export="x"), "nbd://[::1]:99/x"),
    ("nbd://[fe80::1%25eth0]/", Uri(host="fe80::1%eth0"), "nbd://[fe80::1%25eth0]/"),
    ("nbds://alice@h/", Uri(tls=True, host="h", username="alice"), "nbds://alice@h/"),
    (
        "nbds://a%40b:c@h/",
        Uri(tls=True, host="h", username="a@b:c"),
        "nbds://a%40b%3Ac@h/",
    ),
    ("nbd://a%2Fb@h/", Uri(host="h", username="a/b"), "nbd://a%2Fb@h/"),
    ("nbds://@h/", Uri(tls=True, host="h", username=""), "nbds://@h/"),
    (
        "nbd+unix:///disk?socket=/run/nbd.sock",
        Uri("unix", socket="/run/nbd.sock", export="disk"),
        "nbd+unix:///disk?socket=/run/nbd.sock",
    ),
    (
        "nbd+unix://?socket=nbd.sock",
        Uri("unix", socket="nbd.sock"),
        "nbd+unix:///?socket=nbd.sock",
    ),
    (
        "nbd+unix:/disk?socket=a%26b%20c",
        Uri("unix", socket="a&b c", export="disk"),
        "nbd+unix:///disk?socket=a%26b%20c",
    ),
    (
        "nbd+unix:///?socket=%00abstract",
        Uri("unix", socket="\0abstract"),
        "nbd+unix:///?socket=%00abstract",
    ),
    (
        "nbds+unix://bob@/?socket=s&tls-psk-file=/etc/psk",
        Uri("unix", tls=True, socket="s", username="bob", tls_psk_file="/etc/psk"),
        "nbds+unix://bob@/?socket=s&tls-psk-file=/etc/psk",
    ),
    ("nbd+vsock://3/", Uri("vsock", host="3"), "nbd+vsock://3/"),
    ("nbd+vsock:///", Uri("vsock", host="2"), "nbd+vsock://2/"),
    (
        "nbds+vsock://4294967295:4294967295/x",
        Uri("vsock", tls=True, host="4294967295", port=4294967295, export="x"),
        "nbds+vsock://4294967295:4294967295/x",
    ),
    (
        "nbds://h/?tls-verify-peer=0&tls-hostname=other&tls-type=x509&tls-certificates=/pki",
        Uri(
            tls=True,
            host="h",
            tls_type="x509",
            tls_hostname="other",
            tls_verify_peer=False,
            tls_certificates="/pki",
        ),
        "nbds://h/?tls-type=x509&tls-hostname=other&tls-verify-peer=0&tls-certificates=/pki",
    ),
    (
        "nbd://h/?tls-verify-peer=1",
        Uri(host="h", tls_verify_peer=True),
        "nbd://h/?tls-verify-peer=1",
    ),
    (
        "nbd://h/?x-colour=a%3Db&&flag&TLS-TYPE=psk&flag=",
        Uri(
            host="h", unknown=(("x-colour", "a=b"), ("flag", ""), ("TLS-TYPE", "psk"), ("flag", ""))
        ),
        "nbd://h/?x-colour=a%3Db&flag=&TLS-TYPE=psk&flag=",
    ),
]


@pytest.mark.parametrize(("text", "uri", "written"), URIS, ids=[entry[0] for entry in URIS])
def test_uri(text: str, uri: Uri, written: str) -> None:
    assert Uri.parse(text) == uri
    assert str(uri) == written
    assert Uri.parse(written) == uri


SCHEMES = "its scheme must be one of nbd, nbds, nbd+unix, nbds+unix, nbd+vsock, nbds+vsock"
MISTAKES = [
    ("", SCHEMES),
    ("localhost", SCHEMES),
    ("//localhost/", SCHEMES),
    ("http://localhost/", SCHEMES + ", not http"),
    ("nbd+ssh://localhost/", SCHEMES + ", not nbd+ssh"),
    ("nbd:localhost:10809", "after nbd: must come //"),
    ("nbd://h/#disk", "a fragment has no meaning here; write %23 for a # in a name"),
    ("nbd://h/a b", "character 10 must be written %20"),
    ("nbd://h/\n", "character 9 must be written %0A"),
    ("nbd://h/%", "'%' does not encode a byte; write %25 for a percent sign"),
    ("nbd://h/%4x", "'%4x' does not encode a byte; write %25 for a percent sign"),
    *(
        (text, "%00 has no meaning but at the start of an abstract socket's name")
        for text in (
            "nbd://h/%00",
            "nbd://h%00/",
            "nbd://u%00@h/",
            "nbd+unix:///?socket=a%00",
            "nbds://h/?tls-psk-file=%00",
        )
    ),
    ("nbd://h:x/", "the port must be a number from 1 to 65535, not x"),
    ("nbd://h:0/", "the port must be a number from 1 to 65535, not 0"),
    ("nbd://h:65536/", "the port must be a number from 1 to 65535, not 65536"),
    ("nbd://h:-1/", "the port must be a number from 1 to 65535, not -1"),
    ("nbd://h:000001/", "the port must be a number from 1 to 65535, not 000001"),
    ("nbd://h:²/", "the port must be a number from 1 to 65535, not ²"),
    (
        "nbd://::1/",
        "::1 is neither HOST nor HOST:PORT; an IPv6 address stands in brackets, as [::1]",
    ),
    (
        "nbd://[::1/",
        "[::1 is neither HOST nor HOST:PORT; an IPv6 address stands in brackets, as [::1]",
    ),
    ("nbd://[::g]/", "[::g] does not hold an IPv6 address"),
    ("nbd://[]/", "[] does not hold an IPv6 address"),
    ("nbd+vsock://h/", "the CID of a vsock must be a number from 0 to 4294967295, not h"),
    ("nbd+unix:///", "nbd+unix needs the parameter socket with the path of a socket"),
    (
        "nbds+unix:///disk?tls-type=psk",
        "nbds+unix needs the parameter socket with the path of a socket",
    ),
    ("nbd+unix:///?socket=", "the parameter socket is empty"),
    ("nbd+unix:///?socket=a&socket=b", "the parameter socket is given twice"),
    ("nbd+unix://h:1/?socket=a", "a Unix socket has no host nor port, so h:1 has no meaning"),
    ("nbd://h/?socket=a", "the parameter socket belongs to nbd+unix, not to nbd"),
    ("nbds://h/?socket=a", "the parameter socket belongs to nbds+unix, not to nbds"),
    ("nbd://h/?tls-type=PSK", "tls-type must be anon, x509 or psk, not PSK"),
    ("nbd://h/?tls-type=%1b[31m", r"tls-type must be anon, x509 or psk, not \x1b[31m"),
    ("nbd://h/?tls-verify-peer=yes", "tls-verify-peer must be 0 or 1, not yes"),
    ("nbd://h/?tls-hostname", "the parameter tls-hostname is empty"),
]


@pytest.mark.parametrize(
    ("text", "mistake"), MISTAKES, ids=[repr(mistake[0]) for mistake in MISTAKES]
)
def test_a_mistake_is_reported_in_one_sentence(text: str, mistake: str) -> None:
    with pytest.raises(UriError) as caught:
        Uri.parse(text)
    assert str(caught.value) == f"{text!r} is not the URI of an NBD export: {mistake}"


names = st.binary(max_size=20).map(unpack_string)
abstract = names.map("\0{}".format)
names = names.filter(lambda name: "\0" not in name)
some = names.filter(bool)
hosts = st.one_of(
    st.just("localhost"), st.ip_addresses().map(str), some.filter(lambda host: ":" not in host)
)
maybe = st.one_of(st.none(), some)
unknown = st.lists(
    st.tuples(some.filter(lambda name: not name.startswith(("tls-", "socket"))), names), max_size=3
).map(tuple)


def uris(
    transport: str,
    host: st.SearchStrategy[str],
    port: st.SearchStrategy[int],
    socket: st.SearchStrategy[str],
) -> st.SearchStrategy[Uri]:
    return st.builds(
        Uri,
        st.just(transport),
        st.booleans(),
        host,
        port,
        socket,
        names,
        st.one_of(st.none(), names),
        st.sampled_from([None, "anon", "x509", "psk"]),
        maybe,
        st.sampled_from([None, True, False]),
        maybe,
        maybe,
        unknown,
    )


@example(Uri(username="/", host="localhost"))
@given(
    st.one_of(
        uris("tcp", hosts, st.integers(1, 65535), st.just("")),
        uris("unix", st.just(""), st.just(10809), st.one_of(some, abstract)),
        uris(
            "vsock",
            st.integers(0, (1 << 32) - 1).map(str),
            st.integers(1, (1 << 32) - 1),
            st.just(""),
        ),
    )
)
def test_any_uri_survives_being_written_and_read(uri: Uri) -> None:
    text = str(uri)
    assert text.isascii()
    assert Uri.parse(text) == uri


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="nbds+unix:/?#[]@%&=.1-"),
        st.builds("{}://{}".format, st.sampled_from(["nbd", "nbd+unix", "nbd+vsock"]), st.text()),
    )
)
def test_any_text_is_a_uri_or_a_mistake(text: str) -> None:
    try:
        uri = Uri.parse(text)
    except UriError:
        return
    assert Uri.parse(str(uri)) == uri
