"""The surface: every public name is there and says what it is, and no module does what none may do."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trunkline

PACKAGE = Path(str(trunkline.__file__)).parent
MIGRATIONS = "trunkline.db.migrations"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


SOURCES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in SOURCES if not name.startswith(MIGRATIONS)]
"""All but Alembic's own, which it alone can import."""


def listed(name: str) -> list[str] | None:
    """The module's `__all__`, as it stands in the source."""
    for node in SOURCES[name].body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return list(ast.literal_eval(node.value))
    return None


def defined(name: str) -> set[str]:
    """The public classes and functions that a module makes; those with a decorator are handed over by it."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for node in SOURCES[name].body
        if isinstance(node, kinds) and not node.name.startswith("_") and not node.decorator_list
    }


def imports_between_modules() -> Iterator[tuple[str, str, str]]:
    """Each name that one of our modules takes from another: who, from where, what."""
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in SOURCES:
                for alias in node.names:
                    if f"{node.module}.{alias.name}" not in SOURCES:
                        yield name, node.module, alias.name


def test_the_source_was_found() -> None:
    assert {"trunkline", "trunkline.wire.framers.line", "trunkline.web.server"} <= set(MODULES)
    assert len(list(imports_between_modules())) > 100


@pytest.mark.parametrize("name", trunkline.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(trunkline, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert value.__module__.startswith("trunkline.")
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text
    assert text.strip().splitlines()[0].endswith(".")


def public_methods() -> Iterator[tuple[str, Any]]:
    for name in trunkline.__all__:
        value = getattr(trunkline, name)
        if inspect.isclass(value) and value.__module__.startswith("trunkline."):
            for attribute, member in vars(value).items():
                target = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not attribute.startswith("_") and inspect.isfunction(target):
                    yield f"{name}.{attribute}", target


@pytest.mark.parametrize(("name", "method"), [pytest.param(*pair, id=pair[0]) for pair in public_methods()])
def test_every_public_method_says_what_it_does(name: str, method: Any) -> None:
    assert method.__doc__, name


def test_the_public_names_are_sorted_and_shown() -> None:
    assert list(trunkline.__all__) == sorted(set(trunkline.__all__))
    assert set(trunkline.__all__) <= set(dir(trunkline))
    assert trunkline.__version__


def test_a_name_that_is_not_there_is_missed_as_usual() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        trunkline.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    text = ast.get_docstring(SOURCES[name])
    assert text
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_names_and_the_list_is_true(name: str) -> None:
    names = listed(name)
    module = importlib.import_module(name)
    if names is None:
        assert not defined(name), f"{name} has public names and no __all__"
        return
    assert len(set(names)) == len(names)
    assert [one for one in names if not hasattr(module, one)] == []
    assert defined(name) - set(names) == set()


def test_no_module_takes_from_another_what_that_one_does_not_list() -> None:
    taken = [(who, where, what) for who, where, what in imports_between_modules() if what not in (listed(where) or [])]
    assert taken == []


def run_python(code: str) -> None:
    """Runs a program in a Python of its own."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_everything_imports_without_what_is_optional() -> None:
    run_python(
        "import sys\n"
        "for name in ('uvloop', 'httptools', 'aio_pika', 'celery', 'psycopg', 'zstandard', 'redis'):\n"
        "    sys.modules[name] = None\n"
        "import trunkline\n"
        "for name in trunkline.__all__:\n"
        "    getattr(trunkline, name)\n"
        "async def main():\n"
        "    return 42\n"
        "assert trunkline.Reactor.run(main) == 42\n"
    )


def test_the_tcp_framework_alone_loads_neither_database_nor_web() -> None:
    run_python(
        "import sys\n"
        "from trunkline import TcpClient, Reactor, TcpServer\n"
        "heavy = {'sqlalchemy', 'alembic', 'fastapi', 'uvicorn', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "builtins.eval", "builtins.exec"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def offences(tree: ast.AST) -> list[str]:
    """What a program does that none of ours may: run text as code, load pickles, or give a line to a shell."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS:
                found.append(dotted(node.func))
            shells = [keyword.value for keyword in node.keywords if keyword.arg == "shell"]
            found += ["shell=" for value in shells if not (isinstance(value, ast.Constant) and not value.value)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
            if (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
                found += imported
            found += [name for name in imported if name in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Constant) and node.value in FORBIDDEN_MODULES:
            found.append(f'"{node.value}"')
    return found


@pytest.mark.parametrize(
    "line",
    ["eval('1')", "exec(code)", "import pickle", "from pickle import loads", "import os\nos.system('ls')",
     "from os import system", "subprocess.run('ls', shell=True)", "subprocess.run('ls', shell=flag)", "import marshal",
     "importlib.import_module('pickle')", "f = builtins.eval('x')", "compile(a, b, 'exec')"],
)  # fmt: skip
def test_the_search_finds_what_it_is_to_find(line: str) -> None:
    assert offences(ast.parse(line))


@pytest.mark.parametrize(
    "line", ["re.compile('a')", "evaluate('1')", "subprocess.run(['ls'], shell=False)", "x = 'eval('"]
)
def test_the_search_finds_nothing_else(line: str) -> None:
    assert offences(ast.parse(line)) == []


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_runs_text_as_code_or_loads_pickles_or_asks_a_shell(name: str) -> None:
    assert offences(SOURCES[name]) == []
