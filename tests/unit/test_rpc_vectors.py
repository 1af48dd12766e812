"""The page on calls is true: its vectors, its tables of messages and codes, and what it says can't be read."""

import json
import re
import typing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from trunkline.errors import BadFrame
from trunkline.rpc import failures, messages
from trunkline.wire import Frames

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
LINE = re.compile(r"^([><]) ([0-9a-f ]+?) {2,}([A-Z]+) (\[.+\])$")
KINDS = {kind.__struct_config__.tag: kind for kind in typing.get_args(messages.Message)}
TITLES = [
    "Calls", "Failures", "Deadlines and cancelling", "A stream as a result", "A stream as an argument", "A call back",
    "A farewell",
]  # fmt: skip


def section(title: str) -> str:
    _, found, text = PAGE.partition(f"\n### {title}\n")
    if not found:
        _, found, text = PAGE.partition(f"\n## {title}\n")
    assert found, f"the page has no section {title}"
    return re.split(r"\n##+ ", text)[0]


class Step(NamedTuple):
    """One line of a transcript: who sends what, element by element, and what it is."""

    sender: str
    elements: list[bytes]
    kind: str
    values: list[Any]

    @property
    def data(self) -> bytes:
        return b"".join(self.elements)


def transcript(title: str) -> list[Step]:
    steps = []
    (block,) = re.findall(r"```text\n(.*?)```", section(title), re.DOTALL)
    for line in block.splitlines():
        match = LINE.match(line)
        assert match is not None, f"not a step: {line}"
        elements = [bytes.fromhex(element) for element in match[2].split()]
        steps.append(Step(match[1], elements, match[3], json.loads(match[4])))
    assert steps
    return steps


def rows(title: str) -> list[list[str]]:
    """The cells of all tables of a section, without the head of the first."""
    lines = re.findall(r"^\|(.+)\|$", section(title), re.MULTILINE)
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in found if not set(row[0]) <= set("- ")][1:]


ALL_STEPS = [step for title in TITLES for step in transcript(title)]


@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: f"{step.sender} {step.kind} {step.values[1:3]}")
def test_the_bytes_of_a_message_are_what_stands_beside_them(step: Step) -> None:
    head, *elements = step.elements
    assert head[0] == 0x90 + len(elements)
    assert [msgspec.msgpack.decode(element) for element in elements] == step.values
    assert messages.encode(step.values) == step.data  # the shortest forms


@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: f"{step.sender} {step.kind} {step.values[1:3]}")
def test_a_message_is_read_with_the_defaults_that_the_page_gives(step: Step) -> None:
    message = messages.decode(step.data)
    kind = type(message)
    assert kind is KINDS[step.values[0]]
    assert kind.__name__.upper() == step.kind
    assert plain(message) == with_defaults(step.kind, step.values)
    assert plain(messages.decode(messages.encode(message))) == plain(message)


def plain(message: messages.Message) -> dict[str, Any]:
    values = msgspec.structs.asdict(message)
    return {name: msgspec.msgpack.decode(v) if isinstance(v, msgspec.Raw) else v for name, v in values.items()}


def elements_of(text: str) -> dict[str, str | None]:
    """The names of a message's elements as the page lists them, with their defaults as JSON."""
    parts = [part.strip().partition(" = ") for part in text.split(",")]
    return {name: default.replace("nil", "null") or None for name, _, default in parts}


def with_defaults(name: str, values: list[Any]) -> dict[str, Any]:
    (listed,) = [elements_of(row[2]) for row in rows("Messages") if row[1] == name]
    found = dict(zip(listed, values[1:], strict=False))
    return found | {name: json.loads(default or "") for name, default in listed.items() if name not in found}


def test_the_page_lists_every_message_with_its_elements_in_their_order() -> None:
    listed = {int(row[0]): (row[1], list(elements_of(row[2]))) for row in rows("Messages") if row[0].isdigit()}
    assert listed == {tag: (kind.__name__.upper(), list(kind.__struct_fields__)) for tag, kind in KINDS.items()}


def test_every_kind_of_message_is_shown_and_its_elements_are_explained() -> None:
    assert {step.kind for step in ALL_STEPS} == {kind.__name__.upper() for kind in KINDS.values()}
    explained = {name for row in rows("Messages") if not row[0].isdigit() for name in row[0].split(", ")}
    assert explained >= {field for kind in KINDS.values() for field in kind.__struct_fields__}


@pytest.mark.parametrize("shortest", [[1, 1, "add"], [3, 1, "usage"], [5, "log"], [9]])
def test_elements_with_a_default_may_be_left_out_and_more_may_stand_behind(shortest: list[Any]) -> None:
    name = KINDS[shortest[0]].__name__.upper()
    full = [shortest[0], *with_defaults(name, shortest).values()]
    for end in range(len(shortest), len(full) + 1):
        assert plain(messages.decode(messages.encode(full[:end]))) == with_defaults(name, shortest)
    assert plain(messages.decode(messages.encode([*full, "more"]))) == with_defaults(name, shortest)
    with pytest.raises(BadFrame):
        messages.decode(messages.encode(shortest[:-1]))


@pytest.mark.parametrize("head", ["dc0002", "dd00000002"])
def test_the_longest_forms_of_messagepack_are_read_as_well(head: str) -> None:
    assert messages.decode(bytes.fromhex(head + "d30000000000000004 cf0000000000000003")) == messages.Cancel(3)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}}])
def test_results_items_and_data_may_be_anything(value: object) -> None:
    for message in ([2, 1, value], [6, 1, value], [3, 1, "NoSuchMeter", "", value]):
        assert list(plain(messages.decode(messages.encode(message))).values())[-1] == value


@pytest.mark.parametrize(
    ("message", "place", "limit"),
    [([1, 1, "add", [], 0], 4, 2**53), ([1, 1, "add", [], 0, None, 0], 6, 2**31 - 1), ([8, 1, 0], 2, 2**31 - 1)],
)
def test_numbers_have_the_bounds_that_the_page_gives(message: list[Any], place: int, limit: int) -> None:
    for good in (0, limit):
        message[place] = good
        assert good in plain(messages.decode(messages.encode(message))).values()
    for bad in (-1, limit + 1):
        message[place] = bad
        with pytest.raises(BadFrame, match="int"):
            messages.decode(messages.encode(message))


@pytest.mark.parametrize(("data", "why"), [row[:2] for row in rows("Messages that can't be read")])
def test_what_the_page_says_can_not_be_read_is_an_error_of_its_own_kind(data: str, why: str) -> None:
    with pytest.raises(BadFrame, match=r"^no message of a call: .+"):
        messages.decode(bytes.fromhex(data.strip("`")))


def test_nesting_is_read_as_deep_as_the_page_allows_and_refused_when_it_is_absurd() -> None:
    for depth, good in ((100, True), (10_000, False)):
        data = b"\x93\x02\x01" + b"\x91" * depth + b"\x90"
        if good:
            assert isinstance(messages.decode(data), messages.Reply)
        else:
            with pytest.raises(BadFrame):
                messages.decode(data)


def test_the_page_lists_every_code_of_trunkline_itself() -> None:
    codes = {getattr(failures, name) for name in failures.__all__ if name.isupper()}
    assert {row[0].strip("`") for row in rows("Errors")} == codes


def test_a_message_travels_in_the_frame_that_the_page_shows() -> None:
    (shown,) = re.findall(r"^`(0000[0-9a-f ]+)`\.$", section("Test vectors"), re.MULTILINE)
    session, peer = Frames(), Frames()
    peer.start()
    session.receive(bytes(peer.output))
    assert session.encode(transcript("Calls")[0].data) == bytes.fromhex(shown)
