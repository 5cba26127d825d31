"""MQTT 3.1.1 and 5 packets: bytes in, packets out, and the other way round. No I/O.

Section numbers are those of the MQTT 5 specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = [
    "CONNACK", "CONNECT", "DISCONNECT", "OVERSIZE", "PINGREQ", "PINGRESP", "PUBACK", "PUBCOMP", "PUBLISH",
    "PUBREC", "PUBREL", "SUBACK", "SUBSCRIBE", "UNSUBACK", "UNSUBSCRIBE",
    "Malformed", "Packet", "PacketReader", "acknowledge", "code_of", "packet", "properties_of", "publish",
    "text",
]  # fmt: skip

# The first byte of each packet, its flags included where they are fixed (2.1.3).
CONNECT, CONNACK = 0x10, 0x20
PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0

OVERSIZE = 0x100
"""Set in the first byte of a PUBLISH too large to be kept: only its topic and packet identifier follow."""

Packet: TypeAlias = "tuple[int, bytes]"
"""The first byte, and all after the length."""


class Malformed(ConnectionError):
    """What came is not MQTT; the connection cannot go on."""


class PacketReader:
    """Cuts a stream into packets.

    Args:
        max_packet: the longest packet that is kept, in bytes after its length. A longer PUBLISH is skipped
            and never held; a longer packet of any other kind is malformed.
    """

    def __init__(self, max_packet: int) -> None:
        self._max_packet = max_packet
        self._buffer = bytearray()
        self._need = 0
        self._skip = 0

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that the data completes, in order.

        Raises:
            Malformed: it is not MQTT.
        """
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            data = bytes(self._buffer)
            self._buffer = bytearray()
        packets: list[Packet] = []
        at, end, largest = 0, len(data), self._max_packet
        need = 2
        while end - at >= 2:
            first, length, begin = data[at], data[at + 1], at + 2
            if length > 127:
                found = _varint(data, at + 1)
                if found is None:
                    need = 5
                    break
                length, begin = found
            stop = begin + length
            if length > largest:
                prefix = self._prefix(first, data, begin)
                if prefix > end:
                    need = prefix - at
                    break
                packets.append((first | OVERSIZE, data[begin:prefix]))
                self._skip = max(0, stop - end)
                at = min(stop, end)
            elif stop > end:
                need = stop - at
                break
            else:
                packets.append((first, data[begin:stop]))
                at = stop
        if at < end:
            self._buffer += data[at:]
            # A length of five bytes or a prefix may be complete with fewer than are waited for.
            self._need = need if need > 5 else end - at + 1
        return packets

    @staticmethod
    def _prefix(first: int, data: bytes, begin: int) -> int:
        """Return where the topic and the identifier of a large PUBLISH end."""
        if first & 0xF0 != PUBLISH:
            raise Malformed(f"a packet of kind {first:#x} is too large")
        if len(data) < begin + 2:
            return begin + 2
        return begin + 2 + int.from_bytes(data[begin : begin + 2], "big") + (2 if first & 6 else 0)


def packet(first: int, body: bytes = b"") -> bytes:
    """Put the first byte and the length before a body."""
    return bytes((first,)) + _length(len(body)) + body


def publish(first: int, topic: bytes, mid: int, payload: bytes, *, v5: bool) -> bytes:
    """Make a PUBLISH.

    Args:
        first: `PUBLISH` with its flags.
        topic: with its length before it.
        mid: the packet identifier; 0 for QoS 0, which has none.
        v5: whether an empty set of properties belongs in it.
    """
    size = len(topic) + len(payload) + (2 if mid else 0) + v5
    head = bytes((first, size)) if size < 128 else bytes((first,)) + _length(size)
    middle = mid.to_bytes(2, "big") if mid else b""
    if v5:
        middle += b"\0"
    return b"".join((head, topic, middle, payload))


def acknowledge(first: int, mid: int) -> bytes:
    """Make a PUBACK, PUBREC, PUBREL or PUBCOMP that says that all is well."""
    return bytes((first, 2, mid >> 8, mid & 255))


def text(value: str | bytes) -> bytes:
    """Make a field of text or bytes, its length first (1.5.4)."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def code_of(body: bytes) -> int:
    """Return the reason code of a PUBACK, PUBREC or PUBCOMP; 0 where it is left out."""
    return body[2] if len(body) > 2 else 0


_BYTE, _TWO, _FOUR, _VARINT, _TEXT, _BYTES, _PAIR = range(7)
_PROPERTIES: Mapping[int, tuple[str, int]] = {
    0x01: ("payload_format", _BYTE), 0x02: ("message_expiry", _FOUR), 0x03: ("content_type", _TEXT),
    0x08: ("response_topic", _TEXT), 0x09: ("correlation_data", _BYTES), 0x0B: ("subscription", _VARINT),
    0x11: ("session_expiry", _FOUR), 0x12: ("client_id", _TEXT), 0x13: ("keep_alive", _TWO),
    0x15: ("auth_method", _TEXT), 0x16: ("auth_data", _BYTES), 0x1A: ("response_info", _TEXT),
    0x1C: ("server_reference", _TEXT), 0x1F: ("reason", _TEXT), 0x21: ("receive_maximum", _TWO),
    0x22: ("topic_alias_maximum", _TWO), 0x23: ("topic_alias", _TWO), 0x24: ("maximum_qos", _BYTE),
    0x25: ("retain_available", _BYTE), 0x26: ("user", _PAIR), 0x27: ("maximum_packet", _FOUR),
    0x28: ("wildcards_available", _BYTE), 0x29: ("identifiers_available", _BYTE),
    0x2A: ("shared_available", _BYTE),
}  # fmt: skip
"""Names and kinds of the properties that a broker may send (2.2.2.2)."""


def properties_of(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Read the properties that begin at an offset; return them and where they end.

    ``user`` is a list of pairs, as a name may come twice.

    Raises:
        Malformed: they are none.
    """
    found = _varint(data, at)
    if found is None or found[0] + found[1] > len(data):
        raise Malformed("properties are cut short")
    size, at = found
    end = at + size
    properties: dict[str, Any] = {}
    while at < end:
        name, kind = _PROPERTIES.get(data[at], ("", -1))
        value: Any
        try:
            if kind == _PAIR:
                key, at = _field(data, at + 1)
                what, at = _field(data, at)
                properties.setdefault(name, []).append((key.decode(), what.decode()))
                continue
            if kind in (_TEXT, _BYTES):
                value, at = _field(data, at + 1)
                value = value.decode() if kind == _TEXT else value
            elif kind == _VARINT:
                value, at = _varint(data, at + 1) or (0, end + 1)
            elif kind >= 0:
                value, at = _number(data, at + 1, (1, 2, 4)[kind])
            else:
                raise Malformed(f"property {data[at]:#x} is unknown")
        except (struct.error, UnicodeDecodeError) as error:
            raise Malformed(f"property {name} is none: {error}") from None
        properties[name] = value
    if at != end:
        raise Malformed("properties are cut short")
    return properties, end


def _number(data: bytes, at: int, size: int) -> tuple[int, int]:
    return int(struct.unpack_from({1: "!B", 2: "!H", 4: "!I"}[size], data, at)[0]), at + size


def _field(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _number(data, at, 2)
    if at + size > len(data):
        raise Malformed("a field is cut short")
    return data[at : at + size], at + size


def _length(size: int) -> bytes:
    """Write a variable byte integer (1.5.5)."""
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        if not size:
            out.append(low)
            return bytes(out)
        out.append(low | 128)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Read one; return it and where it ends, None if it is not all there."""
    value = 0
    for number, byte in enumerate(data[at : at + 4]):
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    if len(data) - at >= 4:
        raise Malformed("a length has more than four bytes")
    return None
