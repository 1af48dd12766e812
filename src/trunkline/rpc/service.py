"""Services: typed functions and coroutines that a peer can call."""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints, overload

import msgspec

from trunkline.errors import RpcError, UsageError
from trunkline.rpc.context import CallContext
from trunkline.rpc.encoding import decoder_of
from trunkline.rpc.figures import MethodFigures

__all__ = ["RESERVED_PREFIX", "Method", "Service"]

F = TypeVar("F", bound=Callable[..., Any])

RESERVED_PREFIX = "trunkline."
"""Methods that are built in have names that begin so."""


class Method:
    """One method of a service, and how its arguments are read.

    Attributes:
        arguments: makes the arguments, checked by their types, of what came with a call. It raises `ValueError` or
            `RecursionError` where they are not what the method takes.
        name: by which it is called.
        function: the user's.
        kind: ``function``, which runs at once in the reactor; ``coroutine``; ``blocking``, which runs in a thread; or
            ``stream``, an asynchronous generator.
        takes_context: whether its first argument is the `CallContext`.
        takes_stream: the name of the argument that is a stream of items; empty for none.
        idempotent: whether it may be called again when nobody knows whether it was.
        errors: the errors that it declares, by name.
        roles: who may call it; empty for everybody that the server lets in.
        limit: calls of it that may run at once; None for no limit of its own.
        is_plain: whether nothing has to be looked at before it is run.
        parameters: the arguments that come with the call, with their types resolved.
        result_type: what it returns, or yields.
        item_type, decode_item: what the items of the argument that is a stream are, and what reads one.
        running: calls of it that run or wait to be run.
        figures: what is counted of it.
    """

    __slots__ = (
        "arguments", "decode_item", "doc", "errors", "figures", "function", "idempotent", "is_plain", "item_type",
        "kind", "limit", "name", "parameters", "result_type", "roles", "running", "takes_context", "takes_stream",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        blocking: bool = False,
        idempotent: bool = False,
        errors: tuple[type[RpcError], ...] = (),
        roles: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self.doc = inspect.getdoc(function) or ""
        self.idempotent = idempotent
        self.errors = {error.__name__: error for error in errors}
        self.roles = frozenset(roles)
        self.limit = limit
        self.running = 0
        self.figures = MethodFigures()
        self.kind = _kind(function, blocking)
        if blocking and self.kind != "blocking":
            raise UsageError(f"{name}: a coroutine does not block; leave out blocking=True")
        if limit is not None and (limit < 1 or self.kind == "function"):
            raise UsageError(f"{name}: limit = {limit}: it must be 1 or more, and a plain function runs alone anyway")
        hints = self._hints()
        self.result_type: Any = hints.get("return", Any)
        if self.kind == "stream":
            self.result_type = (*typing.get_args(self.result_type), Any)[0]
        parameters = list(inspect.signature(function).parameters.values())
        self.takes_context = bool(parameters) and hints.get(parameters[0].name) is CallContext
        if self.takes_context:
            parameters = parameters[1:]
        self.takes_stream, self.item_type = self._streamed(parameters, hints)
        self.decode_item = decoder_of(self.item_type)
        self.parameters = [
            one.replace(annotation=hints.get(one.name, Any)) for one in parameters if one.name != self.takes_stream
        ]
        self.arguments = self._new_decoder()
        self.is_plain = self.kind == "function" and not (self.takes_context or roles)

    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except (NameError, TypeError) as error:
            raise UsageError(f"{self.name}: its types can't be read: {error}") from None

    def _streamed(self, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[str, Any]:
        streamed = [one.name for one in parameters if _is_iterator(hints.get(one.name))]
        if not streamed:
            return "", Any
        if streamed != [parameters[-1].name]:
            raise UsageError(f"{self.name}: one argument may be a stream, and it must be the last")
        if self.kind not in ("coroutine", "stream"):
            raise UsageError(f"{self.name}: only a coroutine can take the items of {streamed[0]}")
        return streamed[0], (*typing.get_args(hints[streamed[0]]), Any)[0]

    def _new_decoder(self) -> Callable[[msgspec.Raw], tuple[Any, ...]]:
        for one in self.parameters:
            if one.kind not in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
                raise UsageError(f"{self.name}: {one.name} can't be given by its place; arguments travel as a list")
        types = [one.annotation for one in self.parameters]
        try:
            if all(one.default is one.empty for one in self.parameters):
                return msgspec.msgpack.Decoder(tuple[tuple(types)]).decode  # type: ignore[misc]  # as many as there are
            fields = [
                (one.name, one.annotation) if one.default is one.empty else (one.name, one.annotation, one.default)
                for one in self.parameters
            ]
            struct = msgspec.defstruct("Arguments", fields, array_like=True, forbid_unknown_fields=True)
            decode, astuple = msgspec.msgpack.Decoder(struct).decode, msgspec.structs.astuple
            return lambda raw: astuple(decode(raw))
        except (TypeError, NameError) as error:
            raise UsageError(f"{self.name}: an argument's type can't be checked: {error}") from None

    def describe(self) -> dict[str, Any]:
        """What a caller wants to know of it: for people, and for programs that make clients."""
        return {
            "name": self.name,
            "doc": self.doc,
            "kind": self.kind,
            "idempotent": self.idempotent,
            "arguments": [
                {"name": one.name, "type": _type_text(one.annotation), "required": one.default is one.empty}
                for one in self.parameters
            ],
            "stream": self.takes_stream,
            "result": _type_text(self.result_type),
            "errors": sorted(self.errors),
            "roles": sorted(self.roles),
        }


def _kind(function: Callable[..., Any], blocking: bool) -> str:
    if inspect.isasyncgenfunction(function):
        return "stream"
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    return "blocking" if blocking else "function"


def _is_iterator(hint: Any) -> bool:
    abc = collections.abc
    return (typing.get_origin(hint) or hint) in (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)


def _type_text(hint: Any) -> str:
    return "any" if hint is Any else inspect.formatannotation(hint)


class Service:
    """Methods that a peer can call, each a plain typed function or coroutine. It serves in one reactor.

    Attributes:
        methods: by name.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    @overload
    def method(self, function: F, /) -> F: ...

    @overload
    def method(
        self,
        *,
        name: str | None = None,
        blocking: bool = False,
        idempotent: bool = False,
        errors: tuple[type[RpcError], ...] = (),
        roles: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> Callable[[F], F]: ...

    def method(
        self,
        function: Any = None,
        *,
        name: str | None = None,
        blocking: bool = False,
        idempotent: bool = False,
        errors: tuple[type[RpcError], ...] = (),
        roles: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> Any:
        """Makes a function a method: ``@service.method`` or ``@service.method(blocking=True)``.

        A function runs at once, in the reactor; a coroutine function as a task; an asynchronous generator is a stream
        of items. A first argument that is annotated as `CallContext` is the context of the call. An argument that is
        annotated as ``AsyncIterator[T]`` is a stream of items from the caller.

        Args:
            function: the function.
            name: by which it is called; None for the function's own.
            blocking: whether it runs in a thread of a bounded pool.
            idempotent: whether it may be called again when nobody knows whether it was.
            errors: what it declares to raise. Whatever else it raises is told to nobody but the log.
            roles: who may call it: those who have one of them.
            limit: calls of it that may run or wait at once.

        Raises:
            UsageError: there is a method of that name already, or the name is reserved, or its types can't be checked.
        """

        def add(function: Any) -> Any:
            named = name or function.__name__
            if named in self.methods:
                raise UsageError(f"{named}: there is a method of that name already")
            if named.startswith(RESERVED_PREFIX):
                raise UsageError(f"{named}: names that begin with {RESERVED_PREFIX} are reserved")
            self.methods[named] = Method(
                named, function, blocking=blocking, idempotent=idempotent, errors=errors, roles=roles, limit=limit
            )
            return function

        return add if function is None else add(function)
