"""The line protocol: who speaks, what a line means, and what may be written to a device."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import BadFrame, UsageError
from trunkline.gateway.profiles import Beat, LineProfile, Said, Store
from trunkline.settings import DeviceSettings


def profile(**changes: object) -> LineProfile:
    return LineProfile(DeviceSettings(**changes))  # type: ignore[arg-type]


def is_one_line_of_text(text: str) -> bool:
    """What a line may hold, said in another way than the profile says it."""
    return not any((ord(char) < 32 and char != "\t") or 127 <= ord(char) < 160 for char in text)


@pytest.mark.parametrize(
    ("line", "device"),
    [
        ("HELLO d1", "d1"),
        ("HELLO meter-7.a:b_C", "meter-7.a:b_C"),
        ("HELLO 0", "0"),
        ("HELLO " + "x" * 64, "x" * 64),
    ],
)
def test_the_first_line_says_who_the_device_is(line: str, device: str) -> None:
    assert profile().identify(line) == device


@pytest.mark.parametrize(
    "line",
    ["", "HELLO", "HELLO ", "hello d1", "HELLO d1 ", " HELLO d1", "HELLO -d1", "HELLO d/1", "HELLO dé", "HELLO a b",
     "HELLO " + "x" * 65, "HELLO d1\n", "GET / HTTP/1.1", "PING"],
)  # fmt: skip
def test_a_first_line_that_is_no_hello_is_refused_with_an_example(line: str) -> None:
    with pytest.raises(BadFrame, match="who you are, as in HELLO "):
        profile().identify(line)


def test_a_pattern_of_ones_own_is_kept_to() -> None:
    imei = profile(hello=r"##,imei:(?P<device>\d{15}),A;?")
    assert imei.identify("##,imei:359586015829802,A;") == "359586015829802"
    assert imei.identify("##,imei:359586015829802,A") == "359586015829802"
    with pytest.raises(BadFrame):
        imei.identify("HELLO d1")


def test_a_pattern_whose_group_is_empty_names_nobody() -> None:
    with pytest.raises(BadFrame):
        profile(hello=r"HI (?P<device>.*)").identify("HI ")
    with pytest.raises(BadFrame):
        profile(hello=r"HI( (?P<device>.+))?").identify("HI")


@pytest.mark.parametrize("device", ["a/b", "/", ".", ".."])
def test_an_id_that_would_be_lost_in_a_url_is_refused(device: str) -> None:
    with pytest.raises(BadFrame, match="no slash"):
        profile(hello=r"(?P<device>.+)").identify(device)


def test_an_id_that_the_table_cannot_hold_is_refused() -> None:
    wide = profile(hello=r"(?P<device>.+)")
    assert wide.identify("é" * 128) == "é" * 128
    with pytest.raises(BadFrame):
        wide.identify("é" * 129)


@pytest.mark.parametrize(
    ("line", "place", "name"),
    [
        (b"\x00", "character 1 ", "U+0000"),
        (b"ab\x00", "character 3 ", "U+0000"),
        (b"a\x1b[31m", "character 2 ", "U+001B"),
        (b"a\rb", "character 2 ", "U+000D"),
        (b"a\x7f", "character 2 ", "U+007F"),
        ("é\u0085".encode(), "character 2 ", "U+0085"),
    ],
)
def test_a_control_character_is_refused_and_named(line: bytes, place: str, name: str) -> None:
    with pytest.raises(BadFrame, match=place) as caught:
        profile().decode(line)
    assert name in str(caught.value)


@pytest.mark.parametrize(("line", "place"), [(b"\xff", 1), (b"abc\xc3", 4), (b"\xed\xa0\x80", 1), (b"a\xc0\x80", 2)])
def test_what_is_no_utf8_is_refused_with_its_place(line: bytes, place: int) -> None:
    with pytest.raises(BadFrame, match=f"byte {place} "):
        profile().decode(line)


@pytest.mark.parametrize("text", ["", "plain", "tab\tis fine", "é ü 漢 🙂", "no\u00a0break", "\u202eright to left"])
def test_text_is_text(text: str) -> None:
    assert profile().decode(text.encode()) == text


@given(st.binary(max_size=80))
def test_decode_raises_nothing_but_bad_frame(line: bytes) -> None:
    try:
        text = profile().decode(line)
    except BadFrame:
        with contextlib.suppress(UnicodeDecodeError):
            assert not is_one_line_of_text(line.decode())
    else:
        assert is_one_line_of_text(text)
        assert text.encode() == line


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("STORE [1,2]", Store("[1,2]")),
        ("STORE", Store("")),
        ("STORE ", Store("")),
        ("STORE  [1]", Store(" [1]")),
        ("STORE nonsense", Store("nonsense")),
        ("STORED 3", Said("STORED 3")),
        ("store [1]", Said("store [1]")),
        (" STORE [1]", Said(" STORE [1]")),
        ("PING", Beat()),
        ("PING ", Said("PING ")),
        ("ping", Said("ping")),
        ("", Said("")),
        ("220 V", Said("220 V")),
    ],
)
def test_a_line_is_a_beat_or_items_or_a_reply(line: str, meaning: object) -> None:
    assert profile().parse(line) == meaning


def test_the_heartbeat_and_its_answer_can_be_chosen() -> None:
    other = profile(heartbeat="*", heartbeat_answer="")
    assert other.parse("*") == Beat()
    assert other.parse("PING") == Said("PING")
    assert other.heartbeat_answer == b""
    assert profile().heartbeat_answer == b"PONG"


def test_the_limit_of_the_settings_is_the_framers() -> None:
    small = profile(line_limit_bytes=16)
    framer = small.new_framer()
    assert framer.receive(b"x" * 16 + b"\n") == [b"x" * 16]
    assert small.encode("x" * 16) == b"x" * 16
    with pytest.raises(UsageError, match=r"17 bytes; the line limit is 16 \(devices.line_limit_bytes\)"):
        small.encode("x" * 17)
    with pytest.raises(UsageError, match="17 bytes"):
        small.encode("é" * 8 + "x")


def test_each_connection_has_a_framer_of_its_own() -> None:
    one = profile()
    assert one.new_framer() is not one.new_framer()


@pytest.mark.parametrize(
    ("cmd", "complaint"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("\t", "empty"),
        ("a\nb", r"U\+000A"),
        ("a\r", r"U\+000D"),
        ("\x00", r"U\+0000"),
        ("a\x85b", r"U\+0085"),
        ("\ud800", "surrogate"),
    ],
)
def test_a_command_that_is_no_line_is_refused(cmd: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        profile().encode(cmd)


@given(st.text(st.one_of(st.characters(), st.sampled_from("\r\n\t\x00\x7f\x85\u2028 \ud800")), max_size=20))
def test_encode_takes_exactly_what_comes_back_as_the_same_one_line(cmd: str) -> None:
    small = profile(line_limit_bytes=16)
    try:
        line = small.encode(cmd)
    except UsageError:
        try:
            raw = cmd.encode()
        except UnicodeEncodeError:
            return
        # As a device of the same protocol would read it: not at all, or as nothing or something else.
        framer = small.new_framer()
        got = framer.receive(raw + b"\n")
        assert framer.error is not None or got != [raw] or not is_one_line_of_text(cmd) or not cmd.strip()
    else:
        framer = small.new_framer()
        (got_line,) = framer.receive(framer.encode(line))
        assert small.decode(got_line) == cmd
