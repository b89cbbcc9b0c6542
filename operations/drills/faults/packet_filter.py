"""Dropping the packets of some TCP ports on this machine: what a caller sees of a region that is cut off.

Speaks to the kernel's nftables by netlink, as machines without the `nft` command have them too. Needs Linux and root.
Nothing else: what becomes of the requests is what a drill finds out.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

TABLE = "fleet-drill"

_NETLINK_NETFILTER, _NFTABLES = 12, 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR = 2
_IPV4 = 2
# The kernel removes the table with the socket that made it, so also after a SIGKILL.
_OWNED = 2
# Not at the sending side: there the kernel tells the sender of the loss.
_LOCAL_IN = 1
_TCP = 6
_ANSWER_S = 5.0


class FilterError(Exception):
    """The kernel does not drop packets for us. The message says why."""


class Blackhole:
    """Drops what comes to these TCP ports and what comes from them, until `close` or the end of this process."""

    def __init__(self, ports: Iterable[int]) -> None:
        """Raises FilterError where this machine or this user cannot do it; then nothing is changed."""
        if not hasattr(socket, "AF_NETLINK"):
            raise FilterError("packets are dropped by Linux' nftables only, and this is another system")
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise FilterError(f"the kernel has no packet filter: {os.strerror(error.errno or 0)}") from None
        try:
            self._socket.settimeout(_ANSWER_S)
            self._socket.bind((0, 0))
            self._send(_messages(sorted(set(ports))))
        except OSError as error:
            self._socket.close()
            reasons = {
                errno.EPERM: "it takes root with CAP_NET_ADMIN, and no other drill on this machine at the same time",
                errno.EPROTONOSUPPORT: "this kernel is without nftables",
                errno.EOPNOTSUPP: "it takes Linux 5.12 or newer",
                errno.EINVAL: "it takes Linux 5.12 or newer",
            }
            raise FilterError(f"no packets can be dropped: {reasons.get(error.errno or 0, str(error))}") from None

    def close(self) -> None:
        """Packets pass again. May be called again and again."""
        self._socket.close()

    def _send(self, messages: Sequence[bytes]) -> None:
        """One transaction: all of it or nothing. Raises OSError with the kernel's reason."""
        begin = _message(_BATCH_BEGIN, 0, 0, _header(0, _NFTABLES))
        end = _message(_BATCH_END, 0, len(messages) + 1, _header(0, _NFTABLES))
        self._socket.send(begin + b"".join(messages) + end)
        for _ in messages:
            answer = self._socket.recv(8192)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                code = struct.unpack_from("=i", answer, 16)[0] if kind == _ERROR else 0
                if code:
                    raise OSError(-code, os.strerror(-code))
                answer = answer[(length + 3) & ~3 :]


def refusal() -> str:
    """Why no packets can be dropped here, empty where they can. Tries it, on no port."""
    try:
        Blackhole([]).close()
    except FilterError as error:
        return str(error)
    return ""


def _messages(ports: Sequence[int]) -> list[bytes]:
    """A table, a chain at the receiving side, and two rules for each port."""
    hook = _nested(4, _number(1, _LOCAL_IN) + _number(2, 0))
    chain = _text(1, TABLE) + _text(3, "input") + hook + _text(7, "filter")
    bodies = [(_NEW_TABLE, _text(1, TABLE) + _number(2, _OWNED)), (_NEW_CHAIN, chain)]
    # Offsets in the header of TCP: whence and whither.
    bodies += [(_NEW_RULE, _text(1, TABLE) + _text(2, "input") + _nested(4, _dropped(port, offset))) for port in ports for offset in (0, 2)]
    return [
        _message(_NFTABLES << 8 | kind, _ACK | _CREATE | (_APPEND if kind == _NEW_RULE else 0), sequence, _header(_IPV4, 0) + body)
        for sequence, (kind, body) in enumerate(bodies, start=1)
    ]


def _dropped(port: int, offset: int) -> bytes:
    """Expressions of a rule: the protocol is TCP, the port is this one, drop."""
    protocol = _expression("meta", _number(1, 1) + _number(2, 16))
    place = _expression("payload", _number(1, 1) + _number(2, 2) + _number(3, offset) + _number(4, 2))
    drop = _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, 0))))
    return protocol + _equals(bytes([_TCP])) + place + _equals(struct.pack(">H", port)) + drop


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1) + _number(2, 0) + _nested(3, _attribute(1, value)))


def _expression(name: str, data: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, data))


def _header(family: int, resource: int) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | 0x8000, value)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
