"""Writes the reference pages that follow from the source, and trunkline.example.toml: run python docs/generate.py.

The same source gives the same bytes, so that a test can tell when a page is out of date. What the source does not
say (when a state changes, what to do about a close reason, an example of each route) stands in generate.toml.
"""

import ast
import inspect
import json
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from fastapi import FastAPI
from prometheus_client.metrics import MetricWrapperBase

import trunkline
import trunkline.rpc
import trunkline.testing
import trunkline.wire
from trunkline import errors
from trunkline.batch import BatchState
from trunkline.cli.main import app as cli
from trunkline.gateway import TRANSITIONS as COMMAND_TRANSITIONS
from trunkline.gateway import CommandState
from trunkline.gateway.device_line import OUT_OF_STEP, STORAGE_FAILED
from trunkline.jobs import TRANSITIONS as JOB_TRANSITIONS
from trunkline.jobs import DevicePort, JobState
from trunkline.settings import Settings
from trunkline.stats import Stats
from trunkline.tcp import CloseReason
from trunkline.web import create_app
from trunkline.web.problems import _KINDS as PROBLEM_KINDS

ROOT = Path(__file__).resolve().parent.parent
WORDS = tomllib.loads((ROOT / "docs" / "generate.toml").read_text(encoding="utf-8"))
MADE = "<!-- Made by docs/generate.py from the source. Edit the source, then run: python docs/generate.py -->"


# What the source says.


def _node_of(thing: Any) -> Any:
    """The syntax tree of a class or function."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def attribute_docs(cls: type) -> dict[str, str]:
    """The docstrings that follow a class's attributes."""
    found: dict[str, str] = {}
    name = ""
    for node in _node_of(cls).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return found


def _plain(text: str) -> str:
    """Docstring marks as Markdown's."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' for _ in head)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", MADE, *(part.strip("\n") for part in parts)]) + "\n"


# Settings.


def setting_groups() -> Iterator[tuple[str, type]]:
    """The groups of settings, in their order; the first, without a name, holds what belongs to none."""
    yield "", Settings
    for name, hint in typing.get_type_hints(Settings).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield name, hint


def setting_rows(cls: type) -> Iterator[tuple[str, Any, Any, str]]:
    """(name, type, default, meaning) of each setting of a group."""
    docs, default = attribute_docs(cls), cls()
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if not (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
            yield name, hint, getattr(default, name), docs[name]


def variable_of(group: str, name: str) -> str:
    """The environment variable of a setting."""
    return "_".join(filter(None, ["TRUNKLINE", group.upper(), name.upper()]))


_KINDS = {int: "whole number", float: "number", str: "text"}


def _type_words(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        (inner,) = typing.get_args(hint)
        return "list of lists" if typing.get_origin(inner) is list else f"list of {_KINDS[inner]}s"
    if typing.get_origin(hint) is typing.Annotated:
        base, meta = typing.get_args(hint)
        bounds = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        said = [f"{words} {getattr(meta, key):,}" for key, words in bounds.items() if getattr(meta, key) is not None]
        return f"{_KINDS[base]}, {', '.join(said)}"
    return _KINDS[hint]


def _toml(value: Any) -> str:
    if isinstance(value, str) and "\\" in value:
        return f"'{value}'"
    return json.dumps(value)


def settings_page() -> str:
    """Every setting."""
    parts = [
        "Defaults, then `trunkline.toml`, then the environment: the later wins. "
        "[How to configure a node](../how-to/configure.md) says how; "
        "[trunkline.example.toml](../../trunkline.example.toml) has all of them with their defaults.\n\n"
        "Names carry their units: `*_timeout`, `*_interval` and `ttl` are seconds, `*_bytes` are bytes, `*_limit` are "
        "counts.\n\n"
        "`TRUNKLINE_CONFIG` names the file to read, if it is not `./trunkline.toml`. It is the one variable that is "
        "no setting."
    ]
    for group, cls in setting_groups():
        rows = [
            [f"`{name}`", f"`{variable_of(group, name)}`", _type_words(hint), f"`{_toml(default)}`", meaning]
            for name, hint, default, meaning in setting_rows(cls)
        ]
        about = (cls.__doc__ or "").partition(": ")[2]
        head = f"## `[{group}]`\n\n{_plain(about[:1].upper() + about[1:])}" if group else "## Outside of any group"
        parts.append(f"{head}\n\n{_table(['name', 'environment', 'type', 'default', 'meaning'], rows)}")
    return _page("Settings", *parts)


def example_toml() -> str:
    """All settings with their defaults, commented out."""
    lines = [
        "# Every setting of Trunkline with its default. Made by docs/generate.py.",
        "# Copy it to trunkline.toml and take the '#' from the lines that you change.",
        "# docs/reference/settings.md says more.",
    ]
    for group, cls in setting_groups():
        lines += ["", f"[{group}]"] if group else [""]
        for name, _, default, meaning in setting_rows(cls):
            lines += textwrap.wrap(_plain(meaning), 110, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#{name} = {_toml(default)}")
    return "\n".join(lines) + "\n"


# States.


def _diagram(table: dict[Any, frozenset[Any]], words: dict[str, str], first: str) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for state, following in table.items():
        lines += [f"    {state} --> {after}: {words[f'{state}-{after}']}" for after in table if after in following]
        if not following:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```"])


def _meanings(states: type, more: dict[str, str]) -> str:
    docs = {name.lower(): text for name, text in attribute_docs(states).items()} | more
    return _table(["state", "meaning"], [[f"`{state}`", docs[state]] for state in map(str, states)])  # type: ignore[call-overload]


def states_page() -> str:
    """The life of commands, jobs and batches."""
    return _page(
        "States",
        "The diagrams are drawn from the tables that the code itself obeys.",
        "## Commands",
        _diagram(COMMAND_TRANSITIONS, WORDS["command_transitions"], CommandState.QUEUED),
        _meanings(CommandState, {}),
        "A state without a way out is an outcome. It is recorded once and never changed. "
        "[How to send commands](../how-to/send-commands.md) says what to do about each.",
        "## Jobs",
        _diagram(JOB_TRANSITIONS, WORDS["job_transitions"], JobState.QUEUED),
        _meanings(JobState, WORDS["job_states"]),
        "`attempt` counts how often a job was begun. What an earlier run still wants to write to the log is refused.",
        "## Batches",
        "A batch is `planned`, then `stored`; there is no other way.",
        _meanings(BatchState, {}),
    )


# Close reasons.


def close_reasons() -> dict[str, str]:
    """Every reason, and what it means."""
    docs = attribute_docs(CloseReason)
    return {getattr(CloseReason, name): text for name, text in docs.items()} | {
        OUT_OF_STEP: "A command got no reply in time, and no late one came in the ten seconds after that: "
        "which reply belongs to which command could not be told any more.",
        STORAGE_FAILED: "What became of a command could not be recorded: the database or the disk refused.",
        "node_lost": "The node that held the line stopped renewing its lease: it was killed, or its machine is gone.",
    }


def close_reasons_page() -> str:
    """Why a device is offline."""
    rows = [
        [f"`{reason}`", meaning, WORDS["close_reasons"][reason]["device_reads"], WORDS["close_reasons"][reason]["next"]]
        for reason, meaning in close_reasons().items()
    ]
    return _page(
        "Close reasons",
        "Each connection ends for one reason. It stands in the device's `offline_reason`, in the log, and as a label "
        "of `trunkline_connections_closed_total`. `node_lost` is found by looking at leases, not at connections, so it "
        "is no label.",
        _table(["reason", "meaning", "the device reads", "what to do"], rows),
        "One connection over `devices.connections_limit` is reset before anything is read from it. It has no close "
        "reason; `trunkline_connections_refused_total` counts it.",
    )


# Metrics.


def metrics() -> Iterator[tuple[str, MetricWrapperBase]]:
    """(attribute, metric) of everything that a node counts."""
    for name, value in vars(Stats()).items():
        if isinstance(value, MetricWrapperBase):
            yield name, value


def exposed_names(metric: MetricWrapperBase) -> list[str]:
    """The names under which Prometheus finds it."""
    (family,) = metric.describe()
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[family.type]
    return [family.name + ending for ending in endings]


def metrics_page() -> str:
    """Every metric."""
    rows = []
    for attribute, metric in metrics():
        (family,) = metric.describe()
        labels = [f"`{label}`: {WORDS['labels'][f'{attribute}.{label}']}" for label in metric._labelnames]
        names = ", ".join(f"`{name}`" for name in exposed_names(metric))
        rows.append([names, family.type, family.documentation, "; ".join(labels)])
    return _page(
        "Metrics",
        "`GET /metrics`, in Prometheus's text format. Counters begin at 0 when the node starts. A counter with a label "
        "has no line until it first counts. The client library adds a `*_created` gauge to each.",
        _table(["name", "type", "counts", "labels"], rows),
        "[How to operate a node](../how-to/operate.md#metrics) says which to watch.",
    )


# Python names.


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments = ast.arguments(**{**vars(arguments), "args": arguments.args[1:]})
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    line = f"{name}({ast.unparse(arguments)}){returns}"
    if len(line) > 100:
        inner = _split_arguments(ast.unparse(arguments))
        line = f"{name}(\n{''.join(f'    {part},{chr(10)}' for part in inner)}){returns}"
    return f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}{line}"


def _split_arguments(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    # A lambda's own commas are no ends of arguments.
    whole: list[str] = []
    for part in [*parts, text[start:].strip()]:
        if whole and "lambda" in whole[-1] and ":" not in whole[-1].partition("lambda")[2]:
            whole[-1] += f", {part}"
        else:
            whole.append(part)
    return whole


_SECTION = re.compile(r"^(Args|Raises|Returns|Attributes|The future's errors):$")
_SECTION_ENTRY = re.compile(r"^([\w\s,]+): ")


def _doc(text: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = False
    for line in _plain(inspect.cleandoc(text or "")).splitlines():
        if _SECTION.match(line):
            section = True
            lines += [f"*{line[:-1]}*", ""]
        elif section and line.startswith("        "):
            lines[-1] += f" {line.strip()}"
        elif section and line.startswith("    "):
            lines.append(_SECTION_ENTRY.sub(r"- `\1`: ", line.strip()) if ": " in line else f"- {line.strip()}")
        else:
            section = section and not line
            lines.append(line)
    return "\n".join(lines)


def _method_doc(node: Any) -> str | None:
    """A method's docstring; the event loop's own entries are nobody else's."""
    text = ast.get_docstring(node) or ""
    if text.endswith("See `DevicePort.ask`."):
        sections = (inspect.getdoc(DevicePort.ask) or "").partition("\n")[2]
        text = text.removesuffix(" See `DevicePort.ask`.") + f"\n{sections}"
    return None if text.startswith(("The event loop's", "The package's")) else _doc(text)


def _block(code: str) -> str:
    return f"```text\n{code}\n```"


def _members(cls: type, node: ast.ClassDef, title: str) -> Iterator[str]:
    docs = attribute_docs(cls)
    fields = [
        [
            f"`{field.target.id}`",
            f"`{ast.unparse(field.annotation)}`",
            _default_of(field),
            docs.get(field.target.id, ""),
        ]
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    if fields:
        yield _table(["field", "type", "default", "meaning"], fields)
    for part in _methods(cls):
        doc = _method_doc(part)
        if doc is None:
            continue
        name = f"{title}.{part.name}"
        is_property = any(ast.unparse(mark) == "property" for mark in part.decorator_list)
        head = f"{name}: {ast.unparse(part.returns)}" if is_property and part.returns else _signature(part, name)
        yield f"{_block(head)}\n\n{doc}"


def _methods(cls: type) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public methods of a class, each once: what it does not define anew is its bases'."""
    found = {
        part.name: part
        for base in reversed(cls.__mro__)
        if base.__module__.startswith("trunkline")
        for part in _node_of(base).body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_")
    }
    return list(found.values())


def _default_of(field: ast.AnnAssign) -> str:
    return f"`{ast.unparse(field.value)}`" if field.value is not None else ""


def _entry(package: str, name: str) -> str:
    thing = getattr(__import__(package, fromlist=[name]), name)
    node = _node_of(thing)
    parts = [f"### {name}"]
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        parts += [_block(_signature(made[0], name) if made else f"class {name}")]
        parts += [_doc(ast.get_docstring(node)), *_members(thing, node, name)]
    else:
        parts += [_block(_signature(node, name)), _doc(ast.get_docstring(node))]
    return "\n\n".join(part for part in parts if part)


def python_page() -> str:
    """Every public name."""
    is_error = {
        name for name in trunkline.__all__ if isinstance(getattr(trunkline, name), type)
        and issubclass(getattr(trunkline, name), Exception)
    }  # fmt: skip
    return _page(
        "Python",
        "What `import trunkline`, `import trunkline.wire`, `import trunkline.rpc` and `import trunkline.testing` give. "
        "Anything else may change without notice. "
        "Each name is loaded when it is first used, so `import trunkline` itself costs next to nothing.",
        "A *message* is `bytes` without its framing. *Reactor's thread* means: call it in the thread of the event "
        "loop, and nowhere else. *Any thread* means what it says.",
        "Some arguments come from a package below: `bind`, `FullJitter` and `CloseReason` from `trunkline.tcp`.",
        "## trunkline",
        *(_entry("trunkline", name) for name in trunkline.__all__ if name not in is_error),
        "## The errors",
        f"{', '.join(f'`{name}`' for name in sorted(is_error))}: see [errors](errors.md).",
        "## trunkline.wire",
        "Framers, which cut a stream of bytes into messages. [How to write a framer](../how-to/write-a-framer.md) says "
        "which to choose, and how to make one of your own.",
        *(_entry("trunkline.wire", name) for name in trunkline.wire.__all__),
        "## trunkline.rpc",
        "Calls in both directions over one connection. [Their messages](rpc.md) are described to the byte, for those "
        "who write a client in another language. `current_call` is the context variable that holds the `CallContext` "
        "of the method that runs.",
        *(_entry("trunkline.rpc", name) for name in trunkline.rpc.__all__ if name != "current_call"),
        "## trunkline.testing",
        *(_entry("trunkline.testing", name) for name in trunkline.testing.__all__),
    )


# Errors.


def errors_page() -> str:
    """The tree of errors, and where each is met."""
    intro, tree, outro = inspect.cleandoc(errors.__doc__ or "").split("\n\n")
    parts = [intro, _block(textwrap.dedent(tree).replace("``", "")), _plain(outro)]
    statuses = {kind: status for kind, status, *_ in PROBLEM_KINDS}
    for name in errors.__all__:
        cls = getattr(errors, name)
        if issubclass(cls, errors.Unavailable | errors.UsageError):
            status = next(status for kind, status in statuses.items() if issubclass(cls, kind))
            met = f"A request that raises it is answered {status}; a command ends with exit code "
            met += "3." if issubclass(cls, errors.Unavailable) else "2."
        elif cls is errors.TrunklineError:
            met = ""
        elif issubclass(cls, errors.RpcError):
            met = "Calls raise it, at their caller."
        else:
            met = "Connections alone raise it, to their `on_error`."
        parts.append(f"## {name}\n\n{_doc(cls.__doc__)}\n\n{met}".rstrip())
    return _page("Errors", *parts)


# The command line.


def cli_commands() -> Iterator[tuple[str, Any, list[tuple[str, Any, Any]]]]:
    """(name, function, parameters) of each command; a parameter is (shown name, its Typer info, inspect's)."""
    for info in cli.registered_commands:
        function = info.callback
        assert function is not None
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = []
        for name, parameter in inspect.signature(function).parameters.items():
            kind, about = typing.get_args(hints[name])[:2]
            given = [about.default] if str(about.default).startswith("--") else list(about.param_decls or ())
            is_option = type(about).__name__ == "OptionInfo"
            shown = given[0] if given else f"--{name.replace('_', '-')}" if is_option else name.upper()
            parameters.append((shown, about, (kind, parameter.default)))
        yield info.name or function.__name__, function, parameters


def _option_value(kind: Any) -> str:
    kinds = [one for one in (typing.get_args(kind) or (kind,)) if one is not types.NoneType]
    return {bool: "", int: " NUMBER", float: " NUMBER", str: " TEXT", Path: " FILE"}[kinds[0]]


def _option_row(shown: str, about: Any, kind: Any, default: Any) -> list[str]:
    bounds = [f"at least {about.min:g}"] if about.min is not None else []
    bounds += [f"at most {about.max:g}"] if about.max is not None else []
    told = "" if any(default is none for none in (None, False, inspect.Parameter.empty)) else f"`{default}`"
    name = f"`{shown}{_option_value(kind)}`" if shown.startswith("--") else f"`{shown}`"
    return [name, about.help + (f" ({', '.join(bounds)})" if bounds else ""), told]


def cli_page() -> str:
    """Every command."""
    parts = [
        "`trunkline COMMAND --help` says the same. `trunkline --version` prints the version.",
        "`serve`, `devices`, `send` and `demo` read the [settings](settings.md). What is piped gets plain lines, "
        "without colours and tables.",
    ]
    for name, function, parameters in cli_commands():
        rows = [_option_row(shown, about, kind, default) for shown, about, (kind, default) in parameters]
        parts += [
            f"## trunkline {name}", _plain(inspect.getdoc(function) or ""),
            f"```sh\n{WORDS['cli_examples'][name]}\n```", _table(["argument", "meaning", "default"], rows),
        ]  # fmt: skip
    codes = [[code, meaning] for code, meaning in WORDS["exit_codes"].items()]
    parts += ["## Exit codes", _table(["code", "meaning"], codes)]
    parts.append("An error is one line on standard error that begins with `trunkline:`.")
    return _page("Command line", *parts)


# HTTP.


def http_app() -> FastAPI:
    """The API as a node serves it, without the node."""
    return create_app(SimpleNamespace(settings=Settings(), stats=Stats()))  # type: ignore[arg-type]


def routes(api: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("GET /path", operation) of the OpenAPI description."""
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _schema_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_schema_words(one) for one in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if schema.get("type") == "array":
        inner = _schema_words(schema.get("items", {}))
        return f"list of {inner}"
    if schema.get("format") == "date-time":
        return "moment"
    kinds = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return kinds.get(schema.get("type", ""), schema.get("type") or "any JSON")


def _bounds(schema: dict[str, Any]) -> str:
    flat = schema | next((one for one in schema.get("anyOf", []) if one.get("type") != "null"), {})
    words = {
        "minimum": "at least {:g}",
        "exclusiveMinimum": "more than {:g}",
        "maximum": "at most {:g}",
        "maxLength": "at most {:g} characters",
    }
    said = [text.format(flat[key]) for key, text in words.items() if key in flat]
    return ", ".join(
        [_schema_words(schema), *said, *([f"default {schema['default']}"] if schema.get("default") else [])]
    )


def _route_part(name: str, operation: dict[str, Any]) -> str:
    example = WORDS["routes"][name]
    rows = [
        [f"`{one['name']}`", one["in"], _bounds(one["schema"]), one.get("description", "")]
        for one in operation.get("parameters", [])
    ]
    parts = [f"### {name.replace('/api/v1', '')}", _plain(operation["description"])]
    if rows:
        parts.append(_table(["parameter", "in", "type", "meaning"], rows))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        parts.append(f"Body: {_schema_words(body)}.")
    answers = []
    for status, answer in sorted(operation["responses"].items()):
        if status < "300":
            kinds = [one["schema"] for one in answer.get("content", {}).values() if one.get("schema")]
            said = [_schema_words(kind) for kind in kinds] or [
                answer["description"][:1].lower() + answer["description"][1:]
            ]
            answers.append(f"{status}: {', '.join(said)}")
    parts.append(f"Answer: {'; '.join(answers)}.")
    language = "text" if "event: " in example["answer"] else "json"
    parts.append(f"```sh\n{example['curl'].strip()}\n```\n\n```{language}\n{example['answer'].strip()}\n```")
    return "\n\n".join(parts)


def http_page() -> str:
    """Every route."""
    api = http_app().openapi()
    problems = [[str(status), title, kind.__name__, step] for kind, status, title, step in PROBLEM_KINDS]
    shapes = []
    for name, schema in sorted(api["components"]["schemas"].items()):
        rows = [
            [f"`{field}`", _schema_words(about) + ("" if field in schema.get("required", []) else ", optional"),
             about.get("description", "")]
            for field, about in schema["properties"].items()
        ]  # fmt: skip
        shapes.append(f"### {name}\n\n{schema['description']}\n\n{_table(['field', 'type', 'meaning'], rows)}")
    plain = [[f"`{path}`", text] for path, text in WORDS["plain_routes"].items()]
    return _page(
        "HTTP API",
        "All under `http://127.0.0.1:7480/api/v1`, as JSON. A *moment* is ISO 8601 in UTC with milliseconds. A request "
        "with a JSON body needs `Content-Type: application/json`, but for `/items`, which takes any.",
        "A list comes in pages: pass the `next` of one page as the parameter `after` or `before` of the next request, "
        "until `next` is null.",
        "While no token exists, the API answers this machine only. A request whose `Host` or `Origin` header names "
        "another one is refused with 403. See [who may use it](../how-to/operate.md#who-may-reach-it).",
        "## Routes",
        *(_route_part(name, operation) for name, operation in routes(api)),
        "## Errors",
        "Every error is [problem details](https://www.rfc-editor.org/rfc/rfc9457) with the member `next`, which says "
        "what to do:",
        "```json\n"
        '{"type": "urn:trunkline:problem:not-found", "title": "Not found", "status": 404,\n'
        ' "detail": "no device \\"d7\\" has ever said hello here", '
        '"next": "check the name against the list that it should be in"}\n```',
        _table(["status", "title", "error", "what to do"], problems),
        "Besides: 403 for another host or origin, 405 for a method that a route does not have, 413 for a body over "
        "`http.body_limit_bytes`, 503 for a request beyond `http.requests_limit`, 500 for a bug (the log has its "
        "traceback). 429 and 503 carry `Retry-After`. Connections beyond twice `http.requests_limit` get a 503 in "
        "plain text.",
        "## Shapes",
        *shapes,
        "## Besides the API",
        _table(["path", "what"], plain),
    )


def pages() -> dict[str, str]:
    """Every file that this script writes, by its path from the root of the repository."""
    return {
        "docs/reference/settings.md": settings_page(),
        "docs/reference/cli.md": cli_page(),
        "docs/reference/http-api.md": http_page(),
        "docs/reference/states.md": states_page(),
        "docs/reference/close-reasons.md": close_reasons_page(),
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/errors.md": errors_page(),
        "docs/reference/python.md": python_page(),
        "trunkline.example.toml": example_toml(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")
