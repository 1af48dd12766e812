"""Makes the source of a typed client from a service."""

import inspect
import keyword
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

from trunkline.errors import UsageError
from trunkline.rpc.service import Method, Service

__all__ = ["stub_source"]

_HEAD = '''"""A typed client. Made by trunkline.rpc.stub_source: make it anew rather than edit it."""
'''


def stub_source(service: Service, name: str = "Client") -> str:
    """The source of a class that has a typed method for each method of a service.

    Its instances are made of an `RpcPeer`, or of an `RpcClient`, which can be one by the same protocol. The types that
    the service's methods name must be importable where the client is used.

    Args:
        service: the service.
        name: the class's.

    Raises:
        UsageError: a method's or the class's name is no name in Python, or a type can't be imported by its name.
    """
    imports = _Imports()
    for one in (name, *service.methods):
        if not one.isidentifier() or keyword.iskeyword(one) or one.startswith("_"):
            raise UsageError(f"{one!r} is no name for a class or method in Python")
    bodies = [_method(method, imports) for _, method in sorted(service.methods.items())]
    imports.take("trunkline.rpc", "Caller")
    lines = [
        f"class {name}:",
        f'    """The methods of {name}\'s service."""',
        "",
        "    def __init__(self, caller: Caller) -> None:",
        "        self._caller = caller",
    ]
    return "\n".join([_HEAD, *imports.lines(), "", "", *lines, *bodies]) + "\n"


class _Imports:
    """What the source has to import."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._modules: set[str] = set()

    def take(self, module: str, name: str) -> str:
        self._names.setdefault(module, set()).add(name)
        return name

    def module(self, name: str) -> None:
        self._modules.add(name)

    def lines(self) -> Iterator[str]:
        for module in sorted(self._modules):
            yield f"import {module}"
        for module, names in sorted(self._names.items()):
            yield f"from {module} import {', '.join(sorted(names))}"


def _method(method: Method, imports: _Imports) -> str:
    taken = {"self", "timeout"} & {method.takes_stream, *(one.name for one in method.parameters)}
    if taken:
        raise UsageError(f"{method.name}: the client's method has an argument {taken.pop()} of its own; rename it")
    given = [one.name for one in method.parameters]
    defaults = _defaults(method.parameters)
    required = [
        f"{one.name}: {_type(one.annotation, imports)}{default}"
        for one, default in zip(method.parameters, defaults, strict=True)
    ]
    if method.takes_stream:
        item = _type(method.item_type, imports)
        # Behind arguments that have defaults, it must be named.
        star = ["*"] if any("=" in one for one in required) else []
        required += [*star, f"{method.takes_stream}: {imports.take('collections.abc', 'AsyncIterable')}[{item}]"]
        given.append(method.takes_stream)
    star = [] if "*" in required else ["*"]
    signature = ", ".join(["self", *required, *star, "timeout: float | None = None"])
    result = _type(method.result_type, imports)
    arguments = ", ".join([repr(method.name), *given, "timeout=timeout", f"result_type={result}"])
    doc = textwrap.indent(_quoted(method.doc), "        ") if method.doc else ""
    if method.kind == "stream":
        iterator = f"{imports.take('collections.abc', 'AsyncIterator')}[{result}]"
        head = f"    def {method.name}({signature}) -> {iterator}:"
        body = [f"        return self._caller.stream({arguments})"]
    else:
        more = ", idempotent=True" if method.idempotent else ""
        head = f"    async def {method.name}({signature}) -> {result}:"
        call = f"await self._caller.call({arguments}{more})"
        if method.result_type in (None, types.NoneType):
            body = [f"        {call}"]
        else:
            body = [f"        result: {result} = {call}", "        return result"]
    return "\n".join(["", head, *([doc] if doc else []), *body])


def _quoted(doc: str) -> str:
    text = doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    end = "\n" if "\n" in text or text.endswith('"') else ""
    return f'"""{text}{end}"""'


def _defaults(parameters: list[inspect.Parameter]) -> list[str]:
    """What the client takes where an argument is left out.

    An argument whose default can't be written must be given, and so must those before it.
    """
    found: list[str] = []
    for one in reversed(parameters):
        value = one.default
        plain = value is None or type(value) in (bool, int, str, bytes) or (type(value) is float and isfinite(value))
        found.append(f" = {value!r}" if plain and "" not in found else "")
    return found[::-1]


def _type(hint: Any, imports: _Imports) -> str:
    """A type as it is written in source."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_all(args, imports))
    if origin is typing.Literal:
        return f"{imports.take('typing', 'Literal')}[{', '.join(map(repr, args))}]"
    if origin is typing.Annotated:
        return _type(args[0], imports)  # the callee checks the rest
    if origin is not None:
        return f"{_class(origin, imports)}[{', '.join(_all(args, imports)) or '()'}]"
    return _class(hint, imports)


def _class(hint: Any, imports: _Imports) -> str:
    if hint is None or hint is types.NoneType:
        return "None"
    if hint is Any:
        return imports.take("typing", "Any")
    if not isinstance(hint, type) or "<" in hint.__qualname__ or hint.__module__ == "__main__":
        raise UsageError(f"{hint!r} can't be imported by its name; put it into a module, outside of any function")
    if hint.__module__ == "builtins":
        return hint.__qualname__
    imports.module(hint.__module__)
    return f"{hint.__module__}.{hint.__qualname__}"


def _all(hints: Iterable[Any], imports: _Imports) -> list[str]:
    return ["..." if one is ... else _type(one, imports) for one in hints]
