"""Which addresses lead to this machine only."""

from __future__ import annotations

import pytest

from fslr.client.loopback import is_local_address, is_loopback_host


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        *(("localhost:1", True), ("127.0.0.1:1", True), ("127.9.9.9:1", True), ("[::1]:1", True)),
        *(("unix:/run/x", True), ("unix-abstract:x", True), ("dns:///localhost:1", True)),
        *(("ipv4:127.0.0.1:1,127.0.0.2:2", True), ("ipv6:[::1]:1", True)),
        *(("ipv4:127.0.0.1:1,10.0.0.1:2", False), ("10.0.0.1:1", False), ("advisor:1", False)),
        *(("dns:///advisor:1", False), ("localhost.example:1", False), ("127.0.0.1.x:1", False)),
        *(("unix1.example:1", False), ("unix", False), ("unix-abstract.example:1", False)),
        *(("[2001:db8::1]:1", False), ("dns:advisor", False), ("", False)),
    ],
)
def test_an_address_is_local_if_all_its_targets_are_loopback(address: str, is_local: bool) -> None:
    assert is_local_address(address) is is_local


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        *(("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("", False)),
        *(("localhost.example", False), ("127.0.0.1.example", False)),
    ],
)
def test_a_host_is_loopback_by_its_name_or_address(host: str, is_loopback: bool) -> None:
    assert is_loopback_host(host) is is_loopback
