"""Parsing the URL of Redis, and redacting its passwords."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from advisor.server.settings import Settings
from advisor.store.redis.addresses import (
    AddressError,
    Credentials,
    Topology,
    parse_address,
    redacted,
)

SECRET = "s3cr3t-of-mine"


def test_the_url_of_one_server() -> None:
    plain = parse_address("redis://redis.local")
    assert plain.topology is Topology.STANDALONE
    assert plain.hosts == (("redis.local", 6379),)
    assert (plain.database, plain.tls, plain.credentials) == (0, None, Credentials())
    full = parse_address(f"redis://me:{SECRET}@10.0.0.1:6380/3")
    assert full.hosts == (("10.0.0.1", 6380),)
    assert (full.database, full.credentials) == (3, Credentials("me", SECRET))
    assert parse_address("redis://h?db=2").database == 2
    assert parse_address(f"redis://:{SECRET}@h").credentials == Credentials(None, SECRET)
    assert parse_address("redis://[::1]:7000").hosts == (("::1", 7000),)
    assert parse_address("redis://").hosts == (("localhost", 6379),)


def test_the_url_of_a_unix_socket() -> None:
    local = parse_address(f"unix:///run/a%20b/redis.sock?db=1&password={SECRET}")
    assert local.socket == "/run/a b/redis.sock"
    assert (local.database, local.credentials.password) == (1, SECRET)
    assert local.hosts == ()


def test_sentinels_can_have_separate_credentials() -> None:
    found = parse_address(
        f"redis+sentinel://me:{SECRET}@a:1,b,[::1]:3/the%20service/2?sentinel_username=s"
        "&sentinel_password=t"
    )
    assert found.topology is Topology.SENTINEL
    assert found.hosts == (("a", 1), ("b", 26379), ("::1", 3))
    assert (found.service, found.database) == ("the service", 2)
    assert found.credentials == Credentials("me", SECRET)
    assert found.sentinel_credentials == Credentials("s", "t")


def test_every_topology_can_use_tls() -> None:
    for scheme, behind in (("rediss", ""), ("rediss+sentinel", "/s"), ("rediss+cluster", "")):
        assert parse_address(f"{scheme}://h{behind}").tls == {}
        found = parse_address(
            f"{scheme}://h{behind}?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/c.key"
            "&ssl_check_hostname=no&ssl_cert_reqs=required"
        )
        assert found.tls == {
            "ssl_ca_certs": "/ca.pem",
            "ssl_certfile": "/c.pem",
            "ssl_keyfile": "/c.key",
            "ssl_check_hostname": False,
            "ssl_cert_reqs": "required",
        }


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://h", "does not start with a known scheme"),
        ("redis:h", "does not start with a known scheme"),
        (SECRET, "does not start with a known scheme"),
        ("redis://a:1,b:2", "takes one host; only Sentinels and Clusters have several"),
        ("redis://h:port", "a port is not a number from 1 to 65535"),
        ("redis://h:0", "a port is not a number from 1 to 65535"),
        ("redis://h:65536", "a port is not a number from 1 to 65535"),
        (f"redis://me:{SECRET}/more@h", "a port is not a number from 1 to 65535"),
        ("redis://h/one", "the database is not a number"),
        ("redis://h/1/2", "more than one database"),
        ("redis://h/1?db=2", "more than one database"),
        ("redis://::1", "an IPv6 address has no"),
        ("redis://[::1", "are not closed"),
        ("redis+sentinel://a,,b/s", "a host is missing"),
        ("redis+sentinel://a,b", "name of the service is missing"),
        ("redis+sentinel://a/s/x", "the database is not a number"),
        ("redis+cluster://a/1", "a Cluster has no databases"),
        ("redis+cluster://a?db=1", "a Cluster has no databases"),
        ("redis+cluster://a?sentinel_password=x", "need redis"),
        ("redis://me@h", "a user is given without a password"),
        (f"redis://:{SECRET}@h?password={SECRET}", "given twice"),
        (f"redis://:{SECRET}#1@h", "contains '#'"),
        ("redis://h?ssl_ca_certs=/ca", "ssl_ca_certs needs a URL that starts with rediss"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is not one of"),
        ("rediss://h?ssl_check_hostname=maybe", "neither true nor false"),
        ("redis://h?timeout=1", "the option 'timeout' is not known"),
        (f"redis://u:1?{SECRET}=@h", "contains '@' after '[?]'"),
        ("redis://h?db", "do not have the form"),
        ("redis://h?db=1&db=2", "an option is given twice"),
        ("unix://run/redis.sock", "needs the absolute path of a socket"),
        ("unix://", "needs the absolute path of a socket"),
    ],
)
def test_the_error_for_an_invalid_url_names_the_problem_and_the_valid_forms(
    url: str, what: str
) -> None:
    with pytest.raises(AddressError, match=what) as caught:
        parse_address(url)
    assert "redis+sentinel://" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in redacted(url)


def test_settings_refuse_an_invalid_url() -> None:
    with pytest.raises(ValidationError, match="name of the service is missing"):
        Settings.model_validate({"redis_url": "redis+sentinel://a"})


def test_a_redacted_url_keeps_everything_except_passwords() -> None:
    assert redacted(f"redis://me:{SECRET}@h:1/2") == "redis://me:***@h:1/2"
    assert redacted("redis://h:1/2") == "redis://h:1/2"
    assert (
        redacted(f"rediss+sentinel://:{SECRET}@a,b/s?sentinel_password={SECRET}&ssl_ca_certs=/ca")
        == "rediss+sentinel://:***@a,b/s?sentinel_password=***&ssl_ca_certs=/ca"
    )
    assert redacted(f"unix:///r.sock?password={SECRET}") == "unix:///r.sock?password=***"
    assert SECRET not in repr(parse_address(f"redis://me:{SECRET}@h"))


hosts = st.lists(
    st.tuples(
        st.text(string.ascii_lowercase + string.digits + "-.", min_size=1).filter(
            lambda name: name.isascii()
        ),
        st.integers(1, 65535),
    ),
    min_size=1,
    max_size=4,
)
words = st.text(st.characters(codec="utf-8"), min_size=1)


@given(hosts, words, words, words, st.integers(0, 99))
def test_every_name_and_password_survives_percent_encoding(
    listed: list[tuple[str, int]], user: str, password: str, service: str, database: int
) -> None:
    encoded = [quote(text, safe="") for text in (user, password, service)]
    where = ",".join(f"{host}:{port}" for host, port in listed)
    url = f"redis+sentinel://{encoded[0]}:{encoded[1]}@{where}/{encoded[2]}/{database}"
    found = parse_address(url)
    assert found.hosts == tuple(listed)
    assert found.credentials == Credentials(user, password)
    assert (found.service, found.database) == (service, database)


@given(st.text(), st.sampled_from(["redis", "rediss+cluster", "redis+sentinel", "unix", "x"]))
def test_no_text_leads_to_an_unexpected_error_or_shows_its_password(text: str, scheme: str) -> None:
    for url in (text, f"{scheme}://{text}", f"{scheme}://u:{SECRET}{text}@h/s"):
        assert SECRET not in redacted(url)
        refused = ""
        try:
            parse_address(url)
        except AddressError as error:
            refused = str(error)
        assert SECRET not in refused
