"""Batch storage: items in over HTTP and TCP, files out, by the rules, each item once."""

import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


def check_files(files: list[Path]) -> list[Any]:
    """Each file holds 1 to 5 items, one per line and nothing else, never both 1 and 2. Returns all items in order."""
    items: list[Any] = []
    for file in files:
        data = file.read_bytes()
        assert data.endswith(b"\n"), file
        assert b"\r" not in data, file
        lines = data.decode().removesuffix("\n").split("\n")
        assert 1 <= len(lines) <= 5, file
        batch = [json.loads(line) for line in lines]
        numbers = [item for item in batch if isinstance(item, int | float) and not isinstance(item, bool)]
        assert not (1 in numbers and 2 in numbers), (file, batch)
        items += batch
    return items


def keys(items: list[Any]) -> list[str]:
    """Items as text: to JSON ``true`` is no 1, whatever Python thinks."""
    return [json.dumps(item, sort_keys=True) for item in items]


def test_items_are_answered_for_and_stored(start_node: StartNode) -> None:
    node = start_node()
    assert node.store([3, "four", {"five": [6, None, True]}]) == 3
    node.wait_until_drained(3)
    (file,) = node.batch_files()
    assert file.read_text() == '3\n"four"\n{"five":[6,null,true]}\n'
    page = node.get("/batches")
    (batch,) = page["items"]
    assert (batch["state"], batch["file"], batch["count"]) == ("stored", file.name, 3)
    assert batch["items"] == [3, "four", {"five": [6, None, True]}]
    assert batch["created_at"] <= batch["stored_at"]
    assert page["spooled"] == 0
    status = node.get("/status")
    assert (status["items_stored"], status["batches_stored"], status["items_spooled"]) == (3, 1, 0)


def test_a_client_stores_a_list_with_one_line(start_node: StartNode) -> None:
    node = start_node()
    stranger = node.dial()  # who need not say hello for that
    stranger.send("STORE [1,2,3,4]")
    assert stranger.read_line() == "STORED 4"
    device = node.connect("d1")
    device.send('STORE ["a", {"b": "\\n"}]')
    assert device.read_line() == "STORED 2"
    device.send("STORE []")
    assert device.read_line() == "STORED 0"
    node.wait_until_drained(6)
    files = node.batch_files()
    assert keys(check_files(files)) == keys([1, 2, 3, 4, "a", {"b": "\n"}])
    # 1 and 2 are never together, and nothing is put past an earlier item to make up for it.
    assert files[0].read_text() == "1\n"


def test_thousands_of_random_items_are_each_in_one_file_and_in_order(start_node: StartNode) -> None:
    node = start_node()
    chance = random.Random(7)

    def some_item() -> Any:
        return chance.choice(
            [chance.randint(1, 3), chance.randint(1, 3), 1, 2, 1.0, 2.0, True, "1", "line\nend", "\u2028 é \U0001f600",
             [1, 2], {"1": 2}, None, chance.random(), -0.5, 10**30, ""]
        )  # fmt: skip

    sent: list[Any] = []
    for _ in range(120):
        some = [some_item() for _ in range(chance.randint(0, 60))]
        assert node.store(some) == len(some)
        sent += some
    assert len(sent) > 3000
    node.wait_until_drained(len(sent))
    assert keys(check_files(node.batch_files())) == keys(sent)


def test_many_senders_at_once_lose_nothing_and_each_keeps_its_order(start_node: StartNode) -> None:
    node = start_node()
    device = node.connect("d1")

    def over_http(sender: int) -> None:
        for first in range(0, 200, 10):
            assert node.store([{"sender": sender, "n": n} for n in range(first, first + 10)]) == 10

    def over_tcp(sender: int) -> None:
        for first in range(0, 200, 10):
            device.send("STORE " + json.dumps([{"sender": sender, "n": n} for n in range(first, first + 10)]))
        for _ in range(20):
            assert device.read_line() == "STORED 10"

    with ThreadPoolExecutor(6) as senders:
        for done in [senders.submit(over_http, sender) for sender in range(5)] + [senders.submit(over_tcp, 5)]:
            done.result()
    node.wait_until_drained(1200)
    items = check_files(node.batch_files())
    for sender in range(6):
        assert [item["n"] for item in items if item["sender"] == sender] == list(range(200))


def test_files_are_whole_whenever_one_looks(start_node: StartNode) -> None:
    node = start_node()
    looked = 0
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(lambda: [node.store(list(range(3, 103))) for _ in range(40)])
        while not sending.done() or node.get("/status")["items_stored"] < 4000:
            check_files(node.batch_files())
            looked += 1
        sending.result()
    assert looked > 1
    assert Counter(check_files(node.batch_files())) == Counter(dict.fromkeys(range(3, 103), 40))
    names = [path.name for path in (node.data / "batches").iterdir()]
    assert all(name.endswith(".jsonl") for name in names)


def test_a_slow_drain_holds_items_in_the_spool_and_goes_on_after_a_restart(start_node: StartNode) -> None:
    node = start_node("[batches]\nper_second = 8\n")
    sent = list(range(3, 63))  # 12 batches: 1.5 seconds
    assert node.store(sent) == 60
    assert node.get("/status")["items_spooled"] > 40  # answered long before they are stored
    node.stop()
    stored = check_files(node.batch_files())
    assert stored == sent[: len(stored)]
    assert len(stored) < 60
    node.start()
    status = node.get("/status")
    assert status["items_stored"] + status["items_spooled"] <= 60
    node.wait_until_drained(60)
    assert check_files(node.batch_files()) == sent
    page = node.get("/batches", limit=100)
    made = [batch["created_at"] for batch in page["items"]][::-1]
    assert len(made) == 12
    assert page["spooled"] == 0
    assert all(earlier < later for earlier, later in pairwise(made))  # one at a time, not all at once


def test_the_rules_are_the_users_to_set(start_node: StartNode) -> None:
    node = start_node('[batches]\nitems_per_batch = 2\nnever_together = [["hot", "cold", "warm"], [7, 8]]\n')
    sent = ["hot", "cold", "warm", "warm", "warm", 7, 8, 1, 2, 8, "hot"]
    node.store(sent)
    node.wait_until_drained(len(sent))
    batches = [[json.loads(line) for line in file.read_text().splitlines()] for file in node.batch_files()]
    assert [item for batch in batches for item in batch] == sent
    assert batches == [["hot"], ["cold"], ["warm", "warm"], ["warm", 7], [8, 1], [2, 8], ["hot"]]


def test_the_batches_are_listed_newest_first_and_in_pages(start_node: StartNode) -> None:
    node = start_node("[batches]\nitems_per_batch = 1\n")
    node.store(list(range(7)))
    node.wait_until_drained(7)
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = node.get("/batches", limit=3, **cursor)
        found += [batch["items"] for batch in page["items"]]
        if page["next"] is None:
            break
        cursor = {"before": page["next"]}
    assert found == [[6], [5], [4], [3], [2], [1], [0]]


NO_LISTS = {
    "an object": b'{"a": 1}',
    "a number": b"1",
    "a text": b'"[1]"',
    "null": b"null",
    "nothing": b"",
    "half a list": b"[1, 2",
    "two lists": b"[1][2]",
    "NaN": b"[NaN]",
    "infinity": b"[Infinity]",
    "a number that is too large": b"[1e999]",
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects nested 100,000 deep": b'[{"a":' * 50_000,
    "invalid UTF-8": b'["\xff"]',
    "half a surrogate pair": b'["\\ud800"]',
    "an item that is too long": b'[1, "' + b"x" * 65_536 + b'"]',
    "a NUL": b"[1]\0",
    "single quotes": b"['a']",
    "a trailing comma": b"[1,]",
}


@pytest.mark.parametrize("body", NO_LISTS.values(), ids=NO_LISTS.keys())
def test_what_is_no_list_of_items_is_refused_and_none_of_it_stored(node: NodeProcess, body: bytes) -> None:
    refused = node.metric("trunkline_bad_input_total", kind="http_422")
    before = node.get("/status")
    response = node.http.post("/api/v1/items", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "next"}
    assert len(problem["detail"]) < 500
    after = node.get("/status")
    assert after["items_stored"] + after["items_spooled"] == before["items_stored"] + before["items_spooled"] == 0
    assert node.metric("trunkline_bad_input_total", kind="http_422") == refused + 1


@pytest.mark.parametrize(
    "line", ["STORE", "STORE ", "STORE {}", "STORE [1", "STORE [NaN]", "STORE 1,2", "STORE " + "[" * 900]
)
def test_a_line_that_stores_no_list_is_refused_and_its_connection_stays(node: NodeProcess, line: str) -> None:
    device = node.connect("storer")
    refused = node.metric("trunkline_bad_input_total", kind="bad_items")
    device.send(line)
    answer = device.read_line()
    assert answer.startswith("ERR ")
    assert len(answer) < 1024
    assert node.metric("trunkline_bad_input_total", kind="bad_items") == refused + 1
    device.check_round_trip()


def test_an_empty_list_is_stored_as_nothing(node: NodeProcess) -> None:
    assert node.store([]) == 0
    assert node.batch_files() == []


def test_a_full_spool_refuses_more_and_takes_it_when_it_has_room(start_node: StartNode) -> None:
    node = start_node("[batches]\nspool_limit = 20\nper_second = 4\n")
    assert node.store(list(range(3, 23))) == 20
    response = node.http.post("/api/v1/items", json=list(range(15)))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    device = node.connect("d1")
    device.send("STORE " + json.dumps(list(range(20))))
    assert device.read_line().startswith("ERR ")
    wait_for(lambda: node.get("/status")["items_spooled"] <= 15, "there is room again")
    assert node.store([1, 2, 3, 4, 5]) == 5
    node.wait_until_drained(25)
    assert check_files(node.batch_files()) == [*range(3, 23), 1, 2, 3, 4, 5]


def test_a_sink_that_fails_is_tried_again_until_it_works(start_node: StartNode) -> None:
    node = start_node()
    folder = node.data / "batches"
    folder.rename(node.data / "elsewhere")
    assert node.store([1, 2, 3]) == 3  # on disk all the same
    wait_for(lambda: node.metric("trunkline_sink_failures_total") >= 1, "the failure is counted")
    assert "batches not stored" in node.log()
    (node.data / "elsewhere").rename(folder)
    node.wait_until_drained(3)
    assert check_files(node.batch_files()) == [1, 2, 3]
    node.kill()  # the log of this node has errors in it, as it should


def test_leftovers_of_a_death_in_the_middle_of_a_file_are_cleared_away(start_node: StartNode) -> None:
    node = start_node()
    node.store([1])
    node.wait_until_drained(1)
    node.kill()
    (node.data / "batches" / "01HALF.jsonl.partial").write_text("[hal")
    node.start()
    assert [path.name for path in (node.data / "batches").iterdir()] == [file.name for file in node.batch_files()]
    assert check_files(node.batch_files()) == [1]


def test_items_that_were_answered_for_survive_the_death_of_the_node(start_node: StartNode) -> None:
    node = start_node()
    device = node.connect("d1")
    sent: list[int] = []
    for number in range(3, 63, 2):
        node.store([number])
        device.send(f"STORE [{number + 1}]")
        assert device.read_line() == "STORED 1"
        sent += [number, number + 1]
    node.kill()
    node.start()
    node.wait_until_drained(len(sent))
    assert check_files(node.batch_files()) == sent
    assert node.get("/status")["items_stored"] == len(sent)
