"""Nodes for the end-to-end tests, and their logs wherever a test fails."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess

_NODES = pytest.StashKey[list[NodeProcess]]()
_LOG_SHOWN = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        nodes = list(item.stash.get(_NODES, []))
        nodes += [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, NodeProcess)]
        for node in nodes:
            report.sections.append((f"log of the node in {node.folder}", node.log()[-_LOG_SHOWN:]))
    return report


@pytest.fixture
def start_node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes of the test's own: ``start_node(settings, NAME="value")``."""
    nodes = request.node.stash.setdefault(_NODES, [])

    def start(settings: str = "", folder: Path | None = None, **environment: Any) -> NodeProcess:
        node = NodeProcess(folder or tmp_path, settings, **environment)
        nodes.append(node)
        return node.start()

    yield start
    for node in nodes:
        node.close()


@pytest.fixture
def node_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., NodeProcess]]:
    """A node that is not started: for those that must not come up."""
    nodes = request.node.stash.setdefault(_NODES, [])

    def make(settings: str = "", **environment: Any) -> NodeProcess:
        node = NodeProcess(tmp_path, settings, **environment)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with all its defaults, for all tests of a module: each takes devices and records of its own."""
    shared = NodeProcess(tmp_path_factory.mktemp("node"))
    shared.start()
    yield shared
    shared.close()
