"""Services: what is a method, and what its arguments may be."""

import contextlib
import datetime
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import RpcError, UsageError
from trunkline.rpc import CallContext, Method, Service

encode = msgspec.msgpack.encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
TYPES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(),
    bytes: st.binary(),
    bool: st.booleans(),
    list[int]: st.lists(st.integers(0, 100)),
    dict[str, float]: st.dictionaries(st.text(), st.floats(allow_nan=False)),
    int | None: st.none() | st.integers(0, 100),
    datetime.datetime: st.datetimes(timezones=st.just(datetime.UTC)),
    Any: VALUES,
}


def method_of(types: list[Any], defaults: list[Any]) -> Method:
    """A method with arguments of these types, the last ones with defaults."""

    def function(*args: Any) -> Any:
        return args

    names = [f"a{index}" for index in range(len(types))]
    source = {name: kind for name, kind in zip(names, types, strict=True)}  # noqa: C416
    function.__annotations__ = source
    import inspect

    required = len(types) - len(defaults)
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if index < required else defaults[index - required],
            )
            for index, name in enumerate(names)
        ]
    )
    return Method("m", function)


@given(st.data(), st.lists(st.sampled_from(list(TYPES)), max_size=4))
def test_arguments_of_the_right_types_are_read_as_they_were_sent(data: st.DataObject, types: list[Any]) -> None:
    values = [data.draw(TYPES[kind]) for kind in types]
    count = data.draw(st.integers(0, len(types)))
    defaults = [None if kind is Any else "default" for kind in types[count:]]
    method = method_of(types, defaults)
    assert method.arguments(msgspec.Raw(encode(values))) == tuple(values)
    left_out = data.draw(st.integers(0, len(defaults)))
    given_values = values[: len(values) - left_out]
    expected = (*given_values, *(defaults[len(defaults) - left_out :] if left_out else []))
    assert method.arguments(msgspec.Raw(encode(given_values))) == expected


@given(VALUES, st.lists(st.sampled_from(list(TYPES)), max_size=3), st.booleans())
def test_whatever_is_sent_is_read_or_refused_by_one_kind_of_error(value: Any, types: list[Any], defaults: bool) -> None:
    method = method_of(types, [None] * len(types) if defaults else [])
    try:
        found = method.arguments(msgspec.Raw(encode(value)))
    except ValueError:
        return
    assert isinstance(value, list)
    assert len(found) == len(types)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for method in (method_of([int, Any], []), method_of([Any, str], ["x"]), method_of([], [])):
        with contextlib.suppress(ValueError, RecursionError):
            method.arguments(msgspec.Raw(data))


def add(function: Any, **options: Any) -> Method:
    service = Service()
    service.method(**options)(function)
    (method,) = service.methods.values()
    return method


async def items(numbers: AsyncIterator[int]) -> AsyncIterator[str]:
    async for number in numbers:
        yield str(number)


def test_a_method_is_what_its_function_is() -> None:
    async def coroutine(context: CallContext, a: int) -> None: ...

    def function(a: int, b: str = "x") -> float: ...  # type: ignore[empty-body]

    assert add(function).kind == "function"
    assert add(function).is_plain
    assert add(function, blocking=True).kind == "blocking"
    assert not add(function, roles=("admin",)).is_plain
    assert (add(coroutine).kind, add(coroutine).takes_context) == ("coroutine", True)
    stream = add(items)
    assert (stream.kind, stream.takes_stream, stream.item_type, stream.result_type) == ("stream", "numbers", int, str)
    assert add(function).describe()["arguments"] == [
        {"name": "a", "type": "int", "required": True},
        {"name": "b", "type": "str", "required": False},
    ]


def no_types(a, b): ...  # type: ignore[no-untyped-def]
def star(*args: int) -> None: ...
def named(*, a: int) -> None: ...
def two_streams(a: AsyncIterator[int], b: AsyncIterator[int]) -> None: ...
def stream_of_function(a: AsyncIterator[int]) -> None: ...
async def stream_in_front(a: AsyncIterator[int], b: int) -> None: ...
def unknown(a: "NoSuchType") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unfit(a: int | str | Annotated[str, "x"] | bytes | list[int] | list[str]) -> None: ...
def plain(a: int) -> None: ...
async def waits() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "why"),
    [
        (star, {}, "can't be given by its place"),
        (named, {}, "can't be given by its place"),
        (two_streams, {}, "must be the last"),
        (stream_of_function, {}, "only a coroutine"),
        (stream_in_front, {}, "must be the last"),
        (unknown, {}, "its types can't be read"),
        (unfit, {}, "can't be checked"),
        (plain, {"name": "trunkline.ping"}, "reserved"),
        (plain, {"limit": 5}, "runs alone"),
        (waits, {"limit": 0}, "1 or more"),
        (waits, {"blocking": True}, "does not block"),
    ],
)
def test_what_can_be_no_method_is_said_where_it_is_declared(function: Any, options: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Service().method(**options)(function)


def test_two_methods_of_one_name_are_an_error() -> None:
    service = Service()
    service.method(plain)
    with pytest.raises(UsageError, match="already"):
        service.method(plain)


def test_without_types_anything_is_taken() -> None:
    method = add(no_types)
    assert method.arguments(msgspec.Raw(encode([1, {"x": 2}]))) == (1, {"x": 2})


def test_an_error_keeps_its_name_text_and_data() -> None:
    class NoSuchMeter(RpcError):
        """There is no such meter."""

    error = NoSuchMeter("no meter m9", {"near": ["m8"]})
    assert (error.code, str(error), error.data) == ("NoSuchMeter", "no meter m9", {"near": ["m8"]})
