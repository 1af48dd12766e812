"""The client that is made from a service: it type-checks, and calls what it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rpc_meters

from trunkline.errors import UsageError
from trunkline.rpc import Service, stub_source

HERE = Path(__file__).resolve().parent

USE = """
import asyncio
from collections.abc import AsyncIterator

from made import Meters
from rpc_meters import Reading

from trunkline.rpc import RpcClient, RpcPeer


async def use(peer: RpcPeer, client: RpcClient) -> float:
    async def readings() -> AsyncIterator[Reading]:
        yield Reading("m1", 230.0)

    meters = Meters(peer)
    await Meters(client).switch("m1", True)
    reading: Reading = await meters.read("m1", timeout=5)
    async for one in meters.watch(["m1"]):
        reading = one
    stored: int = await meters.store("here", readings())
    numbers: dict[str, list[int | None]] = await meters.odd_defaults(1, reading)
    return reading.volts + stored + len(numbers)
"""


class Recorder:
    """Records what is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def call(self, method: str, *args: Any, **more: Any) -> Any:
        self.calls.append((method, args, more))

    def stream(self, method: str, *args: Any, **more: Any) -> Any:
        self.calls.append((method, args, more))


def load(source: str, path: Path) -> Any:
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("made", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mypy(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), *files],
        check=False,
        cwd=folder,
        env={"MYPYPATH": f"{HERE}:{HERE.parents[1] / 'src'}:{folder}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_client_and_those_who_use_it_type_check(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(stub_source(rpc_meters.SERVICE, "Meters"), encoding="utf-8")
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    done = mypy(tmp_path, "made.py", "use.py")
    assert done.returncode == 0, done.stdout
    (tmp_path / "use.py").write_text(USE.replace('read("m1"', "read(1"), encoding="utf-8")
    done = mypy(tmp_path, "made.py", "use.py")
    assert 'incompatible type "int"; expected "str"' in done.stdout


def test_the_client_calls_what_it_says(tmp_path: Path) -> None:
    made = load(stub_source(rpc_meters.SERVICE, "Meters"), tmp_path / "made.py")
    recorder = Recorder()
    meters = made.Meters(recorder)
    for call in (meters.read("m1", timeout=3), meters.switch("m1", True)):
        with pytest.raises(StopIteration):
            call.send(None)
    meters.watch(["m1"], 3)
    read, switch, watch = recorder.calls
    assert read == (
        "read",
        ("m1", "a"),
        {"timeout": 3, "result_type": rpc_meters.Reading, "idempotent": True},
    )
    assert switch[:2] == ("switch", ("m1", True, None))
    assert watch == ("watch", (["m1"], 3), {"timeout": None, "result_type": rpc_meters.Reading})
    assert 'It says """volts""" and C:\\new.' in made.Meters.read.__doc__


def test_what_no_client_can_be_made_of_is_said() -> None:
    class Local:
        pass

    def service_with(function: Any, **options: Any) -> Service:
        service = Service()
        service.method(**options)(function)
        return service

    def takes_timeout(timeout: int) -> None: ...

    def plain() -> None: ...

    def returns_local() -> list[Any]: ...

    with pytest.raises(UsageError, match="rename it"):
        stub_source(service_with(takes_timeout))
    with pytest.raises(UsageError, match="is no name"):
        stub_source(service_with(plain, name="a.b"))
    with pytest.raises(UsageError, match="is no name"):
        stub_source(service_with(plain), "class")
    service = service_with(returns_local)
    service.methods["returns_local"].result_type = Local
    with pytest.raises(UsageError, match="can't be imported"):
        stub_source(service)
