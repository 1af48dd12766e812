"""Commands, from the caller to the device and back: one honest outcome for each."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import pytest
from node_process import NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


def check_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Every refusal has one shape, which says what happened and what to do next."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "next"}
    assert problem["status"] == status
    assert all(problem[name] for name in ("type", "title", "detail", "next"))
    return dict(problem)


# Outcomes.


def test_a_command_is_accepted_written_and_replied(node: NodeProcess) -> None:
    device = node.connect("c-1")
    response = node.http.post("/api/v1/devices/c-1/commands", json={"cmd": "read all", "timeout": 5, "ttl": 30})
    assert response.status_code == 202
    accepted = response.json()
    assert accepted["state"] == "queued"
    assert device.answer(1, lambda _cmd: "voltage=230.1") == ["read all"]

    command = node.ended_command(accepted["id"])
    assert command["device"] == "c-1"
    assert command["cmd"] == "read all"
    assert (command["timeout"], command["ttl"]) == (5, 30)
    assert command["state"] == "replied"
    assert command["reply"] == "voltage=230.1"
    assert command["reason"] is None
    assert command["writes"] == 1
    assert [step["state"] for step in command["states"]] == ["queued", "written", "replied"]
    moments = [datetime.fromisoformat(step["at"]) for step in command["states"]]
    assert moments == sorted(moments)
    assert (datetime.fromisoformat(command["expires_at"]) - moments[0]).total_seconds() == pytest.approx(30, abs=0.002)


def test_a_caller_that_waits_gets_the_reply(node: NodeProcess) -> None:
    node.answering("c-wait")
    response = node.http.post("/api/v1/devices/c-wait/commands", json={"cmd": "read"}, params={"wait": 10})
    assert response.status_code == 200
    assert response.json()["reply"] == "OK read"
    assert response.json()["state"] == "replied"


def test_a_caller_that_waits_too_short_a_time_gets_the_command_as_it_stands(node: NodeProcess) -> None:
    device = node.connect("c-short")
    response = node.http.post("/api/v1/devices/c-short/commands", json={"cmd": "read"}, params={"wait": 0.2})
    assert response.status_code == 202
    assert response.json()["state"] == "written"
    assert response.json()["reply"] is None
    device.answer(1)
    assert node.ended_command(response.json()["id"])["reply"] == "OK read"


def test_replies_belong_to_their_commands_with_many_callers_and_a_slow_device(node: NodeProcess) -> None:
    device = node.answering("c-slow", lambda cmd: f"answer to {cmd}", delay=0.02)
    with ThreadPoolExecutor(20) as callers:
        ended = list(callers.map(lambda number: node.send("c-slow", f"question {number}", wait=30), range(20)))
    assert [command["reply"] for command in ended] == [f"answer to question {number}" for number in range(20)]
    assert sorted(device.commands) == sorted(f"question {number}" for number in range(20))


def test_a_device_has_one_command_in_flight(node: NodeProcess) -> None:
    device = node.connect("c-one")
    commands = [node.send("c-one", f"step {number}") for number in range(3)]
    for number in range(3):
        assert device.read_line() == f"step {number}"
        if number == 0:
            assert device.says_nothing(0.2)  # the next one waits for the reply
            states = [node.command(command["id"])["state"] for command in commands]
            assert states == ["written", "queued", "queued"]
        device.send(f"done {number}")
    assert [node.ended_command(command["id"])["reply"] for command in commands] == ["done 0", "done 1", "done 2"]


def test_an_offline_device_gets_its_commands_in_order_on_its_next_connection(node: NodeProcess) -> None:
    node.connect("c-off").close()
    assert node.offline_reason("c-off") == "peer_closed"
    commands = [node.send("c-off", f"step {number}") for number in range(5)]
    assert {node.command(command["id"])["state"] for command in commands} == {"queued"}
    device = node.connect("c-off")
    assert device.answer(5) == [f"step {number}" for number in range(5)]
    assert [node.ended_command(command["id"])["writes"] for command in commands] == [1] * 5


def test_hundreds_of_waiting_commands_are_each_written_once_and_in_order(start_node: StartNode) -> None:
    """More than the node holds in memory for one device, and a device that answers while more are being read."""
    node = start_node("[commands]\nqueued_limit = 5000\n")
    node.connect("d1").close()
    assert node.offline_reason("d1") == "peer_closed"
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda number: node.send("d1", f"early {number}"), range(400)))
    device = node.answering("d1")
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda number: node.send("d1", f"later {number}"), range(200)))
    wait_for(lambda: node.get("/status")["commands_open"] == 0, "all commands have ended", 60)
    assert len(device.commands) == 600
    assert set(device.commands) == {f"early {n}" for n in range(400)} | {f"later {n}" for n in range(200)}
    written = {step["cmd"]: step["writes"] for step in node.get("/devices/d1/commands", limit=600)["items"]}
    assert set(written.values()) == {1}
    assert node.metric("trunkline_commands_ended_total", state="replied") == 600
    accepted = [command["cmd"] for command in node.get("/devices/d1/commands", limit=600)["items"]][::-1]
    assert device.commands == accepted


def test_a_command_whose_ttl_has_passed_is_never_written(node: NodeProcess) -> None:
    node.connect("c-ttl").close()
    assert node.offline_reason("c-ttl") == "peer_closed"
    expired = node.send("c-ttl", "too late", ttl=0.3)
    ended = node.ended_command(expired["id"])
    assert ended["state"] == "expired"
    assert "ttl" in ended["reason"]
    assert ended["writes"] == 0
    assert [step["state"] for step in ended["states"]] == ["queued", "expired"]
    device = node.connect("c-ttl")
    node.send("c-ttl", "in time")
    assert device.answer(1) == ["in time"]


def test_a_ttl_that_passes_behind_a_slow_command_is_seen_at_the_moment_of_the_write(node: NodeProcess) -> None:
    device = node.connect("c-behind")
    first = node.send("c-behind", "slow")
    second = node.send("c-behind", "short-lived", ttl=0.3)
    third = node.send("c-behind", "patient")
    assert device.read_line() == "slow"
    assert node.ended_command(second["id"])["state"] == "expired"
    device.send("done")
    assert device.answer(1) == ["patient"]
    assert node.ended_command(first["id"])["reply"] == "done"
    assert node.ended_command(third["id"])["reply"] == "OK patient"


def test_a_reply_that_comes_late_is_recorded_and_not_given_to_the_next_command(node: NodeProcess) -> None:
    device = node.connect("c-late")
    first = node.send("c-late", "first", timeout=0.3)
    second = node.send("c-late", "second")
    assert device.read_line() == "first"
    unknown = node.ended_command(first["id"])
    assert unknown["state"] == "unknown"
    assert unknown["reply"] is None
    assert "0.3 s" in unknown["reason"]
    assert [step["state"] for step in unknown["states"]] == ["queued", "written", "unknown"]
    assert device.says_nothing(0.2)  # what the device says next may still be the first one's reply
    device.send("reply to first")
    assert device.read_line() == "second"
    device.send("reply to second")
    assert node.ended_command(second["id"])["reply"] == "reply to second"
    late = node.command(first["id"])
    assert late["late_reply"] == "reply to first"
    assert late["state"] == "unknown"
    assert late["reply"] is None


def test_a_late_reply_to_nobody_is_counted_and_changes_nothing(node: NodeProcess) -> None:
    device = node.connect("c-chatty")
    unsolicited = node.metric("trunkline_unsolicited_lines_total")
    device.send("by the way")
    wait_for(lambda: node.metric("trunkline_unsolicited_lines_total") == unsolicited + 1, "the line is counted")
    command = node.send("c-chatty", "read")
    assert device.answer(1) == ["read"]
    assert node.ended_command(command["id"])["reply"] == "OK read"


def test_a_device_that_drops_before_its_reply_gets_the_command_again(node: NodeProcess) -> None:
    device = node.connect("c-drop")
    command = node.send("c-drop", "read")
    assert device.read_line() == "read"
    device.close()
    assert node.offline_reason("c-drop") == "peer_closed"
    assert node.command(command["id"])["state"] == "written"
    assert node.connect("c-drop").answer(1) == ["read"]
    ended = node.ended_command(command["id"])
    assert ended["state"] == "replied"
    assert ended["writes"] == 2


def test_a_command_goes_to_the_connection_that_took_over(node: NodeProcess) -> None:
    first = node.connect("c-taken")
    command = node.send("c-taken", "read")
    assert first.read_line() == "read"
    second = node.connect("c-taken")
    assert first.lines_until_closed() == ["BYE taken_over"]
    assert second.answer(1) == ["read"]
    ended = node.ended_command(command["id"])
    assert (ended["state"], ended["writes"]) == ("replied", 2)


def test_a_command_that_was_written_and_whose_device_stays_away_ends_as_unknown(node: NodeProcess) -> None:
    device = node.connect("c-away")
    command = node.send("c-away", "read", ttl=0.5)
    assert device.read_line() == "read"
    device.close()
    ended = node.ended_command(command["id"])
    assert ended["state"] == "unknown"
    assert ended["writes"] == 1


def test_a_command_that_was_accepted_survives_the_death_of_the_node(start_node: StartNode) -> None:
    node = start_node()
    node.connect("d1").close()
    assert node.offline_reason("d1") == "peer_closed"
    accepted = []
    for number in range(20):
        response = node.http.post("/api/v1/devices/d1/commands", json={"cmd": f"step {number}"})
        assert response.status_code == 202
        accepted.append(response.json())
    node.kill()
    node.start()
    assert [node.command(command["id"]) for command in accepted] == accepted


def test_a_command_in_flight_at_the_death_of_the_node_is_written_again(start_node: StartNode) -> None:
    node = start_node()
    device = node.connect("d1")
    command = node.send("d1", "read", ttl=60)
    assert device.read_line() == "read"
    wait_for(lambda: node.command(command["id"])["state"] == "written", "the write is recorded")
    node.kill()
    assert device.lines_until_closed() == []
    node.start()
    assert node.connect("d1").answer(1) == ["read"]
    ended = node.ended_command(command["id"])
    assert (ended["state"], ended["writes"]) == ("replied", 2)


def test_the_commands_of_a_device_are_listed_newest_first_and_in_pages(node: NodeProcess) -> None:
    node.connect("c-list").close()
    sent = [node.send("c-list", f"step {number}")["id"] for number in range(7)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = node.get("/devices/c-list/commands", limit=3, **cursor)
        found += [command["id"] for command in page["items"]]
        if page["next"] is None:
            break
        cursor = {"before": page["next"]}
    assert found == sent[::-1]


# Refusals.


def test_a_device_that_nobody_knows_gets_no_commands(node: NodeProcess) -> None:
    refused = check_problem(node.http.post("/api/v1/devices/nobody/commands", json={"cmd": "read"}), 404)
    assert '"nobody"' in refused["detail"]
    check_problem(node.http.get("/api/v1/devices/nobody"), 404)
    check_problem(node.http.get("/api/v1/devices/nobody/commands"), 404)
    check_problem(node.http.get("/api/v1/commands/nothing"), 404)


def test_one_unfinished_command_too_many_is_refused(start_node: StartNode) -> None:
    node = start_node("[commands]\nqueued_limit = 3\n")
    device = node.connect("d1")
    for number in range(3):
        node.send("d1", f"step {number}")
    response = node.http.post("/api/v1/devices/d1/commands", json={"cmd": "one more"})
    check_problem(response, 429)
    assert response.headers["retry-after"] == "1"
    assert node.metric("trunkline_commands_refused_total", reason="Overloaded") == 1
    device.answer(3)
    wait_for(lambda: node.get("/status")["commands_open"] == 0, "all commands have ended")
    node.send("d1", "one more")
    assert device.answer(1) == ["one more"]


def test_the_limit_of_unfinished_commands_holds_for_callers_at_once(start_node: StartNode) -> None:
    node = start_node("[commands]\nqueued_limit = 10\n")
    node.connect("d1").close()
    with ThreadPoolExecutor(20) as callers:
        statuses = list(
            callers.map(
                lambda number: node.http.post("/api/v1/devices/d1/commands", json={"cmd": str(number)}).status_code,
                range(60),
            )
        )
    assert statuses.count(202) == 10
    assert statuses.count(429) == 50


@pytest.mark.parametrize("name", ["timeout", "ttl"])
@pytest.mark.parametrize("value", ["-1", "0", "NaN", "Infinity", "-Infinity", "1e300", "1e999", '"soon"', "[1]"])
def test_a_time_that_can_be_none_is_refused(node: NodeProcess, name: str, value: str) -> None:
    node.connect("c-times").close()
    body = f'{{"cmd": "read", "{name}": {value}}}'
    response = node.http.post(
        "/api/v1/devices/c-times/commands", content=body, headers={"Content-Type": "application/json"}
    )
    assert name in check_problem(response, 422)["detail"]


@pytest.mark.parametrize("wait", ["-1", "0", "nan", "inf", "1e9", "soon"])
def test_a_wait_that_can_be_none_is_refused(node: NodeProcess, wait: str) -> None:
    node.connect("c-waits").close()
    response = node.http.post("/api/v1/devices/c-waits/commands", json={"cmd": "read"}, params={"wait": wait})
    assert "wait" in check_problem(response, 422)["detail"]
    assert node.get("/devices/c-waits/commands")["items"] == []


@pytest.mark.parametrize(
    "cmd", ["", "   ", "x" * 1025, "é" * 513, "two\nlines", "two\r\nlines", "nul\0", "bell\a", "\x7f", "\x85"]
)
def test_a_command_that_is_no_line_is_refused(node: NodeProcess, cmd: str) -> None:
    node.connect("c-lines").close()
    response = node.http.post("/api/v1/devices/c-lines/commands", json={"cmd": cmd})
    assert "cmd" in check_problem(response, 422)["detail"]
    assert node.get("/devices/c-lines/commands")["items"] == []


def test_the_longest_command_there_may_be_arrives_whole(node: NodeProcess) -> None:
    device = node.connect("c-long")
    for cmd in ("x" * 1024, "é" * 512, "\ttabs\tand 「quotes」 \U0001f600"):
        command = node.send("c-long", cmd)
        assert device.answer(1, lambda _cmd: "done") == [cmd]
        assert node.ended_command(command["id"])["cmd"] == cmd


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b"read", b'{"cmd": 3}', b'{"cmd": null}', b'{"cmd": "a", "x": 1}', b"\xff\xfe",
     b'{"cmd": "\\ud800"}', b'{"cmd": "a"'],
)  # fmt: skip
def test_a_body_that_is_no_command_is_refused(node: NodeProcess, body: bytes) -> None:
    node.connect("c-bodies").close()
    response = node.http.post(
        "/api/v1/devices/c-bodies/commands", content=body, headers={"Content-Type": "application/json"}
    )
    check_problem(response, 422)
    assert node.get("/devices/c-bodies/commands")["items"] == []


@pytest.mark.parametrize("body", [b'{"cmd": "\xff"}', b'{"cmd": ' + b"[" * 50_000], ids=["no UTF-8", "nested too deep"])
def test_a_body_that_can_not_even_be_parsed_is_refused(node: NodeProcess, body: bytes) -> None:
    node.connect("c-unparsed").close()
    response = node.http.post(
        "/api/v1/devices/c-unparsed/commands", content=body, headers={"Content-Type": "application/json"}
    )
    check_problem(response, 400)
    assert node.get("/devices/c-unparsed/commands")["items"] == []


def test_a_caller_that_goes_away_takes_nothing_back(node: NodeProcess) -> None:
    device = node.connect("c-gone")
    impatient = node.new_client()
    with pytest.raises(httpx.ReadTimeout):
        impatient.post("/api/v1/devices/c-gone/commands", json={"cmd": "read"}, params={"wait": 60}, timeout=0.3)
    impatient.close()
    assert device.answer(1) == ["read"]
    (command,) = node.get("/devices/c-gone/commands")["items"]
    assert node.ended_command(command["id"])["reply"] == "OK read"


# From the shell.


def test_send_prints_the_id_of_the_accepted_command(node: NodeProcess) -> None:
    device = node.connect("s-1")
    sent = node.cli("send", "s-1", "read all", "--url", node.url)
    assert (sent.returncode, sent.stderr) == (0, "")
    assert device.answer(1) == ["read all"]
    assert node.ended_command(sent.stdout.strip())["reply"] == "OK read all"


def test_send_waits_and_prints_the_reply(node: NodeProcess) -> None:
    node.answering("s-2", lambda _cmd: "voltage=230.1")
    sent = node.cli("send", "s-2", "read all", "--wait", "--url", node.url)
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "voltage=230.1\n", "")


def test_send_prints_the_whole_command_as_json(node: NodeProcess) -> None:
    node.answering("s-3")
    sent = node.cli("send", "s-3", "read", "--wait", "--json", "--timeout", "5", "--ttl", "20", "--url", node.url)
    assert sent.returncode == 0
    command = json.loads(sent.stdout)
    assert (command["state"], command["reply"], command["timeout"], command["ttl"]) == ("replied", "OK read", 5, 20)


def test_send_ends_with_1_where_there_was_no_reply(node: NodeProcess) -> None:
    node.connect("s-4").close()
    assert node.offline_reason("s-4") == "peer_closed"
    sent = node.cli("send", "s-4", "read", "--wait", "--ttl", "0.2", "--url", node.url)
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr.startswith("expired: ")
    as_json = node.cli("send", "s-4", "read", "--wait", "--ttl", "0.2", "--json", "--url", node.url)
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["state"] == "expired"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nobody", "read"], '"nobody"'),
        (["s-5", ""], "cmd"),
        (["s-5", "read", "--timeout", "-5"], "timeout = -5"),
        (["s-5", "read", "--timeout", "nan"], "timeout"),
        (["s-5", "read", "--ttl", "0", "--wait"], "ttl = 0"),
        (["s-5", "read", "--ttl", "-100", "--wait"], "ttl = -100"),
        (["s-5", "read", "--ttl", "-100"], "ttl = -100"),
        (["s-5", "read", "--ttl", "inf", "--wait"], "ttl"),
        (["s-5", "caf\udce9"], "cmd"),
        (["s-5\udce9", "read"], "device"),
    ],
)
def test_send_ends_with_2_and_one_line_where_the_request_is_wrong(
    node: NodeProcess, arguments: list[str], named: str
) -> None:
    node.connect("s-5").close()
    sent = node.cli("send", *arguments, "--url", node.url)
    assert sent.returncode == 2, sent.stderr
    assert sent.stdout == ""
    assert sent.stderr.startswith("trunkline: ")
    assert len(sent.stderr.splitlines()) == 1
    assert named in sent.stderr


def test_send_ends_with_3_where_no_node_answers(node: NodeProcess) -> None:
    sent = node.cli("send", "s-6", "read", "--url", "http://127.0.0.1:1")
    assert sent.returncode == 3
    assert sent.stderr.startswith("trunkline: ")
    assert len(sent.stderr.splitlines()) == 1
    assert "http://127.0.0.1:1" in sent.stderr


def test_many_callers_wait_at_once(node: NodeProcess) -> None:
    """Each device answers after all have asked: a wait holds up nobody else."""
    devices = [node.connect(f"c-many-{number}") for number in range(30)]
    replies: dict[int, str] = {}

    def ask(number: int) -> None:
        replies[number] = node.send(f"c-many-{number}", "read", wait=30)["reply"]

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for caller in callers:
        caller.start()
    for device in devices:
        assert device.read_line() == "read"
    assert node.http.get("/healthz").text == "ok\n"  # answered while all of them wait
    for number, device in enumerate(devices):
        device.send(f"I am {number}")
    for caller in callers:
        caller.join()
    assert replies == {number: f"I am {number}" for number in range(30)}
