"""Interfaces: the bridge in the middle, its two ports, and what is switched off on every veth end.

Everything goes by netlink and ioctl (no sysctl), so NET_ADMIN in the right network namespace is
enough. Namespaces here have no name: they end with the last process in them, and take their
interfaces along.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError

from harness.errors import CellFailed, MachineCannot
from harness.linux import CLONE_NEWNET, CLONE_NEWUSER, join_namespace, unshare

Side = Literal["sender", "receiver"]
SENDER_ADDRESS = "192.0.2.1"  # TEST-NET-1 (RFC 5737): never routed
RECEIVER_ADDRESS = "192.0.2.2"
BRIDGE = "br0"
INNER = "eth0"
MTU = 1500

_ADDRESSES = {"sender": SENDER_ADDRESS, "receiver": RECEIVER_ADDRESS}
_MACS = {"sender": "02:00:00:00:02:01", "receiver": "02:00:00:00:02:02"}
_PORTS = {"sender": "port-s", "receiver": "port-r"}
_OTHER: dict[str, Side] = {"sender": "receiver", "receiver": "sender"}
_OFFLOADS = (
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "large-receive-offload",
)
_ADDR_GEN_MODE_NONE = 1
_PERMANENT = 0x80  # NUD_PERMANENT
_T = TypeVar("_T")


def index_of(ip: IPRoute, ifname: str) -> int:
    """The index of an interface of this network namespace. Raises CellFailed if there is none."""
    found = ip.link_lookup(ifname=ifname)
    if not found:
        raise CellFailed(f"no interface {ifname} in the link's network namespace")
    return int(found[0])


def disable_offloads(ifname: str) -> None:
    """One packet is then one frame with a finished checksum. Raises CellFailed if one stays on.

    With segmentation offload a "packet" is up to 64 KB; with transmit checksums left to the
    device, a frame copied by the relay has none.
    """
    ethtool = IoctlEthtool()
    try:
        ethtool.change_ifname(ifname)
        flags = ethtool.get_offload_flags()
        for name in _OFFLOADS:
            if flags.get(name):
                ethtool.set_offload_flag(name, False)
        still_on = [name for name in _OFFLOADS if ethtool.get_offload_flags().get(name)]
    finally:
        ethtool.close()
    if still_on:
        raise CellFailed(f"{ifname}: cannot switch off {', '.join(still_on)}")


def disable_ipv6(ifname: str) -> None:
    """No link-local address, now or later: an interface without one sends no IPv6 by itself."""
    with IPRoute() as ip:
        index = index_of(ip, ifname)
        none = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}
        try:
            ip.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", none]]})
        except NetlinkError:
            return  # this kernel, or this namespace, has no IPv6
        for address in ip.get_addr(index=index, family=10):
            ip.addr(
                "del",
                index=index,
                family=10,
                address=address.get_attr("IFA_ADDRESS"),
                prefixlen=address["prefixlen"],
            )


def static_arp(ifname: str, address: str, mac: str) -> None:
    """A permanent neighbour, so that no ARP ever crosses the measured link."""
    with IPRoute() as ip:
        index = index_of(ip, ifname)
        ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)


def prepare_end(ifname: str) -> None:
    """What every veth end on the measured path gets."""
    disable_offloads(ifname)
    disable_ipv6(ifname)


def find_port(ifindex: int) -> str:
    """The veth end with this index in this namespace (an endpoint reads it as its ``iflink``)."""
    with IPRoute() as ip:
        try:
            (link,) = ip.get_links(ifindex)
        except NetlinkError as error:
            raise CellFailed(f"no interface with index {ifindex} here: {error}") from error
        info: Any = link.get_attr("IFLA_LINKINFO")
        kind = info and info.get_attr("IFLA_INFO_KIND")
        if kind != "veth":
            raise CellFailed(f"interface {ifindex} is a {kind}, not a veth end")
        return str(link.get_attr("IFLA_IFNAME"))


def describe_interface(ifname: str) -> dict[str, Any]:
    """``ifindex``, ``iflink`` (index of the other end, in its namespace), ``mac``, ``mtu``."""
    with IPRoute() as ip:
        (link,) = ip.get_links(index_of(ip, ifname))
        return {
            "ifindex": link["index"],
            "iflink": link.get_attr("IFLA_LINK"),
            "mac": link.get_attr("IFLA_ADDRESS"),
            "mtu": link.get_attr("IFLA_MTU"),
        }


def leave_bridge(port: str) -> None:
    """The relay alone carries frames from and to this port."""
    with IPRoute() as ip:
        ip.link("set", index=index_of(ip, port), master=0)


def join_bridge(port: str, bridge: str) -> None:
    with IPRoute() as ip:
        ip.link("set", index=index_of(ip, port), master=index_of(ip, bridge))


def unshare_net(user: bool) -> None:
    """A fresh network namespace for this process, with all rights in it.

    ``user``: inside a fresh user namespace whose root is the caller (then the process must have
    one thread only). Raises MachineCannot.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0))
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        remedy = "allow unprivileged user namespaces or run as root" if user else "run as root"
        raise MachineCannot(f"no network namespaces ({error}); {remedy}") from error


def build_middle() -> None:
    """The bridge, in this (own, fresh) network namespace."""
    with IPRoute() as ip:
        ip.link("set", index=index_of(ip, "lo"), state="up")
        ip.link("add", ifname=BRIDGE, kind="bridge", br_mcast_snooping=0)
        disable_ipv6(BRIDGE)
        ip.link("set", index=index_of(ip, BRIDGE), state="up")


def plug(pid: int, side: Side) -> str:
    """A veth pair between the bridge here and ``eth0`` in process ``pid``'s network namespace.

    The inner end gets its address, static ARP and nothing else (no route out, no IPv6). Returns
    the port's name here.
    """
    port = _PORTS[side]
    with IPRoute() as ip:
        ip.link(
            "add",
            ifname=port,
            kind="veth",
            mtu=MTU,
            peer={
                "ifname": INNER,
                "address": _MACS[side],
                "mtu": MTU,
                "net_ns_pid": pid,
            },
        )
        prepare_end(port)
        ip.link("set", index=index_of(ip, port), state="up")
    join_bridge(port, BRIDGE)
    in_net_of(pid, lambda: _configure_inner(side))
    return port


def _configure_inner(side: Side) -> None:
    prepare_end(INNER)
    with IPRoute() as ip:
        index = index_of(ip, INNER)
        ip.addr("add", index=index, address=_ADDRESSES[side], prefixlen=24)
        for name in ("lo", INNER):
            ip.link("set", index=index_of(ip, name), state="up")
    other = _OTHER[side]
    static_arp(INNER, _ADDRESSES[other], _MACS[other])


def in_net_of(pid: int, action: Callable[[], _T]) -> _T:
    """``action()`` inside another process's network namespace, in a thread that ends there
    (setns(2) moves one thread only)."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            join_namespace(pid, "net")
            results.append(action())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=inside, name=f"in-net-of-{pid}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
