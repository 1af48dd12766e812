"""What HTTP is closed to while no token exists, and what every answer carries."""

import socket
from typing import Any

import pytest
from node_process import NodeProcess

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def check_headers(response: Any) -> None:
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "access-control-allow-origin" not in response.headers


def check_refused(node: NodeProcess, headers: dict[str, str], named: str) -> None:
    """Neither reading nor writing is possible, and the answer says why."""
    refused = node.metric("trunkline_bad_input_total", kind="http_403")
    for method, path in (("GET", "/api/v1/status"), ("POST", "/api/v1/items"), ("GET", "/"), ("GET", "/metrics")):
        response = node.http.request(method, path, content=b"[1]" if method == "POST" else None, headers=headers)
        assert response.status_code == 403, (method, path)
        assert response.headers["content-type"] == "application/problem+json"
        assert named in response.json()["detail"]
        assert set(response.json()) == {"type", "title", "status", "detail", "next"}
        check_headers(response)
    assert node.metric("trunkline_bad_input_total", kind="http_403") == refused + 4
    assert node.get("/batches")["items"] == []
    assert node.get("/status")["items_spooled"] == 0


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7480", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5", "0.0.0.0",
     "127.0.0.1@evil.example", "[2001:db8::1]", "", "127.0.0.1:80@evil.example:80"],
)  # fmt: skip
def test_a_host_of_another_name_is_refused(node: NodeProcess, host: str) -> None:
    check_refused(node, {"Host": host}, "Host header")


def test_a_request_without_any_host_is_refused(node: NodeProcess) -> None:
    with socket.create_connection(tuple(node.url.removeprefix("http://").split(":")), 10) as raw:  # type: ignore[arg-type]
        raw.sendall(b"GET /api/v1/status HTTP/1.0\r\n\r\n")
        assert b" 403 " in raw.makefile("rb").readline()


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://127.0.0.1.evil.example",
     "file://", "x", ""],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(node: NodeProcess, origin: str) -> None:
    check_refused(node, {"Origin": origin}, "Origin header")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket"])
def test_what_another_sites_page_fetches_without_an_origin_is_refused(node: NodeProcess, site: str, mode: str) -> None:
    check_refused(node, {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}, "another site")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {},
    ],
)
def test_the_nodes_own_pages_and_programs_of_this_machine_get_in(node: NodeProcess, headers: dict[str, str]) -> None:
    response = node.http.get("/api/v1/status", headers={"Origin": node.url, **headers})
    assert response.status_code == 200
    check_headers(response)
    assert node.http.get("/api/v1/status", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST", "[::1]", "127.0.0.2"])
def test_the_names_of_this_machine_are_its_names(node: NodeProcess, name: str) -> None:
    host = f"{name}:{node.url.rpartition(':')[2]}"
    assert node.http.get("/api/v1/status", headers={"Host": host}).status_code == 200
    own_page = {"Host": host, "Origin": f"http://{host}"}
    assert node.http.get("/api/v1/status", headers=own_page).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/api/v1/openapi.json", 200),
        ("GET", "/api/v1/devices", 200),
        ("GET", "/api/v1/devices/nobody", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/console/nothing.js", 404),
        ("GET", "/console/../server.py", 404),
        ("GET", "/console/%2e%2e/server.py", 404),
        ("DELETE", "/api/v1/devices", 405),
        ("POST", "/api/v1/items", 422),
        ("GET", "/api/v1/devices?limit=0", 422),
        ("GET", "/api/v1/devices?limit=1001", 422),
        ("GET", "/docs", 404),
    ],
)
def test_every_answer_carries_the_security_headers(node: NodeProcess, method: str, path: str, status: int) -> None:
    response = node.http.request(method, path)
    assert response.status_code == status
    check_headers(response)
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert set(response.json()) == {"type", "title", "status", "detail", "next"}


@pytest.mark.parametrize("path", ["/api/v1/items", "/api/v1/devices/d1/commands"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with its length"])
def test_a_body_over_the_limit_is_refused(node: NodeProcess, path: str, chunked: bool) -> None:
    refused = node.metric("trunkline_bad_input_total", kind="http_413")
    body = b"[" + b" " * 1_048_576 + b"]"
    blocks = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    response = node.http.post(path, content=blocks if chunked else body, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert "1048576 bytes" in response.json()["detail"]
    assert set(response.json()) == {"type", "title", "status", "detail", "next"}
    check_headers(response)
    assert node.metric("trunkline_bad_input_total", kind="http_413") == refused + 1
    assert node.http.get("/healthz").status_code == 200


def test_a_body_of_just_the_limit_is_read(node: NodeProcess) -> None:
    body = b"[" + b" " * (1_048_576 - 2) + b"]"
    assert node.http.post("/api/v1/items", content=body).json() == {"stored": 0}


def test_the_api_says_that_it_is_open(node: NodeProcess) -> None:
    status = node.get("/status")
    assert status["open_access"] is True
    assert status["version"]
    assert status["started_at"].endswith("Z")
