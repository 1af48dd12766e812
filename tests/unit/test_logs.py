"""One event is one line, whatever a device had to say."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.logs import JsonFormatter, KeyValueFormatter, event, start_logging

nasty = st.text(
    st.one_of(st.characters(), st.sampled_from('\n\r\x00\x1b\x85\u2028\ud800"= \\')),
    max_size=20,
)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
    lambda name: name not in ("at", "level", "logger", "event")
)


def record(message: str, facts: dict[str, object], error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    made = logging.LogRecord("trunkline.gateway", logging.WARNING, __file__, 1, message, None, exc_info)
    made.facts = facts
    made.created, made.msecs = 1_767_323_045.678, 678.0
    return made


def facts_of(line: str) -> dict[str, str]:
    """Reads the facts back out of a line of key=value, as a program would."""
    found = {}
    while line:
        key, _, line = line.partition("=")
        if line.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(line)
            line = line[end:].removeprefix(" ")
        else:
            value, _, line = line.partition(" ")
        found[key] = value
    return found


def test_an_event_is_a_moment_a_level_a_place_a_message_and_its_facts() -> None:
    facts: dict[str, object] = {"device": "d1", "address": "127.0.0.1:5000", "epoch": 3}
    line = KeyValueFormatter().format(record("device online", facts))
    assert line == ("2026-01-02T03:04:05.678Z WARNING gateway device online device=d1 address=127.0.0.1:5000 epoch=3")


def test_an_event_as_json_holds_the_same() -> None:
    line = JsonFormatter().format(record("device online", {"device": "d1", "epoch": 3}))
    assert json.loads(line) == {
        "at": "2026-01-02T03:04:05.678Z",
        "level": "WARNING",
        "logger": "trunkline.gateway",
        "event": "device online",
        "device": "d1",
        "epoch": 3,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("d1", "d1"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb", r'"a\nb"'),
        ("a\r\nERROR forged", r'"a\r\nERROR forged"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x00", r'"\u0000"'),
        ("é", r'"\u00e9"'),
        (1.5, "1.5"),
        (None, "None"),
    ],
)
def test_a_value_that_is_not_plain_is_quoted(value: object, shown: str) -> None:
    assert KeyValueFormatter().format(record("x", {"said": value})).endswith(f" x said={shown}")


@given(st.dictionaries(names, nasty, max_size=4), nasty)
def test_an_event_is_always_exactly_one_line_and_its_facts_can_be_read_back(facts: dict[str, str], text: str) -> None:
    line = KeyValueFormatter().format(record("the event", dict(facts)))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert facts_of(line.partition("the event")[2].strip()) == facts
    assert len(KeyValueFormatter().format(record(text, dict(facts))).splitlines()) == 1


@given(st.dictionaries(names, nasty | st.integers() | st.binary(max_size=4) | st.lists(nasty, max_size=2)), nasty)
def test_json_is_always_one_ascii_line_that_parses(facts: dict[str, object], text: str) -> None:
    line = JsonFormatter().format(record(text, dict(facts)))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    read = json.loads(line)
    assert read["event"] == text
    assert {name: read[name] for name in facts} == {
        name: str(value) if isinstance(value, bytes) else value for name, value in facts.items()
    }


@pytest.mark.parametrize("formatter", [KeyValueFormatter(), JsonFormatter()])
def test_an_exception_stays_on_the_line(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        made = record("it failed", {})
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert len(line.splitlines()) == 1
    assert "Traceback" in line
    assert r"ValueError: line one\nline two" in line


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Puts the logging of the process back as it was."""
    root, own = logging.getLogger(), logging.getLogger("trunkline")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    own.setLevel(own_level)


def test_the_log_shows_our_events_and_only_the_warnings_of_others(root: logging.Logger) -> None:
    stream = io.StringIO()
    start_logging("INFO", stream=stream)
    event(logging.getLogger("trunkline.gateway"), logging.INFO, "ours", device="d 1")
    event(logging.getLogger("trunkline.gateway"), logging.DEBUG, "too fine")
    logging.getLogger("elsewhere").info("theirs")
    logging.getLogger("elsewhere").warning("their\nwarning")
    first, second = stream.getvalue().splitlines()
    assert first.endswith(' INFO gateway ours device="d 1"')
    assert second.endswith(r' WARNING elsewhere "their\nwarning"')


def test_the_log_can_be_json(root: logging.Logger) -> None:
    stream = io.StringIO()
    start_logging("DEBUG", as_json=True, stream=stream)
    event(logging.getLogger("trunkline.tcp"), logging.DEBUG, "fine", size=3)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "fine"
    assert json.loads(line)["size"] == 3


class Costly:
    """Notes whether anybody asked for its text."""

    asked = False

    def __str__(self) -> str:
        self.asked = True
        return "costly"


def test_an_event_below_the_level_costs_nothing(root: logging.Logger) -> None:
    start_logging("WARNING", stream=io.StringIO())
    value = Costly()
    event(logging.getLogger("trunkline.tcp"), logging.INFO, "not shown", value=value)
    assert not value.asked
    event(logging.getLogger("trunkline.tcp"), logging.WARNING, "shown", value=value)
    assert value.asked
