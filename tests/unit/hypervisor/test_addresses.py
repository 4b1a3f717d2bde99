from __future__ import annotations

import pytest

from worker.hypervisor.addresses import DEFAULT_PATTERNS, Allowed

EMBED = "qemu:///embed?root=/srv/roots/*"
WIDE = (
    *DEFAULT_PATTERNS,
    "qemu+tls://*/system",
    "qemu+tcp://127.0.0.1:*/system",
    "qemu+ssh://root@*/system",
    "test:///srv/*.xml",
    EMBED,
)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tls://cn-017.example.org/system",
        "qemu+tls://10.0.0.7:16514/system",
        "qemu+tls://[2001:db8::7]/system",
        "qemu+tls://cn-017/system?no_tty=1",
        "qemu:///system",
        "test:///default",
        "qemu+tcp://127.0.0.1:16509/system",
        "qemu+tls://cn-017:16514/system",
        "qemu+ssh://root@cn-017/system",
        "qemu+ssh://root@cn-017:22/system",
        "test:///srv/node.xml",
        "qemu:///embed?root=/srv/roots/one",
    ],
)
def test_an_address_that_matches_a_pattern_may_be_opened(uri: str) -> None:
    assert Allowed(WIDE).refusal(uri) is None


@pytest.mark.parametrize("name", [
    "command", "socket", "netcat", "proxy", "keyfile", "pkipath", "known_hosts", "known_hosts_verify", "sshauth",
    "mode", "tls_priority", "no_verify", "no_sanity", "auth", "name", "root", "Command", "unheard_of",
])  # fmt: skip
@pytest.mark.parametrize("address", ["qemu+tls://cn-017/system", "qemu+ssh://root@cn-017/system", "qemu:///system"])
def test_a_parameter_that_is_not_known_to_be_harmless_is_always_refused(address: str, name: str) -> None:
    said = Allowed(WIDE).refusal(f"{address}?no_tty=1&{name}=/bin/sh")
    assert said is not None
    assert name in said


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu",
        "default",
        "qemu:/system",
        "qemu:///session",
        "qemu+tls:///system",
        "QEMU:///system",
        "qemu+unix:///system",
        "qemu+ext://cn-017/system",
        "qemu+ssh://cn-017/system",
        "qemu+ssh://other@cn-017/system",
        "qemu+ssh://root@-oProxyCommand=sh/system",
        "qemu+tls://user@cn-017/system",
        "qemu+tls://user:secret@cn-017/system",
        "qemu+tls://evil.example.org/x@cn-017/system",
        "qemu+tls://evil.example.org?@cn-017/system",
        "qemu+tls://evil.example.org#cn-017/system",
        "qemu+tls://cn-017\\@evil/system",
        "qemu+tls://cn-017/../system",
        "qemu+tls://cn-017/x/system",
        "qemu+tls://cn-017/system/",
        "qemu+tls://cn-017/system?no_tty",
        "qemu+tls://cn-017/system?no_tty=1&no_tty=0",
        "qemu+tls://cn-017/system?no_tty=1;command=sh",
        "qemu+tls://cn-017/system?no_tty=1%26command=sh",
        "qemu+tls://cn-017/system#x",
        "qemu+tls://cn-017/system\n",
        " qemu:///system",
        "qemu+tls://cn 017/system",
        "qemu+tls://cn-017\x00/system",
        "qemu+tls://\uff43\uff4e/system",
        "test:///etc/passwd",
        "test:///srv/../etc/node.xml",
        "test:///srv/deeper/node.xml",
        "qemu:///embed",
        "qemu:///embed?root=/",
        "qemu:///embed?root=/srv/roots/one/deeper",
        "qemu:///embed?root=/srv/roots/..",
        "qemu:///embed?root=/srv/roots/one&root=/",
        "qemu+tls://" + "a" * 2000 + "/system",
    ],
)
def test_every_other_address_is_refused(uri: str) -> None:
    assert Allowed(WIDE).refusal(uri) is not None


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tls://:16514/system",
        "qemu+tls://cn-017:22/system",
        "qemu+tls://cn-017:0/system",
        "qemu+tls://localhost/system",
        "qemu+tls://LOCALHOST./system",
        "qemu+tls://localhost.localdomain/system",
        "qemu+tls://x.localhost/system",
        "qemu+tls://ip6-loopback/system",
        "qemu+tls://127.0.0.1/system",
        "qemu+tls://127.9.9.9/system",
        "qemu+tls://127.1/system",
        "qemu+tls://2130706433/system",
        "qemu+tls://0x7f000001/system",
        "qemu+tls://0x7f.1/system",
        "qemu+tls://0177.0.0.01/system",
        "qemu+tls://0.0.0.0/system",
        "qemu+tls://0/system",
        "qemu+tls://169.254.169.254/system",
        "qemu+tls://[::1]/system",
        "qemu+tls://[0:0:0:0:0:0:0:1]/system",
        "qemu+tls://[::]/system",
        "qemu+tls://[fe80::1]/system",
        "qemu+tls://[::ffff:127.0.0.1]/system",
        "qemu+tls://[::ffff:a9fe:a9fe]/system",
        "qemu+tls://224.0.0.1/system",
    ],
)
def test_a_wildcard_means_other_hosts_and_the_transports_own_port(uri: str) -> None:
    assert Allowed(WIDE).refusal(uri) is not None


def test_what_a_pattern_names_is_meant_wherever_it_is() -> None:
    named = Allowed(
        ["qemu+tls://localhost/system", "qemu+tls://[::1]:*/system", "qemu+tls://cn-*.example.org:1/system"]
    )
    for uri in ("qemu+tls://localhost/system", "qemu+tls://[::1]:7/system", "qemu+tls://cn-1.example.org:1/system"):
        assert named.refusal(uri) is None
    for uri in ("qemu+tls://localhost:7/system", "qemu+tls://cn-1.example.org/system"):
        assert named.refusal(uri) is not None


@pytest.mark.parametrize("uri", ["qemu+tls://cn-017/system", "qemu+tls:///system", "qemu+ssh://cn-017/system"])
def test_by_default_no_host_is_allowed(uri: str) -> None:
    assert Allowed(DEFAULT_PATTERNS).refusal(uri) is not None


@pytest.mark.parametrize(
    "uri", ["qemu+tcp://127.0.0.1:1/system", "qemu:///embed?root=/srv/roots/one", "test:///srv/a.xml"]
)
def test_what_only_an_operator_can_allow_is_refused_by_default(uri: str) -> None:
    assert Allowed(DEFAULT_PATTERNS).refusal(uri) is not None


def test_a_refusal_never_repeats_the_address() -> None:
    said = Allowed(WIDE).refusal("qemu+tls://user:hunter2@cn-017/system?command=hunter2")
    assert said is not None
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "pattern", ["*", "qemu", "qemu+*://*/system", "qemu:///system?command=*", "qemu+ssh://*@*/system"]
)
def test_a_pattern_with_a_wildcard_where_none_may_be_is_a_mistake(pattern: str) -> None:
    with pytest.raises(ValueError, match="the pattern"):
        Allowed([pattern])


@pytest.mark.parametrize(
    ("pattern", "uri"),
    [
        ("qemu+ext://*/system", "qemu+ext://cn-017/system"),
        ("qemu+ext://cn-017/system", "qemu+ext://cn-017/system"),
        ("qemu+ssh://root@*/system", "qemu+ssh://root@-oProxyCommand/system"),
        ("qemu+ssh://-oProxyCommand@*/system", "qemu+ssh://-oProxyCommand@cn-017/system"),
    ],
)
def test_what_would_run_a_program_is_refused_whatever_the_patterns_say(pattern: str, uri: str) -> None:
    assert Allowed([pattern]).refusal(uri) is not None
