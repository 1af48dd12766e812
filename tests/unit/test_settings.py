"""Settings: defaults, the file, the environment, and errors that say what to type."""

import ast
import inspect
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trunkline.settings as module
from trunkline.errors import SettingsError
from trunkline.settings import Settings, load_settings

GROUPS: dict[str, type[Any]] = {
    name: type(value) for name, value in msgspec.structs.asdict(Settings()).items() if isinstance(value, msgspec.Struct)
}


def from_file(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    path = tmp_path / "trunkline.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ or {})


def complaint_about(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(SettingsError) as caught:
        from_file(tmp_path, text, environ)
    line = str(caught.value)
    assert len(line.splitlines()) == 1, line
    return line


def all_settings() -> list[tuple[str, str, Any]]:
    """Each setting's group (or ""), name and default."""
    found = []
    for name, value in msgspec.structs.asdict(Settings()).items():
        if name in GROUPS:
            found += [(name, inner, default) for inner, default in msgspec.structs.asdict(value).items()]
        else:
            found.append(("", name, value))
    return found


def toml_of(values: list[tuple[str, str, Any]]) -> str:
    """A TOML file that gives each setting a value. JSON's lists, numbers and strings are TOML's too."""
    lines = [f"{name} = {json.dumps(value)}" for group, name, value in values if not group]
    for wanted in GROUPS:
        lines.append(f"[{wanted}]")
        lines += [f"{name} = {json.dumps(value)}" for group, name, value in values if group == wanted]
    return "\n".join(lines)


def test_without_file_and_environment_all_is_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_settings(environ={})
    assert found == Settings()
    assert (found.devices.host, found.devices.port, found.http.port) == ("127.0.0.1", 7400, 7480)
    assert (found.batches.items_per_batch, found.batches.never_together) == (5, [[1, 2]])


def test_the_file_in_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trunkline.toml").write_text("[devices]\nport = 7001\n")
    assert load_settings(environ={}).devices.port == 7001


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[http]\nport = 7002\n")
    assert load_settings(environ={"TRUNKLINE_CONFIG": str(other)}).http.port == 7002


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: there is no such file"):
        load_settings(tmp_path / "missing.toml", {})
    with pytest.raises(SettingsError, match=r"missing\.toml: there is no such file"):
        load_settings(environ={"TRUNKLINE_CONFIG": str(tmp_path / "missing.toml")})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="it can't be read"):
        load_settings(tmp_path, {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = "[devices]\nport = 7001\nheartbeat = 'BEAT'\n"
    found = from_file(tmp_path, text, {"TRUNKLINE_DEVICES_PORT": "7003", "HOME": "/root"})
    assert (found.devices.port, found.devices.heartbeat) == (7003, "BEAT")


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("TRUNKLINE_COMMANDS_TTL", "2.5", ("commands", "ttl", 2.5)),
        ("TRUNKLINE_COMMANDS_TTL", "30", ("commands", "ttl", 30.0)),
        ("TRUNKLINE_DEVICES_HOST", "0.0.0.0", ("devices", "host", "0.0.0.0")),
        ("TRUNKLINE_DEVICES_HEARTBEAT", "7", ("devices", "heartbeat", "7")),
        ("TRUNKLINE_DEVICES_HEARTBEAT_ANSWER", "", ("devices", "heartbeat_answer", "")),
        ("TRUNKLINE_BATCHES_NEVER_TOGETHER", '[[1, "a"], [3, 4]]', ("batches", "never_together", [[1, "a"], [3, 4]])),
        ("TRUNKLINE_BATCHES_NEVER_TOGETHER", "[]", ("batches", "never_together", [])),
        ("TRUNKLINE_LOG_FORMAT", "json", ("log", "format", "json")),
    ],
)
def test_a_variable_is_read_as_its_settings_type(variable: str, text: str, expected: tuple[str, str, object]) -> None:
    group, name, value = expected
    found = getattr(getattr(load_settings(None, {variable: text}), group), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["sync_orders,sync_meters", '["sync_orders", "sync_meters"]'])
def test_a_list_is_commas_or_json_in_the_environment(text: str) -> None:
    assert load_settings(None, {"TRUNKLINE_MODULES": text}).modules == ["sync_orders", "sync_meters"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[devices]\nprot = 1", "devices.prot = 1: there is no such setting; did you mean devices.port?"),
        ("[http]\nbody_limit = 5", "http.body_limit = 5: there is no such setting; did you mean http.body_limit_bytes"),
        ("module = ['a']", 'module = ["a"]: there is no such setting; did you mean modules?'),
        ("devices = 7400", "devices = 7400: it is a group; write [devices] instead"),
        ("log = 'json'", 'log = "json": it is a group; write [log] instead'),
        ("[[jobs]]\nconcurrency = 2", 'jobs = [{"concurrency": 2}]: it is a group; write [jobs] instead'),
        (
            "[devices]\nport = '7400'",
            'devices.port = "7400": expected `int`, got `str`; the default is 7400',
        ),
        ("[devices]\nport = 70000", "devices.port = 70000: expected `int` <= 65535; the default is 7400"),
        ("[devices]\nport = true", "devices.port = true: expected `int`, got `bool`; the default is 7400"),
        ("[commands]\nttl = -1", "commands.ttl = -1: expected `float` > 0.0; the default is 60"),
        ("[commands]\nttl = nan", "commands.ttl = NaN: expected `float` > 0.0; the default is 60"),
        ("[commands]\nttl = inf", "commands.ttl = Infinity: expected `float` <= 31536000.0; the default is 60"),
        ("[log]\nlevel = 'loud'", "log.level = \"loud\": invalid enum value 'loud'; the default is \"INFO\""),
        (
            "[batches]\nnever_together = [1, 2]",
            "batches.never_together = [1, 2]: expected `array`, got `int` - at `$[0]`; the default is [[1, 2]]",
        ),
        ("[devices]\nhost = 2001-01-01", 'devices.host = "2001-01-01": expected `str`, got `date`; the default is'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line_that_names_it(tmp_path: Path, text: str, line: str) -> None:
    assert complaint_about(tmp_path, text).startswith(line)


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("TRUNKLINE_LOG_LEVLE", "1", "TRUNKLINE_LOG_LEVLE: there is no such setting; did you mean TRUNKLINE_LOG_LEVEL"),
        ("TRUNKLINE_DEVICES", "1", "TRUNKLINE_DEVICES: there is no such setting; did you mean TRUNKLINE_DEVICES_"),
        ("TRUNKLINE_HTTP_PORT", "no", 'TRUNKLINE_HTTP_PORT = "no": expected `int`, got `str`; the default is 7480'),
        ("TRUNKLINE_DEVICES_PORT", "", 'TRUNKLINE_DEVICES_PORT = "": expected `int`, got `str`; the default is 7400'),
        ("TRUNKLINE_BATCHES_NEVER_TOGETHER", "[[1,", 'TRUNKLINE_BATCHES_NEVER_TOGETHER = "[[1,": expecting value'),
        ("TRUNKLINE_BATCHES_NEVER_TOGETHER", "1,2", 'TRUNKLINE_BATCHES_NEVER_TOGETHER = ["1", "2"]: expected `array`'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path, variable: str, text: str, line: str) -> None:
    assert complaint_about(tmp_path, environ={variable: text}).startswith(line)


def test_a_name_that_is_near_nothing_is_answered_with_all_there_are(tmp_path: Path) -> None:
    line = complaint_about(tmp_path, "zzzzzzzzqqqqqqqq = 1")
    assert all(f"{group}.{name}".lstrip(".") in line for group, name, _ in all_settings())


@pytest.mark.parametrize("text", ["[devices", "port = ", "a = 1\na = 2", "[devices]\nport = 1\n[devices]\n", "\x00"])
def test_what_is_no_toml_is_said_with_its_place(tmp_path: Path, text: str) -> None:
    line = complaint_about(tmp_path, text)
    assert "trunkline.toml: it is no TOML: " in line
    assert "line" in line or "end of document" in line


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_numbers_and_nesting_without_end_are_no_toml(tmp_path: Path, text: str) -> None:
    assert "trunkline.toml: it is no TOML: " in complaint_about(tmp_path, text)


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "trunkline.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="it can't be read"):
        load_settings(path, {})


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("HELLO (.+)", "no group (?P<device>...)"),
        ("(?P<device>", "it is no regular expression"),
        ("(?P<device>a{99999999999999})", "it is no regular expression"),
        ("(?<\nevice>.+)", "it is no regular expression"),
        ("(?P<\u2028>.+)", "it is no regular expression"),
        ("(" * 5000, "it is no regular expression"),
        ("", "no group (?P<device>...)"),
    ],
)
def test_a_hello_pattern_that_cannot_work_is_refused(tmp_path: Path, pattern: str, complaint: str) -> None:
    line = complaint_about(tmp_path, f"[devices]\nhello = {json.dumps(pattern)}")
    assert line.startswith(f"devices.hello = {json.dumps(pattern)}: ")
    assert complaint in line


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Settings().devices.port = 1  # type: ignore[misc]


def test_every_default_given_in_a_file_is_the_default(tmp_path: Path) -> None:
    text = toml_of(all_settings())
    assert len(tomllib.loads(text)) == len(GROUPS) + 1
    assert from_file(tmp_path, text) == Settings()


@pytest.mark.parametrize(("group", "name", "default"), all_settings())
def test_every_default_given_in_the_environment_is_the_default(group: str, name: str, default: object) -> None:
    variable = "TRUNKLINE_" + "_".join(part.upper() for part in (group, name) if part)
    text = default if isinstance(default, str) else json.dumps(default)
    assert load_settings(None, {variable: text}) == Settings()


def described(group: type[Any]) -> dict[str, str | None]:
    """The settings of a class, each with the text that stands below it in the source."""
    tree = ast.parse(inspect.getsource(module))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == group.__name__]
    texts: dict[str, str | None] = {}
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            says = below.value if isinstance(below, ast.Expr) else None
            texts[statement.target.id] = says.value if isinstance(says, ast.Constant) else None  # type: ignore[assignment]
    return texts


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_every_setting_says_what_it_is(group: type[Any]) -> None:
    texts = described(group)
    assert list(texts) == list(group.__struct_fields__)
    assert all(text and text.endswith(".") and len(text) > 10 for text in texts.values()), texts
    assert inspect.getdoc(group), group


def test_every_group_says_its_name_in_the_file() -> None:
    for name, group in GROUPS.items():
        assert f"``[{name}]``" in str(inspect.getdoc(group))
    assert described(Settings)["modules"]


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from([(group, name) for group, name, _ in all_settings()])


def toml_value(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            text = repr(value)
            return text if any(sign in text for sign in ".naif") else text.replace("e", ".0e")
        case str():
            return json.dumps(value).replace("\\/", "/") if value.isascii() and "\x7f" not in value else _quoted(value)
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names, toml_values)
def test_any_value_is_taken_or_refused_in_one_line(tmp_path: Path, place: tuple[str, str], value: object) -> None:
    group, name = place
    text = f"[{group}]\n{name} = {toml_value(value)}\n" if group else f"{name} = {toml_value(value)}\n"
    try:
        found = from_file(tmp_path, text)
    except SettingsError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert line.startswith(f"{group}.{name} = ".lstrip("."))
        assert "the default is" in line or name == "hello"
    else:
        assert (getattr(getattr(found, group), name) if group else getattr(found, name)) == value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_any_unknown_name_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    line = complaint_about(tmp_path, f"[devices]\n{_quoted(name + '!')} = 1\n")
    assert "there is no such setting" in line
    line = complaint_about(tmp_path, f"{_quoted(name + '!')} = 1\n")
    assert "there is no such setting" in line


@given(names, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12))
def test_any_variable_is_taken_or_refused_in_one_line(place: tuple[str, str], text: str) -> None:
    variable = "TRUNKLINE_" + "_".join(part.upper() for part in place if part)
    try:
        found = load_settings(None, {variable: text})
    except SettingsError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert line.startswith((variable, "devices.hello"))
    else:
        group, name = place
        value = getattr(getattr(found, group), name) if group else getattr(found, name)
        assert not isinstance(value, str) or value == text
