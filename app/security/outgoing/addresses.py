"""Which addresses an outgoing call may reach, and how a name becomes addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from requests_hardened.ip_filter import InvalidIPAddress, filter_host

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str, int], Sequence[Address]]

# What ``ipaddress`` and the library take for public, or take so in some version only.
_NEVER: Final[tuple[Network, ...]] = (
    ip_network("::/96"),  # IPv4-compatible: a system may dial the IPv4 address inside
    ip_network("::ffff:0:0:0/96"),  # IPv4-translated
    ip_network("64:ff9b::/96"),  # these four carry an IPv4 address through a translator or a tunnel
    ip_network("64:ff9b:1::/48"),
    ip_network("2002::/16"),
    ip_network("2001::/32"),
    ip_network("fec0::/10"),  # site-local, the private range of old
    ip_network("100.64.0.0/10"),  # carriers' and clouds' inside, a metadata server among it
    ip_network("192.0.0.0/24"),
    ip_network("168.63.129.16/32"),  # Azure's wire server: public by number, the host by effect
)
_DISCARD_PORT: Final = 9


def resolve(host: str, port: int) -> Sequence[Address]:
    """Every address of ``host``, in the system's order of preference.

    Raises:
        OSError: The name has none, or no name server answered.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def plain(address: Address) -> Address:
    """``address``, or the IPv4 address that it is only another spelling of (``::ffff:127.0.0.1``)."""
    return getattr(address, "ipv4_mapped", None) or address


def refusal(address: Address, allowed: Iterable[Network]) -> str | None:
    """Why an outgoing call may not reach ``address``; ``None`` when it may.

    Args:
        address: As ``plain`` gives it.
        allowed: Networks that the installation opened; they win over every rule.
    """
    if any(address in network for network in allowed):
        return None
    if not address.is_global or address.is_multicast or address.is_reserved:
        return f"{address} is not a public address"
    if any(address in network for network in _NEVER) or _is_refused_by_library(address):
        return f"{address} leads to a network that is not public"
    if is_this_machine(address):
        return f"{address} is this machine"
    return None


def _is_refused_by_library(address: Address) -> bool:
    # Given a number it asks no name server, so what it judges is what is dialled.
    try:
        filter_host(str(address), _DISCARD_PORT, allow_loopback=False)
    except InvalidIPAddress:
        return True
    return False


def is_this_machine(address: Address) -> bool:
    """Whether a packet to ``address`` would stay here, as for the public address of one of our own interfaces."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing; it only makes the system choose a source address.
            probe.connect((str(address), _DISCARD_PORT))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False
