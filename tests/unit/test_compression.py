"""Compressed streams come back message by message, and no bytes make a reader allocate or raise what it may not."""

import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import BadFrame, FrameTooLarge, ProtocolError, UsageError
from trunkline.wire import compression
from trunkline.wire.compression import (
    COMPRESSIONS,
    Compressor,
    Decompressor,
    PackedMessages,
    ZlibCompressor,
    ZlibDecompressor,
    ZstdCompressor,
    ZstdDecompressor,
    is_available,
)

MIB = 1 << 20
NOISE = random.Random(0).randbytes(200_000)
JSON = b'{"id":%d,"op":"read","register":"voltage","at":"2024-05-01T12:00:00Z"}'
needs_zstd = pytest.mark.skipif(not is_available("zstd"), reason="the package zstandard is not installed")


class Kind(NamedTuple):
    """A compression: its two ends."""

    compressor: Callable[[], Compressor]
    decompressor: Callable[[], Decompressor]


KINDS = {
    "zlib": Kind(ZlibCompressor, ZlibDecompressor),
    "zlib with little memory": Kind(lambda: ZlibCompressor(9, 9, 1), lambda: ZlibDecompressor(9)),
    "zlib that stores": Kind(lambda: ZlibCompressor(0, 12, 5), ZlibDecompressor),
    "zstd": Kind(ZstdCompressor, ZstdDecompressor),
    "zstd with a small window": Kind(lambda: ZstdCompressor(1, 10), lambda: ZstdDecompressor(10)),
    "zstd with a large window": Kind(lambda: ZstdCompressor(5, 20), lambda: ZstdDecompressor(20)),
}


def each_but(*left_out: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(kind, id=name, marks=[needs_zstd] if "zstd" in name else [])
            for name, kind in KINDS.items()
            if name not in left_out
        ],
    )


each = each_but()
compressing = each_but("zlib that stores")
sensible = each_but("zlib with little memory")  # which stores in blocks of 128 bytes; no session has it
packed_each = pytest.mark.parametrize("name", ["zlib", pytest.param("zstd", marks=needs_zstd)])


def grown(work: Callable[[], object]) -> int:
    """The most bytes that Python's own memory grew by, while it worked."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# What goes in comes out.

messages = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 200_000).map(lambda size: NOISE[:size]),
    st.integers(0, 300_000).map(bytes),
    st.integers(0, 2_000).map(lambda count: JSON % count * (count % 50)),
)


@each
@settings(max_examples=30, deadline=None)
@given(sent=st.lists(messages, max_size=6))
def test_each_message_comes_back_when_its_bytes_have_come_and_no_later(kind: Kind, sent: list[bytes]) -> None:
    compressor, decompressor = kind.compressor(), kind.decompressor()
    for message in sent:
        assert decompressor.decompress(compressor.compress(message), len(message)) == message


@compressing
def test_messages_that_are_alike_become_much_shorter(kind: Kind) -> None:
    compressor = kind.compressor()
    first, *rest = [len(compressor.compress(JSON % number)) for number in range(1_000, 1_050)]
    assert max(rest) < first / 2


@sensible
@pytest.mark.parametrize("message", [b"", b"x", NOISE, NOISE[:4_097], bytes(NOISE[:2_000]) * 60], ids=len)
def test_what_can_not_be_compressed_grows_by_no_more_than_a_session_allows(kind: Kind, message: bytes) -> None:
    assert len(kind.compressor().compress(message)) <= len(message) + len(message) // 64 + 60


@each
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_one_byte_over_the_limit_is_too_large_and_the_limit_itself_is_not(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(messages.filter(bool))
    stream = kind.compressor().compress(message)
    assert kind.decompressor().decompress(stream, len(message)) == message
    with pytest.raises(FrameTooLarge, match=f"more than {len(message) - 1} bytes"):
        kind.decompressor().decompress(stream, len(message) - 1)


def test_a_zlib_stream_is_what_any_zlib_reads_and_writes() -> None:
    compressor, reader = ZlibCompressor(), zlib.decompressobj()
    for number in range(20):
        piece = compressor.compress(JSON % number)
        assert piece.endswith(b"\0\0\xff\xff")
        assert reader.decompress(piece) == JSON % number
    writer, decompressor = zlib.compressobj(), ZlibDecompressor()
    for number in range(20):
        piece = writer.compress(JSON % number) + writer.flush(zlib.Z_FULL_FLUSH)
        assert decompressor.decompress(piece, 100) == JSON % number


@needs_zstd
def test_a_zstd_stream_is_what_any_zstd_reads() -> None:
    zstandard = pytest.importorskip("zstandard")

    compressor, reader = ZstdCompressor(), zstandard.ZstdDecompressor().decompressobj()
    for number in range(20):
        assert reader.decompress(compressor.compress(JSON % number)) == JSON % number


# Bombs.


def zlib_bomb(size: int) -> bytes:
    return ZlibCompressor(9).compress(bytes(size))


def zstd_header(window_log: int = 10) -> bytes:
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])


def repeated(count: int) -> bytes:
    """A block of zstd that is one byte, `count` times."""
    return (count << 3 | 2).to_bytes(3, "little") + b"x"


def zstd_bomb(size: int, window_log: int = 14) -> bytes:
    return zstd_header(window_log) + repeated(1 << window_log) * (size >> window_log)


@pytest.mark.parametrize("limit", [0, 1, 65_535, 65_536, 65_537, MIB, 4 * MIB])
def test_a_zlib_bomb_is_found_before_more_than_the_limit_is_allocated(limit: int) -> None:
    bomb = zlib_bomb(64 * MIB)
    decompressor = ZlibDecompressor()

    def work() -> None:
        with pytest.raises(FrameTooLarge):
            decompressor.decompress(bomb, limit)

    assert grown(work) < limit + MIB // 2


@needs_zstd
@pytest.mark.parametrize("limit", [0, 1, 16_383, 16_384, 16_385, MIB, 4 * MIB])
def test_a_zstd_bomb_is_found_before_more_than_the_limit_is_allocated(limit: int) -> None:
    bomb = zstd_bomb(1_024 * MIB)
    assert len(bomb) < MIB
    decompressor = ZstdDecompressor()

    def work() -> None:
        with pytest.raises(FrameTooLarge):
            decompressor.decompress(bomb, limit)

    assert grown(work) < limit + MIB // 2


@needs_zstd
def test_a_zstd_bomb_up_to_the_limit_is_a_message() -> None:
    assert ZstdDecompressor().decompress(zstd_bomb(MIB), MIB) == b"x" * MIB


def test_a_zlib_bomb_up_to_the_limit_is_a_message() -> None:
    assert ZlibDecompressor().decompress(zlib_bomb(MIB), MIB) == bytes(MIB)


# Streams that are not what they should be.


def bad(decompressor: Decompressor, stream: bytes, text: str, limit: int = 1_000) -> None:
    with pytest.raises(BadFrame, match=text):
        decompressor.decompress(stream, limit)


def test_20_000_empty_zlib_streams_behind_each_other_are_an_error_and_not_a_loop() -> None:
    bad(ZlibDecompressor(), zlib.compress(b"") * 20_000, "the compressed stream ends")


@needs_zstd
def test_20_000_empty_zstd_frames_behind_each_other_are_an_error_and_not_a_loop() -> None:
    zstandard = pytest.importorskip("zstandard")

    bad(ZstdDecompressor(), zstandard.compress(b"") * 20_000, "the compressed stream ends")
    bad(ZstdDecompressor(), (zstd_header() + b"\1\0\0") * 20_000, "the compressed stream ends")


def test_a_zlib_stream_that_ends_is_an_error_whatever_is_behind() -> None:
    for behind in (b"", b"trailing garbage", zlib.compress(b"more")):
        bad(ZlibDecompressor(), zlib.compress(b"hello") + behind, "the compressed stream ends")
    decompressor = ZlibDecompressor()
    bad(decompressor, zlib.compress(b"hello"), "the compressed stream ends")
    bad(decompressor, b"more", "the compressed stream ends")


@needs_zstd
def test_a_zstd_stream_that_ends_is_an_error_whatever_is_behind() -> None:
    zstandard = pytest.importorskip("zstandard")

    for behind in (b"", b"trailing garbage", zstandard.compress(b"more")):
        bad(ZstdDecompressor(), zstandard.compress(b"hello") + behind, "the compressed stream ends")


@needs_zstd
@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"x", "does not begin as a Zstandard frame"),
        (zlib.compress(b"hello"), "does not begin as a Zstandard frame"),
        (struct.pack("<II", 0x184D2A50, 4) + b"skip", "does not begin as a Zstandard frame"),
        (zstd_header()[:4], "can't be decompressed"),
        (zstd_header()[:5], "ends within its head"),
        (zstd_header(15), "can't be decompressed: .* too much memory"),
        (b"\x28\xb5\x2f\xfd\x60\xff\xff", "can't be decompressed: .* too much memory"),
        (b"\x28\xb5\x2f\xfd\x01\x00\x01", "can't be decompressed"),
        (zstd_header() + b"\x02", "ends within a block"),
        (zstd_header() + repeated(5)[:3], "ends within a block"),
        (zstd_header() + b"\x28\0\0abcd", "ends within a block"),
        (zstd_header() + b"\x06\0\0", "can't be decompressed"),
        (zstd_header() + repeated(1_025), "can't be decompressed"),
        (zstd_header() + repeated((1 << 21) - 1), "can't be decompressed"),
        (zstd_header() + b"\x2c\0\0xxxxx", "can't be decompressed"),
        (zstd_header() + repeated(5) + zstd_header(), "ends within a block|can't be decompressed"),
    ],
    ids=lambda value: value.hex()[:40] if isinstance(value, bytes) else None,
)  # fmt: skip
def test_what_is_no_zstd_stream_is_a_typed_error(stream: bytes, text: str) -> None:
    bad(ZstdDecompressor(), stream, text)


@pytest.mark.parametrize("stream", [b"\0\0", b"hello", b"\x78\x9c\x07", b"\x78\xbb\0\0\0\1", b"\x28\xb5\x2f\xfd"])
def test_what_is_no_zlib_stream_is_a_typed_error(stream: bytes) -> None:
    bad(ZlibDecompressor(), stream, "can't be decompressed")


def test_a_zlib_stream_with_a_larger_window_than_agreed_is_an_error() -> None:
    bad(ZlibDecompressor(12), ZlibCompressor().compress(b"hello"), "can't be decompressed: .*window")


@each
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_stream_with_wrong_bytes_in_it_gives_a_message_or_a_typed_error(kind: Kind, data: st.DataObject) -> None:
    compressor, decompressor = kind.compressor(), kind.decompressor()
    for _ in range(3):
        stream = bytearray(compressor.compress(data.draw(messages)))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(stream)))
            stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        try:
            message = decompressor.decompress(bytes(stream), 100_000)
        except ProtocolError:
            return
        assert len(message) <= 100_000


@each
@settings(deadline=None)
@given(garbage=st.binary(max_size=200))
def test_garbage_gives_a_message_or_a_typed_error(kind: Kind, garbage: bytes) -> None:
    try:
        message = kind.decompressor().decompress(garbage, 100)
    except ProtocolError:
        return
    assert len(message) <= 100


# Messages with their size.


def packed(name: str) -> PackedMessages:
    return PackedMessages(name, name)


@packed_each
def test_a_packed_message_states_its_size_and_comes_back(name: str) -> None:
    sender, receiver = packed(name), packed(name)
    for message in (b"hello" * 100, NOISE, b"", bytes(MIB), JSON):
        piece = sender.pack(message)
        assert int.from_bytes(piece[:4], "big") == len(message)
        assert receiver.unpack(piece, MIB) == message


@needs_zstd
def test_the_two_directions_may_be_compressed_differently() -> None:
    one, other = PackedMessages("zstd", "zlib"), PackedMessages("zlib", "zstd")
    assert one.unpack(other.pack(b"hello"), 10) == b"hello"
    assert other.unpack(one.pack(b"hello"), 10) == b"hello"


@packed_each
def test_a_size_over_the_limit_is_an_error_before_anything_is_decompressed(name: str) -> None:
    receiver = packed(name)
    with pytest.raises(FrameTooLarge, match="101 bytes; the limit is 100"):
        receiver.unpack(b"\0\0\0\x65" + b"not even looked at", 100)


@packed_each
@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_message_of_another_size_than_it_states_is_an_error(name: str, size: int) -> None:
    piece = packed(name).pack(b"hello")
    with pytest.raises(FrameTooLarge if size < 5 else BadFrame):
        packed(name).unpack(size.to_bytes(4, "big") + piece[4:], 100)


@packed_each
def test_a_message_that_is_cut_short_is_an_error_wherever_it_is_cut(name: str) -> None:
    message = NOISE[:300] + JSON
    piece = packed(name).pack(message)
    # The last bytes of a flush say nothing of the message.
    for end in range(len(piece) - 5):
        with pytest.raises(BadFrame):
            packed(name).unpack(piece[:end], 1_000)


@packed_each
def test_a_stream_takes_its_memory_when_the_first_message_comes(name: str) -> None:
    messages: Any = packed(name)
    assert messages._compressor is None
    messages.pack(b"hello")
    assert messages._compressor is not None
    assert messages._decompressor is None
    assert not hasattr(messages, "__dict__")


def test_a_zlib_session_takes_a_fraction_of_zlibs_usual_memory() -> None:
    usual = grown(lambda: ZlibCompressor().compress(b"hello"))
    assert grown(lambda: packed("zlib").pack(b"hello")) < usual / 3


# What is installed and what is not.


@pytest.mark.parametrize(
    "make",
    [
        lambda: ZlibCompressor(level=10),
        lambda: ZlibCompressor(wbits=7),
        lambda: ZlibCompressor(memory_level=10),
        lambda: ZlibDecompressor(wbits=99),
        lambda: is_available("brotli"),
    ],
)
def test_a_value_that_can_not_be_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


@needs_zstd
@pytest.mark.parametrize(
    "make",
    [
        lambda: ZstdCompressor(level=99),
        lambda: ZstdCompressor(window_log=99),
        lambda: ZstdDecompressor(window_log=9),
        lambda: ZstdDecompressor(window_log=28),
    ],
)
def test_a_value_that_zstd_can_not_have_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


def test_without_its_package_zstd_is_not_available_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert [name for name in COMPRESSIONS if is_available(name)] == ["zlib"]
    for make in (ZstdCompressor, ZstdDecompressor):
        with pytest.raises(UsageError, match="pip install zstandard"):
            make()


def test_with_its_package_zstd_is_available() -> None:
    pytest.importorskip("zstandard")
    assert all(is_available(name) for name in compression.COMPRESSIONS)
