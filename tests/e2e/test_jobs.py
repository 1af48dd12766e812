"""Sync jobs: handlers of the user's own, their log and progress live, and their outcome."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, read_events, wait_for

StartNode = Callable[..., NodeProcess]
HANDLERS = Path(__file__).parent / "sync_handlers.py"
SETTINGS = 'modules = ["sync_handlers"]\n'
PAGES = {
    "PAGES": "3",
    "PAGE 1": '{"voltage": 230.1, "site": "roof"}',
    "PAGE 2": '{"energy": 12345678, "phases": [1, 2, 3]}',
    "PAGE 3": '{"alarm": null, "voltage": 229.9}',
}
ENTRIES = {"alarm": None, "energy": 12345678, "phases": [1, 2, 3], "site": "roof", "voltage": 229.9}

Event = tuple[int, str, dict[str, Any]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(HANDLERS, folder)
    node = NodeProcess(folder, SETTINGS).start()
    yield node
    node.close()


def follow(node: NodeProcess, job_id: str, last_event_id: int | None = None, most: int | None = None) -> list[Event]:
    """A job's events, up to the end of the stream or of patience."""
    events: list[Event] = []
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    with node.http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for event in read_events(response):
            events.append(event)
            if most is not None and len(events) == most:
                break
    return events


def test_a_coroutine_reads_a_device_page_by_page(node: NodeProcess) -> None:
    device = node.answering("meter-1", PAGES.__getitem__)
    started = node.sync("meter", "meter-1")
    assert started["joined"] is False
    assert started["job"]["state"] == "queued"
    assert (started["job"]["type"], started["job"]["record"]) == ("meter", "meter-1")

    job = node.ended_job(started["job"]["id"])
    assert job["state"] == "succeeded"
    assert (job["done"], job["total"], job["attempt"], job["error"]) == (3, 3, 1, None)
    assert job["created_at"] <= job["started_at"] <= job["ended_at"]
    assert device.commands == ["PAGES", "PAGE 1", "PAGE 2", "PAGE 3"]

    record = node.get("/records/meter/meter-1")
    assert record["synced_at"] == job["ended_at"]
    assert record["job"] == job
    assert {entry["key"]: entry["value"] for entry in record["entries"]} == ENTRIES

    events = follow(node, job["id"])
    assert [n for n, _, _ in events] == list(range(1, len(events) + 1))
    assert all(data["n"] == n for n, _, data in events)
    assert [data["state"] for _, kind, data in events if kind == "state"] == ["queued", "running", "succeeded"]
    assert [data["text"] for _, kind, data in events if kind == "log"] == [
        "meter-1 has 3 pages", "page 1: 2 readings", "page 2: 2 readings", "page 3: 2 readings",
    ]  # fmt: skip
    progress = [(data["done"], data["total"]) for _, kind, data in events if kind == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == (3, 3)


def test_a_plain_function_does_the_same_in_a_thread(node: NodeProcess) -> None:
    node.answering("meter-2", PAGES.__getitem__)
    job = node.ended_job(node.sync("blocking-meter", "meter-2")["job"]["id"])
    assert (job["state"], job["done"], job["total"]) == ("succeeded", 3, 3)
    entries = node.get("/records/blocking-meter/meter-2")["entries"]
    assert {entry["key"]: entry["value"] for entry in entries} == ENTRIES
    texts = [data["text"] for _, kind, data in follow(node, job["id"]) if kind == "log"]
    assert texts == [f"in thread job-{job['id']}"]


def test_a_second_request_joins_the_running_job(node: NodeProcess) -> None:
    first = node.sync("gated", "joined")
    second = node.sync("gated", "joined")
    assert (first["joined"], second["joined"]) == (False, True)
    assert second["job"]["id"] == first["job"]["id"]
    (node.folder / "open-joined").touch()
    assert node.ended_job(first["job"]["id"])["state"] == "succeeded"
    third = node.sync("gated", "joined")
    assert third["joined"] is False
    assert third["job"]["id"] != first["job"]["id"]
    assert node.ended_job(third["job"]["id"])["state"] == "succeeded"


def test_records_sync_beside_each_other(node: NodeProcess) -> None:
    jobs = [node.sync("gated", f"beside-{number}")["job"]["id"] for number in range(5)]
    assert len(set(jobs)) == 5
    wait_for(lambda: {node.get(f"/jobs/{job}")["state"] for job in jobs} == {"running"}, "all of them run at once")
    for number in range(5):
        (node.folder / f"open-beside-{number}").touch()
    assert {node.ended_job(job)["state"] for job in jobs} == {"succeeded"}


def test_no_more_jobs_run_at_once_than_the_setting_allows(start_node: StartNode, tmp_path: Path) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node(SETTINGS + "[jobs]\nconcurrency = 2\n")
    jobs = [node.sync("gated", str(number))["job"]["id"] for number in range(4)]
    wait_for(lambda: node.get("/status")["jobs_running"] == 2, "two jobs run")
    assert [node.get(f"/jobs/{job}")["state"] for job in jobs] == ["running", "running", "queued", "queued"]
    for number in range(4):
        (tmp_path / f"open-{number}").touch()
    assert {node.ended_job(job)["state"] for job in jobs} == {"succeeded"}


def test_a_follower_sees_the_log_while_the_job_runs(node: NodeProcess) -> None:
    job = node.sync("gated", "live")["job"]["id"]
    with node.http.stream("GET", f"/api/v1/jobs/{job}/events") as response:
        events = read_events(response)
        seen = [next(events) for _ in range(3)]
        assert [kind for _, kind, _ in seen] == ["state", "state", "log"]
        assert seen[-1][2]["text"] == "attempt 1 waits"
        assert node.get(f"/jobs/{job}")["state"] == "running"
        (node.folder / "open-live").touch()
        rest = list(events)
    assert [data.get("text", data.get("state")) for _, _, data in rest] == ["the gate is open", "succeeded"]


def test_followers_from_every_number_see_all_that_follows_and_nothing_twice(node: NodeProcess) -> None:
    job = node.sync("chatty", "300")["job"]["id"]
    # Some while it runs, some after its end.
    live = follow(node, job)
    numbers = [n for n, _, _ in live]
    assert numbers == list(range(1, len(live) + 1))
    assert [data["text"] for _, kind, data in live if kind == "log"] == [f"line {number}" for number in range(300)]
    for cursor in (0, 1, 2, 17, 150, len(live) - 1):
        assert follow(node, job, cursor) == live[cursor:]


def test_a_follower_that_is_cut_off_goes_on_where_it_was(node: NodeProcess) -> None:
    job = node.sync("chatty", "2000")["job"]["id"]
    events: list[Event] = []
    while not events or events[-1][2].get("state") != "succeeded":
        events += follow(node, job, events[-1][0] if events else None, most=171)
    assert [n for n, _, _ in events] == list(range(1, len(events) + 1))
    texts = [data["text"] for _, kind, data in events if kind == "log"]
    assert texts == [f"line {number}" for number in range(2000)]


def test_after_the_end_there_is_nothing_to_come_back_for(node: NodeProcess) -> None:
    job = node.sync("chatty", "3")["job"]["id"]
    last = follow(node, job)[-1]
    assert last[2]["state"] == "succeeded"
    refused = node.metric("trunkline_bad_input_total", kind="http_204")
    response = node.http.get(f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": str(last[0])})
    assert response.status_code == 204
    assert response.content == b""
    assert "content-type" not in response.headers
    assert node.metric("trunkline_bad_input_total", kind="http_204") == refused == 0
    assert node.http.get("/healthz").status_code == 200  # the connection is still in step


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "9" * 16])
def test_a_cursor_that_is_no_number_is_refused(node: NodeProcess, cursor: str) -> None:
    job = node.sync("chatty", "1")["job"]["id"]
    response = node.http.get(f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": cursor})
    assert response.status_code == 422
    assert "Last-Event-ID" in response.json()["detail"]


@pytest.mark.parametrize(
    ("record_type", "error"),
    [
        ("failing", "ValueError: the meter is upside down"),
        ("blocking-failing", "KeyError: 'serial'"),
        ("exiting", "RuntimeError: the handler raised SystemExit"),
        ("blocking-exiting", "RuntimeError: the handler raised SystemExit"),
        ("cancelled", "RuntimeError: the handler raised CancelledError"),
        ("no-utf8", "FileNotFoundError: caf\\udce9"),
    ],
)
def test_a_handler_that_fails_makes_its_own_job_fail_and_nothing_else(
    node: NodeProcess, record_type: str, error: str
) -> None:
    bystander = node.sync("gated", f"beside-{record_type}")["job"]["id"]
    job = node.ended_job(node.sync(record_type, "r1")["job"]["id"])
    assert job["state"] == "failed"
    assert job["error"] == error
    assert job["attempt"] == 1
    events = follow(node, job["id"])
    assert [n for n, _, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1:] == ("state", events[-1][2])
    assert (events[-1][2]["state"], events[-1][2]["error"]) == ("failed", error)
    logged = [(data["level"], data["text"]) for _, kind, data in events if kind == "log"]
    assert logged[-1] == ("error", error)
    assert node.get(f"/records/{record_type}/r1")["synced_at"] is None
    (node.folder / f"open-beside-{record_type}").touch()
    assert node.ended_job(bystander)["state"] == "succeeded"


def test_what_a_failing_job_has_saved_stays(node: NodeProcess) -> None:
    job = node.ended_job(node.sync("no-json", "r1")["job"]["id"])
    assert job["state"] == "failed"
    assert "bad" in job["error"]
    assert [entry["key"] for entry in node.get("/records/no-json/r1")["entries"]] == ["good"]


def test_a_device_that_does_not_answer_makes_the_job_fail(node: NodeProcess) -> None:
    job = node.ended_job(node.sync("meter", "never-seen")["job"]["id"])
    assert job["state"] == "failed"
    assert '"never-seen"' in job["error"]


def test_a_type_without_handler_is_refused_and_those_that_have_one_are_named(node: NodeProcess) -> None:
    response = node.http.post("/api/v1/records/boat/r1/sync")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert '"boat"' in response.json()["detail"]
    assert "meter" in response.json()["detail"]
    assert node.http.get("/api/v1/records/boat/r1").status_code == 404


@pytest.mark.parametrize("record", ["with%20space", "x" * 129, "nul%00"])
def test_a_record_id_that_can_be_none_is_refused(node: NodeProcess, record: str) -> None:
    assert node.http.post(f"/api/v1/records/meter/{record}/sync").status_code == 422
    assert node.http.put(f"/api/v1/records/meter/{record}", json={"title": "x"}).status_code == 422


def test_an_unknown_job_is_not_found(node: NodeProcess) -> None:
    for path in ("/api/v1/jobs/nothing", "/api/v1/jobs/nothing/events"):
        response = node.http.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


def test_a_record_has_a_title_and_the_lists_come_in_pages(start_node: StartNode, tmp_path: Path) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node(SETTINGS)
    for number in range(5):
        put = node.http.put(f"/api/v1/records/chatty/{number}", json={"title": f"<b>Nr. {number}</b>"})
        assert put.status_code == 200
        assert put.json()["title"] == f"<b>Nr. {number}</b>"
        assert put.json()["job"] is None
    jobs = [node.sync("chatty", str(number))["job"]["id"] for number in range(5)]
    for job in jobs:
        assert node.ended_job(job)["state"] == "succeeded"

    def pages(path: str, cursor: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = node.get(path, limit=2, **after)
            assert page["total"] == 5
            assert len(page["items"]) <= 2
            found += page["items"]
            if page["next"] is None:
                return found
            after = {cursor: page["next"]}

    assert [(record["id"], record["title"]) for record in pages("/records", "after")] == [
        (str(number), f"<b>Nr. {number}</b>") for number in range(5)
    ]
    assert [job["id"] for job in pages("/jobs", "before")] == jobs[::-1]


def test_a_stopping_node_lets_its_followers_go_and_the_job_runs_again_after(
    start_node: StartNode, tmp_path: Path
) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node(SETTINGS)
    job = node.sync("gated", "r1")["job"]["id"]
    with node.http.stream("GET", f"/api/v1/jobs/{job}/events") as response:
        events = read_events(response)
        seen = [next(events) for _ in range(3)]
        node.stop()
        seen += list(events)  # the stream comes to a clean end
    assert seen[-1][2].get("state") != "succeeded"
    (tmp_path / "open-r1").touch()
    node.start()
    ended = node.ended_job(job)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    rest = follow(node, job, seen[-1][0])
    numbers = [n for n, _, _ in seen + rest]
    assert numbers == list(range(1, len(numbers) + 1))
    states = [data["state"] for _, kind, data in seen + rest if kind == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]
    texts = [data["text"] for _, kind, data in seen + rest if kind == "log"]
    assert texts == [
        "attempt 1 waits", "the node is stopping; the job will run again", "attempt 2 waits", "the gate is open",
    ]  # fmt: skip


def test_a_module_that_can_not_be_imported_is_named_at_the_start(node_folder: StartNode, tmp_path: Path) -> None:
    (tmp_path / "broken_handlers.py").write_text("import nothing_of_that_name\n")
    node = node_folder('modules = ["broken_handlers"]\n')
    node.spawn()
    assert node.wait(30) == 2
    (line,) = node.log().splitlines()
    assert "broken_handlers" in line
    assert "nothing_of_that_name" in line


def test_what_a_device_says_arrives_in_the_record_as_it_is(node: NodeProcess) -> None:
    hostile = "<script>alert(1)</script> \U0001f600 \u2028 end"
    node.answering("hostile-1", {"PAGES": "1", "PAGE 1": json.dumps({hostile: hostile}, ensure_ascii=True)}.get)
    assert node.ended_job(node.sync("meter", "hostile-1")["job"]["id"])["state"] == "succeeded"
    (entry,) = node.get("/records/meter/hostile-1")["entries"]
    assert (entry["key"], entry["value"]) == (hostile, hostile)
