"""The page on the native protocol is true: its vectors, its errors, its table of types and its client."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from trunkline.errors import FrameTooLarge
from trunkline.wire.frames import Frames

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "protocol.md").read_text(encoding="utf-8")
LINE = re.compile(r"^([><]) ([0-9a-f ]+?) {2,}(.+)$")
THRESHOLD = 32  # the page's compressed messages are short, so as to be readable


def section(title: str) -> str:
    _, found, text = PAGE.partition(f"\n### {title}\n")
    if not found:
        _, found, text = PAGE.partition(f"\n## {title}\n")
    assert found, f"the page has no section {title}"
    return re.split(r"\n##+ ", text)[0]


class Step(NamedTuple):
    """One line of a transcript: who sends what bytes, and what they are."""

    sender: str
    data: bytes
    kind: str
    text: str


def transcript(title: str) -> list[Step]:
    steps = []
    (block,) = re.findall(r"```text\n(.*?)```", section(title), re.DOTALL)
    for line in block.splitlines():
        match = LINE.match(line)
        assert match is not None, f"not a step: {line}"
        kind, _, text = match[3].partition(" ")
        steps.append(Step(match[1], bytes.fromhex(match[2]), kind, text))
    assert steps
    return steps


def errors(title: str) -> list[tuple[bytes, str, str]]:
    rows = re.findall(r"^\| `([0-9a-f ]+)` \| `(\w+)` \| (.+) \|$", section(title), re.MULTILINE)
    assert len(rows) > 5
    return [(bytes.fromhex(data), code, text) for data, code, text in rows]


def side(steps: list[Step], mark: str, **more: Any) -> Frames:
    """A session that says the hello which the transcript has for this side."""
    (said,) = [json.loads(step.text) for step in steps if step.sender == mark and step.kind == "HELLO"] or [{}]
    limit = said.get("limit_bytes", 65_536)
    return Frames(
        limit,
        compression=said.get("features", ()),
        threshold_bytes=THRESHOLD,
        agent=said.get("agent", ""),
        auth=said.get("auth"),
        **more,
    )


def taken(session: Frames) -> bytes:
    output = bytes(session.output)
    session.output.clear()
    return output


def send(sender: Frames, step: Step) -> None:
    """The sender says what the step says, in the very same bytes."""
    message = step.text.encode()
    if step.kind == "HELLO":
        sender.start()
        assert taken(sender) == step.data
    elif step.kind == "DATA":
        assert sender.encode(message) == step.data
    elif step.kind == "DATA_COMPRESSED":
        # Another version of the library may compress otherwise: only the type and the size are certain.
        assert sender.encode(message)[4:9] == step.data[4:9]
    elif step.kind == "PING" and len(step.data) == 5:
        sender.ping()
        assert taken(sender) == step.data
    elif step.kind == "PONG" and sender.output:
        assert taken(sender) == step.data
    elif step.kind == "CLOSE":
        sender.close(step.text)
        assert taken(sender) == step.data


def play(steps: list[Step], sides: dict[str, Frames]) -> None:
    for step in steps:
        send(sides[step.sender], step)
        receiver = sides["<" if step.sender == ">" else ">"]
        expected = [step.text.encode()] if step.kind in ("DATA", "DATA_COMPRESSED") else []
        assert receiver.receive(step.data) == expected, step
        assert receiver.error is None
        assert receiver.peer_reason == (step.text if step.kind == "CLOSE" else None)


def test_the_session_on_the_page_is_what_both_sides_say_and_hear() -> None:
    steps = transcript("A session")
    assert [step.kind for step in steps].count("DATA") == 3
    sides = {mark: side(steps, mark) for mark in "><"}
    play(steps, sides)
    assert not sides[">"].output
    assert not sides["<"].output


@pytest.mark.parametrize("name", ["zlib", "zstd"])
def test_the_compressed_sessions_on_the_page_are_read_as_it_says(name: str) -> None:
    if name == "zstd":
        pytest.importorskip("zstandard")
    steps = transcript(f"Compressed with {name}")
    assert [step.kind for step in steps].count("DATA_COMPRESSED") == 2
    play(steps, {mark: side(steps, mark) for mark in "><"})


def test_a_peer_whose_token_is_not_known_is_refused_as_on_the_page() -> None:
    steps = transcript("Refused")
    asks = side(steps, ">")
    judges = side(steps, "<", authorize=lambda hello: None if hello.auth == "right" else "no such token")
    judges.start()
    asks.start()
    assert judges.receive(steps[0].data) == []
    assert taken(asks) == steps[0].data
    assert taken(judges) == steps[1].data
    assert asks.receive(steps[1].data) == []
    assert asks.peer_reason == steps[1].text
    assert not judges.established
    assert not asks.established


@pytest.mark.parametrize(("data", "code", "text"), errors("Errors before the hello"))
@pytest.mark.parametrize("at_once", [True, False])
def test_each_error_before_the_hello_is_answered_as_on_the_page(
    data: bytes, code: str, text: str, at_once: bool
) -> None:
    session = Frames()
    for piece in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
        assert session.receive(piece) == []
    assert session.error is not None
    assert agree(farewell(taken(session)), f"{code}: {text}")
    assert agree(str(session.error), text if code == "bad_frame" else f"{code}: {text}")


@pytest.mark.parametrize(("data", "code", "text"), errors("Errors after the hello"))
@pytest.mark.parametrize("at_once", [True, False])
def test_each_error_after_the_hello_is_answered_as_on_the_page(
    data: bytes, code: str, text: str, at_once: bool
) -> None:
    steps = transcript("Compressed with zlib")
    session = side(steps, "<")
    session.receive(steps[0].data)
    assert session.established
    for piece in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
        assert session.receive(piece) == []
    assert agree(str(session.error), text)
    assert isinstance(session.error, FrameTooLarge) == ("limit is" in text or "more than" in text)
    session.close(code)
    assert agree(farewell(taken(session)), f"{code}: {text}")


def agree(found: str, text: str) -> bool:
    """Whether a text is the page's; where that ends in dots, a library has the last word."""
    return found == text or (text.endswith("...") and found.startswith(text[:-3]) and len(found) > len(text))


def farewell(data: bytes) -> str:
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[4] == 6
    return data[5:].decode()


def test_each_type_has_the_bound_that_the_page_gives() -> None:
    rows = re.findall(r"^\| `0x(\w\w)` \| (\w+) \| .+ \| ([\d,]+) \|$", section("Frames"), re.MULTILINE)
    assert [name for _, name, _ in rows] == ["HELLO", "PING", "PONG", "CLOSE"]
    for number, name, longest in rows:
        for more in (0, 1):
            session = Frames(16)
            if name != "HELLO":
                session.receive(transcript("A session")[0].data)
            size = int(longest.replace(",", "")) + more
            session.receive((size + 1).to_bytes(4, "big") + bytes.fromhex(number))
            assert (session.error is None) == (more == 0), name
            assert more == 0 or isinstance(session.error, FrameTooLarge)


def test_every_type_that_the_page_reserves_is_an_error_and_every_extension_is_skipped() -> None:
    hello = transcript("A session")[0].data
    for kind in range(256):
        session = Frames()
        session.receive(hello)
        assert session.receive(b"\0\0\0\1" + bytes([kind]) + b"\0\0\0\2\2x") == (
            [b"x"] if skipped(kind) else [b"", b"x"] if kind == 2 else []
        )
        assert (session.error is None) == (skipped(kind) or kind in (2, 6)), hex(kind)


def skipped(kind: int) -> bool:
    """Whether a frame of that type without a payload is passed over."""
    return kind in (4, 5) or kind >= 0x80


def test_the_client_on_the_page_talks_to_a_session() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    client: dict[str, Any] = {}
    exec(compile(block, "protocol.md", "exec"), client)
    session = Frames(1_000, agent="node", authorize=lambda hello: None if hello.auth == "s3cret" else "no")
    session.start()
    assert session.receive(client["hello"](500, agent="mine", auth="s3cret")) == []
    assert session.established
    session.ping()
    stream = taken(session) + session.encode_all([b"one", b"", b"x" * 500])
    session.close("drained")
    stream += taken(session)
    reader = client["Reader"](500)
    frames = [frame for at in range(0, len(stream), 7) for frame in reader.frames(stream[at : at + 7])]
    assert [kind for kind, _ in frames] == [1, 4, 2, 2, 2, 6]
    assert json.loads(frames[0][1])["limit_bytes"] == 1_000
    assert frames[1:] == [(4, b""), (2, b"one"), (2, b""), (2, b"x" * 500), (6, b"drained")]
    assert session.receive(client["frame"](5) + client["frame"](2, b"hi")) == [b"hi"]
    with pytest.raises(ValueError, match="a frame of"):
        list(client["Reader"](10).frames(b"\xff\xff\xff\xff\2"))
