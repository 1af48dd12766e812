"""All settings, with their defaults, from `trunkline.toml` and the environment.

A setting ``port`` of the group ``devices`` is ``[devices] port = 7400`` in the file and
``TRUNKLINE_DEVICES_PORT=7400`` in the environment, which wins. Names carry their units: ``*_timeout``,
``*_interval`` and ``*_lease`` are seconds, ``*_bytes`` are bytes, ``*_limit`` are counts.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from trunkline.errors import SettingsError

__all__ = [
    "BatchSettings",
    "CommandSettings",
    "DataSettings",
    "DeviceSettings",
    "HttpSettings",
    "JobSettings",
    "LogSettings",
    "Settings",
    "load_settings",
]

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=16)]


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DeviceSettings(_Group, frozen=True):
    """``[devices]``: the TCP listener and the line protocol."""

    host: str = "127.0.0.1"
    """The address to listen on; ``0.0.0.0`` for every one of this machine."""
    port: Port = 7400
    """The TCP port; 0 takes a free one, which the log names."""
    hello: str = r"HELLO (?P<device>[A-Za-z0-9][A-Za-z0-9._:-]{0,63})"
    """A regular expression that a device's whole first line must match; its group ``device`` is the device's id."""
    heartbeat: str = "PING"
    """The line by which a device says that it is alive."""
    heartbeat_answer: str = "PONG"
    """What is answered to it; empty for no answer."""
    line_limit_bytes: Bytes = 1024
    """The longest line, without its end."""
    hello_timeout: Seconds = 10
    """How long a new connection may take to say who it is, from its start."""
    idle_timeout: Seconds = 90
    """How long a device may be silent before its line is closed."""
    connections_limit: Count = 10_000
    """Connections at once; one more is refused."""
    unread_bytes: Bytes = 1_048_576
    """What may wait to be sent to one connection; a peer that lets more pile up is closed."""


class HttpSettings(_Group, frozen=True):
    """``[http]``: the API and the console."""

    host: str = "127.0.0.1"
    """The address to listen on. While no token exists it must be one of this machine's own (loopback)."""
    port: Port = 7480
    """The TCP port; 0 takes a free one, which the log names."""
    body_limit_bytes: Bytes = 1_048_576
    """The longest request body."""
    requests_limit: Count = 1000
    """Connections and requests at once; one more is answered 503."""


class DataSettings(_Group, frozen=True):
    """``[data]``: where the node keeps what it must not lose."""

    directory: str = "./trunkline-data"
    """The folder of the database and the stored batches. One node at a time may use it."""
    keep_days: Annotated[float, Meta(gt=0)] = 30
    """How long ended commands, ended jobs and the records of stored batches are kept."""


class CommandSettings(_Group, frozen=True):
    """``[commands]``: defaults and bounds of commands."""

    reply_timeout: Seconds = 10
    """How long to wait for a reply after the write, where the caller does not say."""
    ttl: Seconds = 60
    """How long a command may wait for its device, where the caller does not say."""
    queued_limit: Count = 1000
    """Unfinished commands per device; one more is refused."""


class JobSettings(_Group, frozen=True):
    """``[jobs]``: sync jobs."""

    concurrency: Count = 8
    """Jobs that run at once."""
    log_lines_limit: Count = 100_000
    """Log lines kept per run of a job; the rest is counted and said."""


class BatchSettings(_Group, frozen=True):
    """``[batches]``: batch storage."""

    items_per_batch: Count = 5
    """The most items in one file."""
    never_together: list[list[Any]] = msgspec.field(default_factory=lambda: [[1, 2]])
    """Sets of items of which no two may be in one file."""
    per_second: Annotated[float, Meta(ge=0)] = 0
    """Batches written per second; 0 for as fast as they come."""
    spool_limit: Count = 1_000_000
    """Items that may wait; beyond it new ones are refused until the drain has caught up."""
    item_limit_bytes: Bytes = 65_536
    """The longest item, as JSON."""


class LogSettings(_Group, frozen=True):
    """``[log]``: the node's own log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least serious events that are written."""
    format: Literal["text", "json"] = "text"
    """Lines of key=value, or of JSON."""
    file: str = ""
    """A file to write to, besides standard error; empty for none."""
    file_bytes: Bytes = 10_485_760
    """The size over which the file is renamed and a new one begun."""
    file_backups: Count = 5
    """How many of the renamed files are kept."""


class Settings(_Group, frozen=True):
    """The settings of one node."""

    modules: list[str] = msgspec.field(default_factory=list)
    """Python modules to import at the start: your handlers. The folder you start in is searched first."""
    devices: DeviceSettings = DeviceSettings()
    http: HttpSettings = HttpSettings()
    data: DataSettings = DataSettings()
    commands: CommandSettings = CommandSettings()
    jobs: JobSettings = JobSettings()
    batches: BatchSettings = BatchSettings()
    log: LogSettings = LogSettings()


_HINTS: dict[str, Any] = get_type_hints(Settings, include_extras=True)
_GROUPS: dict[str, type[_Group]] = {
    name: hint for name, hint in _HINTS.items() if isinstance(hint, type) and issubclass(hint, _Group)
}
_TYPES: dict[str, Any] = {name: hint for name, hint in _HINTS.items() if name not in _GROUPS} | {
    f"{group}.{name}": hint
    for group, struct in _GROUPS.items()
    for name, hint in get_type_hints(struct, include_extras=True).items()
}
_PREFIX = "TRUNKLINE_"
_VARIABLES = {_PREFIX + name.upper().replace(".", "_"): name for name in _TYPES}


def load_settings(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings: defaults, then the file, then the environment.

    Args:
        file: the TOML file. None for the one that ``TRUNKLINE_CONFIG`` names, else ``trunkline.toml`` here, if any.
        environ: the environment; None for the process's own.

    Raises:
        SettingsError: one line that names the setting, its value and the mend.
    """
    environ = os.environ if environ is None else environ
    given: dict[str, tuple[Any, str]] = {}
    for name, value in _read_file(file, environ).items():
        if name in _GROUPS:
            if not isinstance(value, dict):
                raise SettingsError(f"{name} = {json.dumps(value, default=str)}: it is a group; write [{name}] instead")
            given |= {f"{name}.{inner}": (inner_value, "file") for inner, inner_value in value.items()}
        else:
            given[name] = (value, "file")
    for variable, text in environ.items():
        if variable.startswith(_PREFIX) and variable != _PREFIX + "CONFIG":
            if variable not in _VARIABLES:
                raise SettingsError(f"{variable}: there is no such setting{_nearest(variable, _VARIABLES)}")
            given[_VARIABLES[variable]] = (text, variable)
    flat = {name: _checked(name, value, origin) for name, (value, origin) in given.items()}
    tree: dict[str, Any] = {name: value for name, value in flat.items() if "." not in name}
    for group, struct in _GROUPS.items():
        mine = {name.partition(".")[2]: value for name, value in flat.items() if name.startswith(group + ".")}
        tree[group] = struct(**mine)
    settings = Settings(**tree)
    _check_hello(settings.devices.hello)
    return settings


def _read_file(file: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    named = file or (Path(environ[_PREFIX + "CONFIG"]) if environ.get(_PREFIX + "CONFIG") else None)
    path = named or Path("trunkline.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(f"{path}: there is no such file; give another, or leave it out for the defaults") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: it can't be read: {error}") from error
    except (ValueError, RecursionError) as error:  # tomllib lets out both, for numbers and nesting without end
        raise SettingsError(f"{path}: it is no TOML: {_one_line(str(error))}") from error


def _checked(name: str, value: Any, origin: str) -> Any:
    """The value as the setting's own type, or a `SettingsError` that says what it should have been."""
    where = origin if origin != "file" else name
    if name not in _TYPES:
        raise SettingsError(
            f"{_one_line(name)} = {json.dumps(value, default=str)}: there is no such setting{_nearest(name, _TYPES)}"
        )
    try:
        if origin == "file":
            return msgspec.convert(value, _TYPES[name])
        # From the environment all is text: lists as JSON or separated by commas, the rest as it stands.
        wants_list = "list" in str(_TYPES[name])
        if wants_list:
            value = json.loads(value) if value.lstrip().startswith("[") else [part for part in value.split(",") if part]
        return msgspec.convert(value, _TYPES[name], strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        default = _default(name)
        shown = json.dumps(value, default=str)
        raise SettingsError(
            f"{where} = {shown}: {str(error)[0].lower()}{str(error)[1:]}; the default is {json.dumps(default)}"
        ) from None


def _default(name: str) -> Any:
    value: Any = Settings()
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _nearest(name: str, names: Mapping[str, Any]) -> str:
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(sorted(names))}"


def _one_line(text: str) -> str:
    """Text that quotes what it was given, with line ends and controls escaped."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _check_hello(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise SettingsError(
            f"devices.hello = {json.dumps(pattern)}: it is no regular expression: {_one_line(str(error))}"
        ) from None
    if "device" not in groups:
        raise SettingsError(
            f"devices.hello = {json.dumps(pattern)}: it has no group (?P<device>...) for the device's id"
        )
