"""The README, the tutorial, the how-tos and the HTTP reference are run as they stand, against a node.

Their code and shell lines are cut out of the pages, so they can't drift. Blocks marked ``sh`` are run; those marked
``bash`` are for a person at a terminal (a server that stays, an installation). Ports become those of the test's node.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_process import PATIENCE, NodeProcess, wait_for

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ULID = re.compile(r"/(commands|jobs)/[0-9A-Z]{26}")
HOW_TOS = sorted(page.name for page in (DOCS / "how-to").glob("*.md"))

# The pages use tools that a fresh machine may lack. What is under test is the node, so these do in their place.
STAND_INS = {
    "nc": """
import socket, sys
*_, host, port = sys.argv
with socket.create_connection((host, int(port)), 10) as line:
    line.sendall(sys.stdin.buffer.read())
    line.settimeout(1)
    try:
        while data := line.recv(4096):
            sys.stdout.buffer.write(data)
    except TimeoutError:
        pass
""",
    "curl": """
import sys, urllib.error, urllib.request
arguments, url, method, body, headers = sys.argv[1:], "", None, None, {}
while arguments:
    match arguments.pop(0):
        case "-X": method = arguments.pop(0)
        case "-d": body = arguments.pop(0).encode()
        case "-H": headers.update([arguments.pop(0).split(": ", 1)])
        case "-N" | "-s": pass
        case url: pass
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(answer.read())
""",
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def shell_lines(page: Path) -> list[str]:
    """The lines of all ``sh`` blocks; one that ends in a backslash goes on."""
    joined = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


class Shell:
    """Runs lines out of the pages as a reader would, in a folder, against a node."""

    def __init__(self, tools: Path) -> None:
        self.node: NodeProcess
        self.folder = ROOT
        self._background: list[subprocess.Popen[str]] = []
        for name, source in STAND_INS.items():
            if shutil.which(name) is None:
                (tools / name).write_text(f"#!{sys.executable}{source}")
                (tools / name).chmod(0o755)
        self._path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def _prepare(self, line: str) -> dict[str, Any]:
        host, port = self.node.address
        line = line.replace("127.0.0.1:7400", f"{host}:{port}").replace("127.0.0.1 7400", f"{host} {port}")
        line = line.replace("http://127.0.0.1:7480", self.node.url)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        environment = {**plain, "PATH": self._path, "TRUNKLINE_HTTP_PORT": self.node.url.rpartition(":")[2]}
        return {"args": ["bash", "-c", line], "cwd": self.folder, "env": environment, "text": True}

    def run(self, line: str) -> str:
        """What the line prints; it must succeed."""
        done = subprocess.run(**self._prepare(line), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "urn:trunkline:problem" not in done.stdout, f"{line}\n{done.stdout}"
        return done.stdout

    def start(self, line: str) -> None:
        """Starts a line that ends in ``&``."""
        assert line.endswith(" &")
        options = self._prepare("exec " + line.removesuffix(" &"))
        self._background.append(subprocess.Popen(**options, stdout=subprocess.DEVNULL))

    def wait_until_ended(self) -> None:
        """All that was started has ended of itself."""
        for process in self._background:
            assert process.wait(PATIENCE) == 0
        self._background.clear()

    def close(self) -> None:
        """Ends what was started and still runs."""
        for process in self._background:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    tools = tmp_path / "tools"
    tools.mkdir()
    shell = Shell(tools)
    yield shell
    shell.close()


def put_file(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def environment_of(serve_line: str) -> dict[str, str]:
    """The variables that a line sets before ``trunkline serve``."""
    *variables, program, command = serve_line.split()
    assert (program, command) == ("trunkline", "serve")
    return dict(variable.split("=", 1) for variable in variables)


def test_the_readmes_handler_and_lines_do_what_it_says(
    start_node: Callable[..., NodeProcess], shell: Shell, tmp_path: Path
) -> None:
    readme = ROOT / "README.md"
    (handler,) = blocks(readme, "python")
    activate, enter, serve, device, send, sync, store, netcat, devices = shell_lines(readme)
    assert (activate, enter) == (". .venv/bin/activate", "cd examples/01_meters")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    folder = shell.folder = tmp_path / "examples" / "01_meters"
    put_file(folder, "meters.py", handler)
    shell.node = node = start_node(folder=folder, **environment_of(serve))

    shell.start(device)
    wait_for(lambda: node.is_online("d1"), "the example's device is online")
    assert shell.run(send) == "voltage=230.1 energy=4711\n"
    job = node.ended_job(json.loads(shell.run(sync))["job"]["id"])
    assert (job["state"], job["done"], job["total"]) == ("succeeded", 3, 3)
    assert len(node.get("/records/meter/d1")["entries"]) == 12
    assert json.loads(shell.run(store)) == {"stored": 4}
    assert shell.run(netcat) == "STORED 2\n"
    found = dict(line.split("\t")[:2] for line in shell.run(devices).splitlines())
    assert found["d1"] == "online"
    assert "d2" in found
    node.wait_until_drained(7)
    assert node.stored_items() == [{"device": "d1", "energy": 4711}, 1, 2, 3, 4, 5, 6]
    # Both files of the sink's rules: at most five in one, and never 1 and 2 together.
    contents = [file.read_text().splitlines() for file in node.batch_files()]
    assert all(len(lines) <= 5 and not {"1", "2"} <= set(lines) for lines in contents)


def test_the_tutorial_leads_from_a_device_to_stored_batches(
    start_node: Callable[..., NodeProcess], shell: Shell, tmp_path: Path
) -> None:
    tutorial = DOCS / "tutorial" / "first-line.md"
    device_source, handler = blocks(tutorial, "python")
    serve_lines = [line for block in blocks(tutorial, "bash") for line in block.splitlines() if line.endswith(" serve")]
    plain, with_module = map(environment_of, serve_lines)
    device, devices, send, post, sync, record, store, look = shell_lines(tutorial)
    folder = shell.folder = tmp_path / "first-line"
    put_file(folder, "device.py", device_source)

    shell.node = first = start_node(folder=folder, **plain)
    shell.start(device)
    wait_for(lambda: first.is_online("d1"), "the tutorial's device is online")
    assert shell.run(devices).startswith("d1\tonline\t")
    assert shell.run(send) == "voltage=230.1 energy=4711\n"
    assert json.loads(shell.run(post))["reply"] == "voltage=230.1 energy=4711"
    first.wait_until_drained(1)
    first.stop()
    shell.wait_until_ended()

    put_file(folder, "meters.py", handler)
    shell.node = second = start_node(folder=folder, **with_module)
    shell.start(device)
    wait_for(lambda: second.is_online("d1"), "the device is back")
    assert second.ended_job(json.loads(shell.run(sync))["job"]["id"])["state"] == "succeeded"
    entries = {entry["key"]: entry["value"] for entry in json.loads(shell.run(record))["entries"]}
    assert entries == {"energy": 4711, "voltage": 230.1, "serial": "A-1077"}
    assert json.loads(shell.run(store)) == {"stored": 4}
    second.wait_until_drained(6)
    assert "2\n3\n4\n" in shell.run(look)
    second.stop()
    shell.wait_until_ended()


def test_the_lines_of_each_examples_own_readme_work(
    start_node: Callable[..., NodeProcess], shell: Shell, tmp_path: Path
) -> None:
    shell.folder = ROOT / "examples" / "01_meters"
    serve, simulate, sync, record = shell_lines(shell.folder / "README.md")
    put_file(tmp_path, "meters.py", (shell.folder / "meters.py").read_text(encoding="utf-8"))
    shell.node = node = start_node(folder=tmp_path, **environment_of(serve))
    shell.start(simulate)
    wait_for(lambda: node.is_online("sim-0001"), "the first simulated device is online")
    assert node.ended_job(json.loads(shell.run(sync))["job"]["id"])["state"] == "succeeded"
    assert len(json.loads(shell.run(record))["entries"]) == 40

    shell.folder = ROOT / "examples" / "02_device"
    device, send = shell_lines(shell.folder / "README.md")
    shell.start(device)
    wait_for(lambda: node.is_online("d1"), "the example's device is online")
    assert shell.run(send) == "voltage=230.1 energy=4711\n"


@pytest.fixture
def documented_node(start_node: Callable[..., NodeProcess], shell: Shell, tmp_path: Path) -> NodeProcess:
    """A node as the how-tos and the reference suppose it: with the examples' handler and device."""
    put_file(tmp_path, "meters.py", (ROOT / "examples" / "01_meters" / "meters.py").read_text(encoding="utf-8"))
    shell.node = start_node(folder=tmp_path, TRUNKLINE_MODULES="meters")
    shell.start(f"python {ROOT / 'examples' / '02_device' / 'device.py'} d1 127.0.0.1:7400 &")
    wait_for(lambda: shell.node.is_online("d1"), "the example's device is online")
    shell.folder = tmp_path
    shell.node.wait_until_drained(1)
    return shell.node


@pytest.mark.parametrize("name", [name for name in HOW_TOS if shell_lines(DOCS / "how-to" / name)])
def test_every_line_of_a_how_to_works(name: str, documented_node: NodeProcess, shell: Shell) -> None:
    for line in shell_lines(DOCS / "how-to" / name):
        assert shell.run(line), f"{line} prints nothing"


def test_the_how_to_on_handlers_gives_handlers_that_sync(
    start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    coroutine, function = blocks(DOCS / "how-to" / "sync-records.md", "python")
    put_file(tmp_path, "handlers.py", coroutine + function)
    node = start_node(folder=tmp_path, TRUNKLINE_MODULES="handlers")
    node.answering("d1", {"PAGES": "1", "PAGE 1": '{"energy": 7}', "TARIFF": "night"}.__getitem__)
    for kind, expected in (("meter", {"energy": 7}), ("tariff", {"tariff": "night"})):
        job = node.ended_job(node.sync(kind, "d1")["job"]["id"])
        assert job["state"] == "succeeded", job
        entries = {entry["key"]: entry["value"] for entry in node.get(f"/records/{kind}/d1")["entries"]}
        assert entries == expected


def same_shape(documented: Any, given: Any) -> bool:
    """Whether two JSON values have the same fields all the way down; null fits anything."""
    if documented is None or given is None:
        return True
    if isinstance(documented, dict) and isinstance(given, dict):
        return documented.keys() == given.keys() and all(same_shape(documented[key], given[key]) for key in given)
    if isinstance(documented, list) and isinstance(given, list):
        return all(same_shape(documented[0], one) for one in given) if documented else True
    numbers = (int, float)
    return type(documented) is type(given) or (
        type(documented) in numbers and type(given) in numbers  # not bool, which is an int by inheritance
    )


def test_every_example_of_the_http_reference_gives_an_answer_of_the_documented_shape(
    documented_node: NodeProcess, shell: Shell
) -> None:
    examples = tomllib.loads((DOCS / "generate.toml").read_text(encoding="utf-8"))["routes"]
    ids: dict[str, str] = {}
    for route, example in examples.items():
        line = ULID.sub(lambda found: f"/{found[1]}/{ids[found[1]]}", example["curl"].replace("\\\n", " "))
        output = shell.run(line)
        if route.endswith("/events"):
            kinds, documented = (
                re.findall(r"^event: (\w+)", text, re.MULTILINE) for text in (output, example["answer"])
            )
            assert set(kinds) == set(documented)
            assert '"state":"succeeded"' in output.rpartition("event: state")[2]
            continue
        answer, documented = json.loads(output), json.loads(example["answer"])
        # The lists that make a page have something in them, or their shape would not be seen.
        assert answer.get("items", answer.get("entries", True)), route
        assert same_shape(documented, answer), f"{route}: {answer}"
        if route.startswith("POST") and route.endswith("/commands"):
            ids["commands"] = answer["id"]
        if route.endswith("/sync"):
            ids["jobs"] = answer["job"]["id"]


def test_the_bytes_of_the_line_protocols_example_are_what_goes_over_the_line(node: NodeProcess) -> None:
    page = DOCS / "reference" / "line-protocol.md"
    (example,) = [block for block in blocks(page, "text") if block.startswith(">")]
    device = node.dial()
    steps = 0
    for direction, numbers in re.findall(r"^([<>])((?: [0-9A-F]{2}\b)+)", example, re.MULTILINE):
        expected = bytes.fromhex(numbers)
        if direction == ">":
            device.send_bytes(expected)
        else:
            if expected == b"read all\n":
                node.send("d1", "read all")
            assert f"{device.read_line()}\n".encode().startswith(expected)
        steps += 1
    assert steps == example.count("\n") - 1
    assert device.lines_until_closed() == []
    assert node.offline_reason("d1") == "bad_frame"
