"""``trunkline call`` against a real server."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from test_rpc_calls import new_service

from trunkline.reactor import ReactorThread
from trunkline.rpc import RpcServer


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    service = new_service()

    @service.method
    async def count(until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    @service.method
    def strange() -> dict[tuple[int, int], int]:
        return {(1, 2): 3}

    with ReactorThread() as thread:

        async def serve() -> RpcServer:
            server = RpcServer(thread.reactor, service, tokens={"t1": []})
            await server.listen("127.0.0.1", 0)
            return server

        server = thread.run(serve())
        yield f"127.0.0.1:{server.port}"
        thread.run(server.drain(2))


def run(*arguments: str, token: str = "t1") -> tuple[int, list[Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "trunkline.cli.main", "call", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={"TRUNKLINE_CALL_TOKEN": token},
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_result_is_printed_as_json(address: str) -> None:
    assert run(address, "add", "[20, 22]") == (0, [42], "")
    assert run(address, "echo", '{"a": [null, true]}') == (0, [{"a": [None, True]}], "")
    assert run(address, "trunkline.ping") == (0, ["pong"], "")
    assert run(address, "count", "3", "--stream") == (0, [0, 1, 2], "")


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["fail", '"declared"'], 1, "NoSuchMeter: no meter m9"),
        (["fail", '"bug"'], 1, "CallFailed: fail failed; the log"),
        (["add", '["1"]'], 2, "trunkline: add: Expected `int`, got `str`"),
        (["add", "{"], 2, "they are no JSON"),
        (["no_such"], 2, "no method 'no_such'"),
        (["strange"], 2, "can't be shown as JSON"),
        (["count", "3"], 2, "is a stream"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(address: str, arguments: list[str], code: int, why: str) -> None:
    found, printed, errors = run(address, *arguments)
    assert (found, printed, len(errors.splitlines())) == (code, [], 1)
    assert why in errors


def test_who_is_not_let_in_or_finds_nobody_is_told(address: str) -> None:
    code, _, errors = run(address, "add", "[1]", token="wrong")
    assert (code, "the token is missing or wrong" in errors) == (2, True)
    code, _, errors = run("127.0.0.1:1", "add", "[1]")
    assert (code, "can't be reached" in errors) == (3, True)
    for wrong in ("127.0.0.1", "127.0.0.1:x", ":7", "h:99999"):
        assert run(wrong, "add")[0] == 2
