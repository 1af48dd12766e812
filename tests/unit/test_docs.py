"""The documentation is true to the source: nothing is left out, out of date, or linked to nowhere."""

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

import trunkline
import trunkline.testing
from trunkline import errors
from trunkline.gateway import TRANSITIONS as COMMAND_TRANSITIONS
from trunkline.jobs import TRANSITIONS as JOB_TRANSITIONS
from trunkline.settings import Settings, load_settings
from trunkline.tcp import CloseReason

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = load_generator()
MADE = generate.pages()


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def fences(page: Path, language: str) -> list[str]:
    return [body for _, kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# What is made from the source.


@pytest.mark.parametrize("path", sorted(MADE))
def test_a_generated_page_is_what_the_source_gives_today(path: str) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")
    assert written == MADE[path], f"{path} is out of date; run: python docs/generate.py"


def test_the_generator_gives_the_same_pages_twice() -> None:
    assert generate.pages() == MADE


# Nothing is left out. These ask the source by ways of their own, not by the generator's.


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in (trunkline, trunkline.testing) for name in package.__all__],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_public_name_is_documented(package: ModuleType, name: str) -> None:
    thing = getattr(package, name)
    if isinstance(thing, type) and issubclass(thing, Exception):
        assert f"## {name}\n" in reference("errors.md")
        assert f"`{name}`" in reference("python.md")
    else:
        assert f"### {name}\n" in reference("python.md")


def test_every_error_is_documented() -> None:
    page = reference("errors.md")
    assert [name for name in errors.__all__ if f"## {name}\n" not in page] == []


def test_every_setting_is_documented() -> None:
    page = reference("settings.md")
    flat = [
        f"TRUNKLINE_{name}_{inner}".upper()
        for name in Settings.__struct_fields__
        for inner in getattr(getattr(Settings(), name), "__struct_fields__", ())
    ]
    assert len(flat) > 20
    assert [name for name in [*flat, "TRUNKLINE_MODULES", "TRUNKLINE_CONFIG"] if f"`{name}`" not in page] == []


def test_every_command_and_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    page = reference("cli.md")
    for info in generate.cli.registered_commands:
        command = info.callback.__name__
        _, found, section = page.partition(f"## trunkline {command}\n")
        assert found, command
        section = section.partition("\n## ")[0]
        with pytest.raises(SystemExit):
            generate.cli([command, "--help"])
        options = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
        assert options, command
        assert [option for option in options if f"`{option}" not in section] == [], command


def test_every_exit_code_that_the_command_line_names_is_documented() -> None:
    from trunkline.cli import main

    assert main.__doc__ is not None
    codes = re.findall(r"(\d+) (?:done|wrong|not available|broken)", main.__doc__.replace("\n", " "))
    assert len(codes) == 5
    assert [code for code in codes if f"| {code} |" not in reference("cli.md")] == []


def test_every_route_is_documented() -> None:
    page = reference("http-api.md")
    app = generate.http_app()
    described = [
        f"### {method.upper()} {path.removeprefix('/api/v1')}\n"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]
    assert len(described) > 12
    assert [head for head in described if head not in page] == []
    others = {route.path for route in app.routes if hasattr(route, "path")} - set(app.openapi()["paths"])
    assert [path for path in sorted(others) if f"| `{path}` |" not in page] == []


def test_every_metric_is_documented() -> None:
    page = reference("metrics.md")
    names = re.findall(r"^# TYPE (\S+)", generate.Stats().exposition().decode(), re.MULTILINE)
    names = [name for name in names if not name.endswith("_created")]
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"`{name}(_bucket)?`", page)] == []


def test_every_close_reason_in_the_source_is_documented() -> None:
    page = reference("close-reasons.md")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "trunkline").rglob("*.py"))
    named = {word for name, word in vars(CloseReason).items() if name.isupper()}
    named |= set(re.findall(r'^(?:OUT_OF_STEP|STORAGE_FAILED) = "(\w+)"', source, re.MULTILINE))
    named |= set(re.findall(r'offline_reason="(\w+)"', source))
    assert len(named) >= 12
    assert [reason for reason in sorted(named) if f"| `{reason}` |" not in page] == []


def test_every_state_and_every_step_between_states_is_drawn() -> None:
    page = reference("states.md")
    for table in (COMMAND_TRANSITIONS, JOB_TRANSITIONS):
        for state, following in table.items():
            assert f"| `{state}` |" in page
            assert [after for after in following if f"    {state} --> {after}: " not in page] == []


# The example of the settings' file.


def test_the_example_settings_are_the_defaults_and_load_with_every_line_uncommented(tmp_path: Path) -> None:
    text = (ROOT / "trunkline.example.toml").read_text(encoding="utf-8")
    uncommented, count = re.subn(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert count > 25
    for content in (text, uncommented):
        file = tmp_path / "trunkline.toml"
        file.write_text(content, encoding="utf-8")
        assert load_settings(file, {}) == Settings()


# All pages.


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / unquote(path)).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "python")], ids=by_name)
def test_every_python_block_compiles(page: Path) -> None:
    for block in fences(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "json")], ids=by_name)
def test_every_json_block_is_json(page: Path) -> None:
    for block in fences(page, "json"):
        json.loads(block)


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "toml")], ids=by_name)
def test_every_toml_block_is_a_settings_file_that_loads(page: Path, tmp_path: Path) -> None:
    for block in fences(page, "toml"):
        file = tmp_path / "trunkline.toml"
        file.write_text(block, encoding="utf-8")
        assert tomllib.loads(block)
        load_settings(file, {})


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        outside = FENCE.sub("", page.read_text(encoding="utf-8"))
        links = [(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s:]+\.md)", outside)]
        waiting += [link for link in links if link.exists()]
    assert [by_name(page) for page in sorted(DOCS.rglob("*.md")) if page not in seen] == []


# The README and the examples.


def test_the_readmes_handler_is_the_examples_own() -> None:
    (block,) = fences(ROOT / "README.md", "python")
    assert block == (ROOT / "examples" / "01_meters" / "meters.py").read_text(encoding="utf-8")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_the_readme_is_one_screen_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 90
    for command in ("bin/demo", "bin/test"):
        assert f"    {command} " in text
        assert (ROOT / command).stat().st_mode & 0o111, f"{command} can't be executed"


def test_the_examples_device_fits_on_a_page() -> None:
    assert len((ROOT / "examples" / "02_device" / "device.py").read_text(encoding="utf-8").splitlines()) < 60
