"""What a peer sends is a message or a BadFrame; what a caller sends is bytes or a UsageError; nothing else."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Union

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import BadFrame, TrunklineError, UsageError
from trunkline.nesting import NESTING_LIMIT
from trunkline.wire import Codec, JsonCodec, MessagePackCodec, StructCodec, TextCodec


class Login(msgspec.Struct, tag="login", frozen=True):
    device: str
    version: int = 1


class Reading(msgspec.Struct, tag="reading", frozen=True, forbid_unknown_fields=True):
    volts: float
    notes: list[str] = []


class Tree(msgspec.Struct, frozen=True):
    inner: "Tree | None" = None


class Bag(msgspec.Struct, frozen=True):
    anything: Any = None


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def said_by(error: type[TrunklineError], call: Callable[[], object]) -> str:
    """What the error says that a call raises, if it raises one. Any other error is for the test to fail by."""
    try:
        call()
    except error as raised:
        return str(raised)
    return ""


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values(keys: st.SearchStrategy[Any], *leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
        texts(), *leaves,
    )  # fmt: skip
    return st.recursive(
        leaf,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
        max_leaves=12,
    )


STRUCTS: st.SearchStrategy[Login | Reading] = st.one_of(
    st.builds(Login, device=texts(), version=st.integers(-(2**63), 2**63 - 1)),
    st.builds(
        Reading, volts=st.floats(allow_nan=False, allow_infinity=False), notes=st.lists(texts(), max_size=3)
    ),
)  # fmt: skip

EITHER: Codec[Login | Reading] = StructCodec(Login | Reading)
EITHER_PACKED: Codec[Login | Reading] = StructCodec(Login | Reading, format="msgpack")
LOGIN = StructCodec(Login)
TREE = StructCodec(Tree)
BAG = StructCodec(Bag)
BAG_PACKED = StructCodec(Bag, "msgpack")

CODECS: dict[str, tuple[Codec[Any], st.SearchStrategy[Any]]] = {
    "text": (TextCodec(), texts()),
    "text as utf-16": (TextCodec("utf-16-le"), texts()),
    "text as gb18030": (TextCodec("gb18030"), texts()),
    "text as latin-1": (TextCodec("latin-1"), st.text(st.characters(max_codepoint=255), max_size=20)),
    "JSON": (JsonCodec(), values(texts())),
    "MessagePack": (MessagePackCodec(), values(st.one_of(texts(), st.integers(0, 99)), st.binary(max_size=9))),
    "structs as JSON": (EITHER, STRUCTS),
    "structs as MessagePack": (EITHER_PACKED, STRUCTS),
    "anything in a struct as JSON": (BAG, st.builds(Bag, anything=values(texts()))),
    "anything in a struct as MessagePack": (BAG_PACKED, st.builds(Bag, anything=values(texts()))),
}


def each() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("codec", "messages"), CODECS.values(), ids=CODECS.keys())


# What all of them promise.


@each()
@settings(max_examples=60)
@given(data=st.data())
def test_a_message_comes_out_as_it_went_in(
    codec: Codec[Any], messages: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    message = data.draw(messages)
    sent = codec.encode(message)
    assert isinstance(sent, bytes)
    assert codec.decode(sent) == message


@each()
@settings(max_examples=200)
@given(data=st.data())
def test_whatever_a_peer_sends_is_a_message_or_a_bad_frame_on_one_line(
    codec: Codec[Any], messages: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    sent = bytearray(codec.encode(data.draw(messages)))
    for _ in range(data.draw(st.integers(0, 3), label="changes")):
        at = data.draw(st.integers(0, len(sent)))
        sent[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    for received in (bytes(sent), data.draw(st.binary(max_size=60))):
        assert said_by(BadFrame, lambda received=received: codec.decode(received)).isprintable()


JSON_BYTES = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"a"', b":", b",", b"1", b"\\", b'"', b"\xff"]))
PACKED_BYTES = st.lists(
    st.sampled_from(
        [b"\x80", b"\x81", b"\x91", b"\xc1", b"\xc7\x0c\xff", b"\xd6\xff", b"\xdd", b"\xdf", b"\xa1", b"\1"]
    )
)


@given(JSON_BYTES, PACKED_BYTES)
def test_bytes_that_are_nearly_of_the_format_are_a_message_or_a_bad_frame(
    json: list[bytes], packed: list[bytes]
) -> None:
    for codec, received in ((JsonCodec(), json), (EITHER, json), (MessagePackCodec(), packed), (BAG_PACKED, packed)):
        stream = b"".join(received)
        assert said_by(BadFrame, lambda codec=codec, stream=stream: codec.decode(stream)).isprintable()


class Odd:
    """Nothing that anyone can send."""


ODD_MESSAGES = [Odd(), [Odd()], {Odd(): 1}, "\ud800", ["\ud800"], {"\ud800": 1}, {(1,): 1}, 1j, deep(5_000), b"\xff",
                {"a": Odd}, None, 2**70, -(2**70), Login("\udfff"),
                Login(device=Odd()), Login(device="a", version=2**70), Tree(), Reading(math.nan), float("inf"),
                [10**5_000], datetime.max.replace(tzinfo=UTC), {Login("a"): 1}, {1: 1, "1": 2}]  # fmt: skip


@each()
def test_whatever_a_caller_sends_is_bytes_or_a_usage_error_on_one_line(codec: Codec[Any], messages: Any) -> None:
    for message in ODD_MESSAGES:
        assert said_by(UsageError, lambda message=message: codec.encode(message)).isprintable()


@each()
def test_one_codec_serves_all_threads(codec: Codec[Any], messages: Any) -> None:
    message = {"text": "hello", "JSON": [1, {"a": None}], "MessagePack": [1, b"x"]}
    mine: Any = next((one for start, one in message.items() if codec is CODECS[start][0]), None)
    if mine is None:
        mine = "hello" if isinstance(codec, TextCodec) else Bag([1]) if codec in (BAG, BAG_PACKED) else Login("a")
    with ThreadPoolExecutor(4) as threads:
        sent = list(threads.map(codec.encode, [mine] * 400))
        assert set(sent) == {codec.encode(mine)}
        assert list(threads.map(codec.decode, sent)) == [mine] * 400


def test_a_codec_without_decode_and_encode_is_none() -> None:
    with pytest.raises(TypeError):
        Codec()  # type: ignore[abstract]


# Text.


@pytest.mark.parametrize("data", [b"\xff", b"ok\x80", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82"])
def test_bytes_that_are_no_utf_8_are_no_text(data: bytes) -> None:
    with pytest.raises(BadFrame, match="no utf-8"):
        TextCodec().decode(data)


def test_text_may_have_another_encoding() -> None:
    codec = TextCodec("GBK")
    assert codec.encode("电表") == b"\xb5\xe7\xb1\xed"
    assert codec.decode(b"\xb5\xe7\xb1\xed") == "电表"
    with pytest.raises(UsageError, match="can't be sent as gbk"):
        codec.encode("😀")


def test_what_is_no_text_is_refused() -> None:
    for message in (b"bytes", None, 5, bytearray(b"a")):
        with pytest.raises(UsageError, match="can't be sent as utf-8"):
            TextCodec().encode(message)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "encoding",
    ["", "utf-9", "hex", "rot13", "base64", "zlib", "a\0b", "é", "idna", "punycode", "unicode_escape",
     "raw-unicode-escape", "Unicode Escape", "undefined"],
)  # fmt: skip
def test_an_encoding_that_is_none_for_peers_is_refused(encoding: str) -> None:
    with pytest.raises(UsageError, match="encoding ="):
        TextCodec(encoding)


# JSON and MessagePack.


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1,]", b"NaN", b"{}x", b"'a'", b'"\xff"', b"1e999", b"01", b'{"a":1,}', b"\xef\xbb\xbf1", b"\0"],
)
def test_what_is_no_json_is_a_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame, match="not the JSON"):
        JsonCodec().decode(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91", b"\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\x81\x80\x01", b"\1\1"]
)
def test_what_is_no_message_pack_is_a_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame, match="not the MessagePack"):
        MessagePackCodec().decode(data)


def test_json_sends_what_it_lacks_as_what_is_nearest() -> None:
    codec = JsonCodec()
    assert codec.encode({1: b"a"}) == b'{"1":"YQ=="}'
    assert codec.encode([math.nan, math.inf]) == b"[null,null]"


def test_message_pack_has_bytes_times_and_extensions() -> None:
    codec = MessagePackCodec()
    message = [b"\xff", datetime(2026, 1, 2, tzinfo=UTC), msgspec.msgpack.Ext(5, b"x")]
    assert codec.decode(codec.encode(message)) == message


PACKED_DEEP = {
    "list": lambda levels: b"\x91" * levels + b"\1",
    "long list": lambda levels: b"\xdc\0\1" * levels + b"\1",
    "longest list": lambda levels: b"\xdd\0\0\0\1" * levels + b"\1",
    "map": lambda levels: b"\x81\xa1a" * levels + b"\1",
    "long map": lambda levels: b"\xde\0\1\1" * levels + b"\1",
    "longest map": lambda levels: b"\xdf\0\0\0\1\1" * levels + b"\1",
    "map behind a list in its key": lambda levels: b"\x81\x90" * (levels - 1) + b"\1",
    "list in a key": lambda levels: b"\x81" + b"\x91" * (levels - 1) + b"\1\1",
}


@pytest.mark.parametrize("stream", PACKED_DEEP.values(), ids=PACKED_DEEP.keys())
def test_message_pack_may_be_nested_as_deep_as_the_limit(stream: Callable[[int], bytes]) -> None:
    codec = MessagePackCodec()
    message = codec.decode(stream(NESTING_LIMIT))
    assert codec.decode(codec.encode(message)) == message
    for levels in (NESTING_LIMIT + 1, 500, 20_000):
        with pytest.raises(BadFrame, match="more than 100 deep"):
            codec.decode(stream(levels))


@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[0,{"b":', b"}]")])
def test_json_may_be_nested_as_deep_as_the_limit(start: bytes, end: bytes) -> None:
    codec, each = JsonCodec(), start.count(b"[") + start.count(b"{")
    levels = NESTING_LIMIT // each
    good = start * levels + b"0" + end * levels
    assert codec.decode(codec.encode(codec.decode(good))) == codec.decode(good)
    for levels in (NESTING_LIMIT // each + 1, 500, 20_000):
        with pytest.raises(BadFrame, match="more than 100 deep"):
            codec.decode(start * levels + b"0" + end * levels)


@pytest.mark.parametrize("codec", [JsonCodec(), MessagePackCodec()])
def test_what_is_nested_too_deep_is_not_sent_either(codec: Codec[Any]) -> None:
    assert codec.decode(codec.encode(deep(NESTING_LIMIT))) == deep(NESTING_LIMIT)
    for levels in (NESTING_LIMIT + 1, 500, 5_000):
        with pytest.raises(UsageError, match="more than 100 deep"):
            codec.encode(deep(levels))


def test_brackets_in_text_are_no_nesting() -> None:
    message = ["[{" * 500, [1], [[2]], {"]": "["}]
    for codec in (JsonCodec(), MessagePackCodec()):
        assert codec.decode(codec.encode(message)) == message
    assert MessagePackCodec().decode(MessagePackCodec().encode([b"\x91" * 500])) == [b"\x91" * 500]


def test_many_lists_beside_each_other_are_no_nesting() -> None:
    message = [[index, {"a": [index]}] for index in range(2_000)]
    for codec in (JsonCodec(), MessagePackCodec()):
        assert codec.decode(codec.encode(message)) == message
    assert BAG.decode(BAG.encode(Bag(message))) == Bag(message)


# Structs.


def test_the_tag_tells_which_struct_it_is() -> None:
    assert EITHER.encode(Login("m1")) == b'{"type":"login","device":"m1","version":1}'
    assert EITHER.decode(b'{"type":"reading","volts":230}') == Reading(230.0)
    assert EITHER_PACKED.decode(EITHER_PACKED.encode(Reading(1.5, ["a"]))) == Reading(1.5, ["a"])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"type":"login","device":5}', "Expected `str`, got `int` - at `$.device`"),
        (b'{"type":"login"}', "missing required field `device`"),
        (b'{"type":"logout"}', "Invalid value 'logout' - at `$.type`"),
        (b'{"device":"a"}', "missing required field `type`"),
        (b'{"type":"reading","volts":1,"amps":2}', "unknown field `amps`"),
        (b'{"type":"reading","volts":1,"notes":["a",null]}', "at `$.notes[1]`"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"type":"log\\nin \\u001b[2J"}', "log\\nin \\x1b[2J"),
    ],
)
def test_the_error_names_the_field_on_one_line(data: bytes, said: str) -> None:
    with pytest.raises(BadFrame) as caught:
        EITHER.decode(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_error_quotes_no_more_than_a_little_of_what_a_peer_sends() -> None:
    with pytest.raises(BadFrame) as caught:
        EITHER.decode(b'{"type":"' + b"\\u0007x" * 100_000 + b'"}')
    assert len(str(caught.value)) < 1_000


def test_a_struct_that_is_not_of_the_type_is_not_sent() -> None:
    class Newer(Login, tag="newer", frozen=True):
        pass

    with pytest.raises(UsageError, match="of type Reading; it must be Login"):
        LOGIN.encode(Reading(1.0))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="of type dict; it must be Login or Reading"):
        EITHER.encode({"type": "login"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="of type Newer"):
        LOGIN.encode(Newer("a"))


def test_a_struct_without_one_of_its_fields_is_not_sent() -> None:
    half = Untagged(1)
    del half.a
    with pytest.raises(UsageError, match="can't be sent as JSON: Struct field 'a' is unset"):
        StructCodec(Untagged).encode(half)


def test_structs_may_be_nested_as_deep_as_the_limit() -> None:
    def tree(levels: int) -> Tree:
        whole = Tree()
        for _ in range(levels - 1):
            whole = Tree(whole)
        return whole

    assert TREE.decode(TREE.encode(tree(NESTING_LIMIT))) == tree(NESTING_LIMIT)
    for levels in (NESTING_LIMIT + 1, 400):
        with pytest.raises(UsageError, match="more than 100 deep"):
            TREE.encode(tree(levels))
        with pytest.raises(BadFrame, match="more than 100 deep"):
            TREE.decode(msgspec.json.encode(tree(levels)))
    with pytest.raises(BadFrame, match="more than 100 deep"):
        TREE.decode(b'{"inner":' * 20_000)
    with pytest.raises(BadFrame, match="more than 100 deep"):
        BAG_PACKED.decode(b"\x81\xa8anything" + b"\x91" * NESTING_LIMIT + b"\1")


class Untagged(msgspec.Struct):
    a: int


class AlsoUntagged(msgspec.Struct):
    b: int


class Lost(msgspec.Struct):
    what: "NowhereToBeFound"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "message_type", [int, dict, Any, Login | None, Login | int, Untagged | AlsoUntagged, list[Login], "Login", Lost]
)
def test_types_that_are_no_structs_or_can_not_be_told_apart_are_refused(message_type: Any) -> None:
    with pytest.raises(UsageError, match="message_type: ") as caught:
        StructCodec(message_type)
    assert str(caught.value).isprintable()


def test_a_union_may_be_written_in_the_old_way() -> None:
    codec: Codec[Login | Reading] = StructCodec(Union[Login, Reading])  # type: ignore[arg-type]  # noqa: UP007
    assert codec.decode(codec.encode(Login("a"))) == Login("a")


def test_a_format_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match='format = \'yaml\': it must be "json" or "msgpack"'):
        StructCodec(Login, "yaml")  # type: ignore[arg-type]
