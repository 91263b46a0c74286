"""Which HTTP proxy calls go through, checked against gRPC itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest

from fslr.advisor.v1 import status_service_pb2, status_service_pb2_grpc
from fslr.client.http_proxies import channel_options, find_proxy, proxy_note
from tests.http_proxy import HttpProxy

PROXY = "http://proxy.example:3128"
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def proxy() -> Iterator[HttpProxy]:
    with HttpProxy(target_port=0, status="403 Forbidden") as running:
        yield running


def asks_proxy(proxy: HttpProxy, address: str, options: tuple[tuple[str, int | str], ...]) -> bool:
    """Return whether gRPC sends a call to the proxy."""
    proxy.requests.clear()
    own_connection = (*options, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    with grpc.insecure_channel(address, options=own_connection) as channel:
        stub = status_service_pb2_grpc.StatusServiceStub(channel)
        with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE"):
            stub.GetStatus(status_service_pb2.GetStatusRequest(), timeout=5)
    return bool(proxy.requests)


HOST = "advisor.invalid:50051"  # names below invalid never resolve (RFC 6761)


@pytest.mark.parametrize(
    ("address", "variables"),
    [
        (HOST, {}),
        *((HOST, {name: "{proxy}"}) for name in ("grpc_proxy", "https_proxy", "http_proxy")),
        *((HOST, {name: "{proxy}"}) for name in ("GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY")),
        (HOST, {"grpc_proxy": "", "http_proxy": "{proxy}"}),
        (HOST, {"https_proxy": "junk", "http_proxy": "{proxy}"}),
        (HOST, {"http_proxy": "{proxy}/"}),
        (HOST, {"http_proxy": "{host}"}),
        (HOST, {"http_proxy": "https://{host}"}),
        (HOST, {"http_proxy": "HTTP://{host}"}),
        (HOST, {"http_proxy": "http://user:p%40ss@{host}"}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": "*"}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": ""}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": " , "}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": "advisor.invalid"}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": "x, .INVALID"}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": "sor.invalid"}),
        (HOST, {"http_proxy": "{proxy}", "no_proxy": "advisor.invalid:50051"}),
        (HOST, {"http_proxy": "{proxy}", "NO_PROXY": "invalid"}),
        (HOST, {"http_proxy": "{proxy}", "no_grpc_proxy": "invalid"}),
        (HOST, {"http_proxy": "{proxy}", "no_grpc_proxy": "x", "no_proxy": "invalid"}),
        ("dns:///advisor.invalid:1", {"http_proxy": "{proxy}", "no_proxy": "advisor.invalid"}),
        ("dns:advisor.invalid:1", {"http_proxy": "{proxy}"}),
        ("advisor.invalid", {"http_proxy": "{proxy}"}),
        ("192.0.2.1:1", {"http_proxy": "{proxy}", "no_proxy": "198.51.100.0/24"}),
        ("[2001:db8::1]:1", {"http_proxy": "{proxy}", "no_proxy": "10.0.0.0/8"}),
        *(("unix:/no/socket", {name: "{proxy}"}) for name in ("grpc_proxy", "http_proxy")),
    ],
)
def test_the_proxy_is_the_one_that_grpc_uses(
    address: str, variables: dict[str, str], proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(proxy=proxy.url, host=proxy.url[len("http://") :]))
    found = find_proxy(address)
    assert asks_proxy(proxy, address, ()) == (found is not None)
    assert found is None or f"http://{found.place}" == proxy.url
    assert asks_proxy(proxy, address, channel_options(address)) == (found is not None)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:1", "localhost:1", "LOCALHOST.:1", "127.9.9.9:1", "[::1]:1", "0.0.0.0:1"),
        *("dns:///localhost:1", "ipv4:127.0.0.1:1", "[::ffff:127.0.0.1]:1", "unix-abstract:none"),
        *("ipv4:127.0.0.1:1,127.0.0.2:1", "job.localhost:1", f"{socket.gethostname()}:1"),
    ],
)
def test_calls_to_this_machine_never_go_through_a_proxy(
    address: str, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", proxy.url[len("http://") :])
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.1,::1")
    assert find_proxy(address) is None
    assert asks_proxy(proxy, address, ())
    assert not asks_proxy(proxy, address, channel_options(address))


def test_a_list_of_replicas_is_called_directly(
    proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "ipv4:192.0.2.1:1,192.0.2.2:1"
    monkeypatch.setenv("http_proxy", proxy.url)
    assert asks_proxy(proxy, address, ())
    assert proxy.requests[0].startswith("CONNECT [192.0.2.1:1,192.0.2.2:1]")  # one host, to gRPC
    assert find_proxy(address) is None
    assert dict(channel_options(address))["grpc.enable_http_proxy"] == 0


@pytest.mark.parametrize(
    ("address", "no_proxy", "is_direct"),
    [
        *(("192.0.2.1:1", "192.0.2.0/24", True), ("192.0.2.1:1", "192.0.2.1", True)),
        *(("192.0.2.1:1", "192.0.3.0/24", False), ("192.0.2.1:1", "192.0.2.0/x", False)),
        *(("[2001:db8::1]:1", "2001:db8::/32", True), ("[2001:db8::1]:1", "2001:db9::/32", False)),
    ],
)
def test_networks_may_be_called_directly(address: str, no_proxy: str, is_direct: bool) -> None:
    found = find_proxy(address, {"http_proxy": PROXY, "no_proxy": no_proxy})
    assert (found is None) == is_direct


def test_a_failed_call_names_the_proxy_but_not_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert proxy_note(HOST) == ""
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    assert proxy_note(HOST) == (
        "; calls go through the proxy proxy.example:3128, which https_proxy names; "
        "to connect directly, add advisor.invalid to no_proxy"
    )
    assert "secret" not in repr(find_proxy(HOST))
    monkeypatch.setenv("no_grpc_proxy", "")
    assert proxy_note(HOST).endswith("add advisor.invalid to no_grpc_proxy")
    monkeypatch.setenv("https_proxy", "http://[2001:db8::5]")
    assert "the proxy [2001:db8::5]:443," in proxy_note(HOST)
