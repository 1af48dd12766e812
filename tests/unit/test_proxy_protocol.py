"""A PROXY header tells whose connection it is, is read alike however it is split, and is never over its limit."""

import importlib.util
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trunkline.errors import BadFrame, UsageError
from trunkline.wire.proxy_protocol import (
    V1_LIMIT_BYTES,
    V2_LIMIT_BYTES,
    ProxyHeader,
    TlvType,
    crc32c,
    encode_v1,
    encode_v2,
)

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
FOUR = ("192.0.2.1", 56324), ("198.51.100.7", 443)
SIX = ("2001:db8::1", 1), ("2001:db8::2", 65535)


def read(stream: bytes) -> ProxyHeader:
    """What stands in a header that is complete."""
    header = ProxyHeader()
    assert header.receive(stream) == b""
    return header


def failure(stream: bytes) -> str:
    """Why a stream is refused; the same at each further call."""
    header = ProxyHeader()
    with pytest.raises(BadFrame) as first:
        header.receive(stream)
    with pytest.raises(BadFrame) as second:
        header.receive(encode_v1(*FOUR))
    assert str(first.value) == str(second.value)
    assert (header.version, header.source, header.destination, header.tlvs, header._held) == (0, None, None, (), b"")
    return str(first.value)


def v2(family: int, body: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


# As they stand in the specification.


def test_the_line_of_version_1_names_both_ends() -> None:
    header = ProxyHeader()
    rest = header.receive(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n")
    assert rest == b"GET / HTTP/1.1\r\n"
    assert (header.version, header.source, header.destination) == (1, ("192.168.0.1", 56324), ("192.168.0.11", 443))


def test_the_longest_lines_of_version_1_are_read() -> None:
    full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    four = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"
    six = f"PROXY TCP6 {full} {full} 65535 65535\r\n".encode()
    unknown = f"PROXY UNKNOWN {full} {full} 65535 65535\r\n".encode()
    assert (len(four), len(six), len(unknown)) == (56, 104, V1_LIMIT_BYTES)
    assert read(four).source == ("255.255.255.255", 65535)
    assert read(six).destination == (full, 65535)
    assert (read(unknown).version, read(unknown).source) == (1, None)


@pytest.mark.parametrize("line", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN \r\n", b"PROXY UNKNOWN \x00\xff what ever\r\n"])
def test_of_an_unknown_peer_the_line_tells_nothing(line: bytes) -> None:
    header = read(line)
    assert (header.version, header.source, header.destination) == (1, None, None)


def test_version_2_names_both_ends_of_ipv4_and_of_ipv6() -> None:
    four = read(v2(0x11, bytes.fromhex("c0000201 c6336407 dc04 01bb")))
    assert (four.version, four.source, four.destination) == (2, *FOUR)
    six = read(v2(0x21, bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff")))
    assert (six.version, six.source, six.destination) == (2, *SIX)
    assert read(v2(0x12, bytes.fromhex("c0000201 c6336407 dc04 01bb"))).source == FOUR[0]


def test_a_proxys_own_connection_keeps_its_address_whatever_the_header_holds() -> None:
    for body in (b"", bytes(12), b"\x03\0", bytes(300)):
        for family in (0x00, 0x11, 0x21, 0x31):
            header = read(v2(family, body, command=0x20))
            assert (header.version, header.source, header.destination, header.tlvs) == (2, None, None, ())


@pytest.mark.parametrize("family", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
def test_a_family_that_is_not_said_has_no_address(family: int) -> None:
    assert read(v2(family, b"")).source is None
    assert read(v2(family, b"whatever it is")).source is None


@pytest.mark.parametrize("family", [0x31, 0x32])
def test_a_unix_socket_has_no_address_and_what_follows_its_paths_is_read(family: int) -> None:
    header = read(v2(family, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0") + tlv(TlvType.ALPN, b"h2")))
    assert (header.version, header.source, header.tlvs) == (2, None, ((TlvType.ALPN, b"h2"),))


def test_what_a_proxy_adds_is_kept_in_its_order_without_padding() -> None:
    tlvs = [(TlvType.AUTHORITY, "exämple.com".encode()), (0xE0, b""), (0xE0, b"again"), (TlvType.NOOP, bytes(9)),
            (TlvType.SSL, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3")), (0xFF, bytes(256))]  # fmt: skip
    assert read(encode_v2(*FOUR, tlvs)).tlvs == tuple(one for one in tlvs if one[0] != TlvType.NOOP)


# The checksum.


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)  # fmt: skip
def test_the_checksum_is_that_of_the_standards_examples(data: bytes, value: int) -> None:
    assert crc32c(data) == value


def test_a_checksum_may_stand_anywhere_among_the_parts() -> None:
    after = tlv(TlvType.NOOP, bytes(3)) + tlv(TlvType.AUTHORITY, b"example.com")
    addresses = bytes.fromhex("c0000201 c6336407 dc04 01bb")
    value = crc32c(v2(0x11, addresses + tlv(TlvType.CRC32C, bytes(4)) + after)).to_bytes(4, "big")
    header = read(v2(0x11, addresses + tlv(TlvType.CRC32C, value) + after))
    assert header.tlvs == ((TlvType.CRC32C, value), (TlvType.AUTHORITY, b"example.com"))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_with_a_checksum_no_byte_can_change_unnoticed(position: int, change: int) -> None:
    stream = bytearray(encode_v2(*SIX, [(TlvType.AUTHORITY, b"example.com")], checksum=True))
    at = position % len(stream)
    stream[at] ^= change
    header = ProxyHeader()
    try:
        done = header.receive(bytes(stream)) is not None
    except BadFrame:
        return
    # What is accepted names nobody, is not complete, or says that it has no checksum.
    if done and header.source is not None:
        assert at == len(stream) - 7
        assert TlvType.CRC32C not in dict(header.tlvs)
    else:
        assert 12 <= at < 16


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0\0\0\0", b"\0\0\0\0\0"])
def test_a_wrong_checksum_is_refused(value: bytes) -> None:
    assert failure(encode_v2(*FOUR, [(TlvType.CRC32C, value)])) == "the checksum of a PROXY header is wrong"


def test_a_checksum_of_another_length_is_refused_even_if_its_number_is_right() -> None:
    head = v2(0x11, bytes(12) + tlv(TlvType.CRC32C, bytes(5)))
    assert failure(head[:-5] + crc32c(head).to_bytes(5, "big")) == "the checksum of a PROXY header is wrong"


# What can't be read.

V1_BAD = [
    b"PROXY \r\n", b"PROXY TCP4\r\n", b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY UNKNOWNS\r\n",
    b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n", b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", b"PROXY TCP6 :: :: 1 65536\r\n",
    b"PROXY TCP6 :: :: 01 2\r\n", b"PROXY TCP6 :: :: -1 2\r\n", b"PROXY TCP6 :: :: +1 2\r\n",
    b"PROXY TCP6 :: :: 1_0 2\r\n",
    b"PROXY TCP6 :: ::  2\r\n", b"PROXY TCP6 :: :: 1 99999999\r\n", "PROXY TCP6 :: :: ١ 2\r\n".encode(),
    b"PROXY TCP6 ::\xff :: 1 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", V1_BAD)
def test_a_line_that_is_not_as_it_must_be_is_refused(line: bytes) -> None:
    assert "version 1" in failure(line)


def test_a_line_must_end_within_its_limit() -> None:
    line = b"PROXY UNKNOWN " + b"x" * (V1_LIMIT_BYTES - 16)
    assert read(line + b"\r\n").version == 1
    assert "107 bytes" in failure(line + b"x\r\n")
    assert ProxyHeader().receive(line + b"x") is None


@pytest.mark.parametrize("start", [b"G", b"PROXy", b"PROXY\r", b"PROXYT", b"p", b" ", b"\r\n\r\n\r", b"\0", b"\x16"])
def test_what_begins_otherwise_is_refused_at_its_first_wrong_byte(start: bytes) -> None:
    assert failure(start) == "the connection does not begin with a PROXY header"
    assert ProxyHeader().receive(start[:-1]) is None


@pytest.mark.parametrize("command", [*range(0x20), *range(0x22, 0x100, 7)])
def test_another_version_or_command_is_refused_as_soon_as_it_is_there(command: int) -> None:
    assert f"0x{command:02x}" in failure(SIGNATURE + bytes([command]))


@pytest.mark.parametrize("family", [0x03, 0x0F, 0x13, 0x40, 0x41, 0xF1, 0xFF])
def test_another_family_or_protocol_is_refused_as_soon_as_it_is_there(family: int) -> None:
    assert f"0x{family:02x}" in failure(SIGNATURE + bytes([0x21, family]))


def test_a_header_that_promises_more_than_the_limit_is_refused_before_it_comes() -> None:
    assert "the limit is 4096" in failure(SIGNATURE + b"\x21\x11\x10\x01")
    assert "the limit is 4096" in failure(SIGNATURE + b"\x20\x00\xff\xff")
    padding = V2_LIMIT_BYTES - 12 - 3
    assert read(encode_v2(*FOUR, [(TlvType.NOOP, bytes(padding))])).source == FOUR[0]


@pytest.mark.parametrize(
    ("family", "least"), [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)]
)
def test_a_header_too_short_for_its_addresses_is_refused(family: int, least: int) -> None:
    assert "addresses alone" in failure(SIGNATURE + bytes([0x21, family]) + (least - 1).to_bytes(2, "big"))
    assert read(v2(family, bytes(least))).version == 2


@pytest.mark.parametrize("part", [b"\x01", b"\x01\0", b"\x01\0\x01", b"\x01\0\x03ab", b"\x04\xff\xff", b"\x01\0\0\x01"])
def test_a_part_that_reaches_beyond_the_header_is_refused(part: bytes) -> None:
    assert "longer than the header" in failure(v2(0x11, bytes(12) + part))


# Whatever comes, however it is split.

ports = st.integers(0, 65535)
pairs = st.one_of(
    *(st.tuples(*[st.tuples(st.ip_addresses(v=version).map(str), ports)] * 2) for version in (4, 6)),
    st.just((None, None)),
)
tlv_lists = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (3, 4)), st.binary(max_size=60)), max_size=6
)


@given(pairs, tlv_lists, st.booleans(), st.binary(max_size=300), st.lists(st.integers(0, 900), max_size=8))
def test_what_a_proxy_sends_is_read_however_it_is_split(
    pair: tuple[Any, Any], tlvs: list[tuple[int, bytes]], checksum: bool, rest: bytes, cuts: list[int]
) -> None:
    for version, sent in ((1, encode_v1(*pair)), (2, encode_v2(*pair, tlvs, checksum=checksum))):
        stream = sent + rest
        header = ProxyHeader()
        came: list[bytes] = []
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
            more = header.receive(stream[start:end])
            assert (more is None) == (header.version == 0)
            came += [more or b""]
        assert b"".join(came) == rest
        assert (header.version, header.source, header.destination) == (version, *pair)
        if version == 2 and pair[0] is not None:
            assert [one for one in header.tlvs if one[0] != TlvType.CRC32C] == tlvs
            assert (TlvType.CRC32C in dict(header.tlvs)) == checksum


@pytest.mark.parametrize("sent", [encode_v1(*SIX), encode_v2(*FOUR, [(1, b"h2")], checksum=True), encode_v2()])
def test_every_split_in_two_and_every_truncation(sent: bytes) -> None:
    for cut in range(len(sent)):
        header = ProxyHeader()
        assert header.receive(sent[:cut]) is None
        assert (header.version, header.source) == (0, None)
        assert header.receive(sent[cut:] + b"rest") == b"rest"
        assert header.receive(b"and more") == b"and more"


def load_fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_proxy_protocol", FUZZ / "fuzz_proxy_protocol.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZER = load_fuzz()
SEEDS: dict[str, bytes] = FUZZER.corpus()


@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 255), st.lists(st.tuples(st.integers(0, 400), ports), max_size=4))
def test_corrupt_headers_are_refused_or_read_alike_however_they_are_split(
    name: str, split: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(SEEDS[name])
    for position, change in changes:
        data[position % len(data)] = change % 256
    data[0] = split
    FUZZER.check(bytes(data))


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]))
def test_noise_is_refused_or_read_alike_however_it_is_split(noise: bytes, start: bytes) -> None:
    FUZZER.check(noise[:1] + start + noise[1:])


def test_the_streams_that_fuzzing_begins_with_are_those_of_its_script() -> None:
    written = {path.name: path.read_bytes() for path in (FUZZ / "corpus" / "proxy_protocol").iterdir()}
    assert written == SEEDS, "the corpus is out of date; run: python fuzz/fuzz_proxy_protocol.py corpus"
    for data in written.values():
        FUZZER.check(data)


class _WaitsForAll(ProxyHeader):
    def receive(self, data: bytes) -> bytes | None:
        return super().receive(data) if data.endswith(b"hello") or self.version else None


class _LosesTheRest(ProxyHeader):
    def receive(self, data: bytes) -> bytes | None:
        return None if super().receive(data) is None else b"lost"


class _RaisesAnything(ProxyHeader):
    def receive(self, data: bytes) -> bytes | None:
        return super().receive(data.decode("ascii").encode())


@pytest.mark.parametrize("broken", [_WaitsForAll, _LosesTheRest, _RaisesAnything])
def test_fuzzing_would_find_a_broken_reader(monkeypatch: pytest.MonkeyPatch, broken: type[ProxyHeader]) -> None:
    monkeypatch.setattr(FUZZER, "ProxyHeader", broken)

    def found(data: bytes) -> bool:
        try:
            FUZZER.check(data)
        except (AssertionError, UnicodeDecodeError):
            return True
        return False

    assert any(found(data) for data in SEEDS.values())


def test_a_header_that_never_ends_takes_no_more_than_its_limit() -> None:
    header = ProxyHeader()
    tracemalloc.start()
    try:
        header.receive(SIGNATURE + b"\x21\x11\x10\x00")
        for _ in range(V2_LIMIT_BYTES - 1):
            assert header.receive(b"\0") is None
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


# What can't be sent.


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (FOUR[0], None), (None, FOUR[1]), (FOUR[0], SIX[1]), (("localhost", 1), FOUR[1]), (("", 1), FOUR[1]),
        (("192.0.2.1", -1), FOUR[1]), (FOUR[0], ("192.0.2.1", 65536)), (("fe80::1%eth0", 1), SIX[1]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
def test_what_is_no_pair_of_addresses_is_not_sent(encode: Callable[..., bytes], source: Any, destination: Any) -> None:
    with pytest.raises(UsageError):
        encode(source, destination)


def test_a_header_over_the_limit_is_not_sent() -> None:
    fits = V2_LIMIT_BYTES - 12 - 3
    assert len(encode_v2(*FOUR, [(1, bytes(fits))])) == 16 + V2_LIMIT_BYTES
    for tlvs, checksum in (([(1, bytes(fits + 1))], False), ([(1, bytes(fits))], True), ([(1, bytes(70_000))], False)):
        with pytest.raises(UsageError, match="limit is 4096"):
            encode_v2(*FOUR, tlvs, checksum=checksum)


@given(st.integers())
def test_a_type_is_one_byte(kind: int) -> None:
    assume(not 0 <= kind <= 255)
    with pytest.raises(UsageError):
        encode_v2(*FOUR, [(kind, b"")])
