"""The log in a file: nothing is lost within the bounds, and nobody waits for the disk."""

import contextlib
import json
import logging
import logging.config
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import SettingsError
from trunkline.logs import JsonFormatter, KeyValueFormatter, RotatingLogHandler, event
from trunkline.logs.rotating_file import RotatingFile

WAIT = 20.0

Start = Callable[..., tuple[logging.Logger, RotatingLogHandler]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A logger of its own with a handler, which is closed in the end."""
    handlers: list[RotatingLogHandler] = []

    def start(path: Path | None = None, **options: object) -> tuple[logging.Logger, RotatingLogHandler]:
        handler = RotatingLogHandler(path or tmp_path / "node.log", **options)  # type: ignore[arg-type]
        handlers.append(handler)
        logger = logging.Logger("trunkline.test")
        logger.addHandler(handler)
        return logger, handler

    yield start
    for handler in handlers:
        handler.close(WAIT)


def lines_of(path: Path) -> list[str]:
    """All lines, the oldest first."""
    numbers = sorted((int(file.suffix[1:]) for file in path.parent.glob(path.name + ".*")), reverse=True)
    files = [path.with_name(f"{path.name}.{number}") for number in numbers] + [path]
    return [line for file in files for line in file.read_text().splitlines()]


def run(script: str, *arguments: object) -> str:
    """A Python process of its own; returns what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_logged_stands_in_the_file_line_by_line(start: Start, tmp_path: Path) -> None:
    logger, handler = start()
    for number in range(1000):
        logger.info("line %d", number)
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log") == [f"line {number}" for number in range(1000)]
    assert handler.dropped == 0
    assert (tmp_path / "node.log").stat().st_mode & 0o777 == 0o640
    logger.info("more")
    handler.close(WAIT)
    assert lines_of(tmp_path / "node.log")[-1] == "more"


def test_it_writes_with_the_nodes_own_formatters(start: Start, tmp_path: Path) -> None:
    for name, formatter in (("text.log", KeyValueFormatter()), ("json.log", JsonFormatter())):
        logger, handler = start(tmp_path / name)
        handler.setFormatter(formatter)
        event(logger, logging.WARNING, "device online", device="d\n1")
        handler.flush(WAIT)
    (text,) = lines_of(tmp_path / "text.log")
    assert text.endswith(r'WARNING test device online device="d\n1"')
    (line,) = lines_of(tmp_path / "json.log")
    assert json.loads(line)["device"] == "d\n1"


def test_a_line_shows_what_was_so_when_it_was_logged(start: Start, tmp_path: Path) -> None:
    logger, handler = start()
    handler.setFormatter(KeyValueFormatter())
    devices = ["d1"]
    logger.info("online: %s", devices, extra={"facts": {"devices": devices}})
    devices.append("d2")
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log")[0].endswith("online: ['d1'] devices=['d1']")


def test_text_that_is_no_unicode_is_written_all_the_same(start: Start, tmp_path: Path) -> None:
    logger, handler = start()
    logger.info("caf\u00e9 \ud800")
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log") == ["café \\ud800"]


def test_a_line_that_can_not_be_formatted_costs_only_itself(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler = start()
    logger.info("%d", "no number")
    logger.info("the next")
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log") == ["the next"]
    assert "Logging error" in capsys.readouterr().err


def test_many_threads_log_and_each_ones_order_is_kept(start: Start, tmp_path: Path) -> None:
    logger, handler = start(max_bytes=5_000, backups=20)

    def log(name: str) -> None:
        for number in range(500):
            logger.info("%s %d", name, number)

    threads = [threading.Thread(target=log, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    handler.flush(WAIT)
    lines = lines_of(tmp_path / "node.log")
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(500)]
    assert len(list(tmp_path.iterdir())) > 2


def test_a_destructor_may_log_while_a_line_is_logged(start: Start, tmp_path: Path) -> None:
    logger, handler = start()

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.getMessage() == "outer":
                with handler._lock:  # the innermost place at which it can happen
                    logger.info("inner")
            return super().format(record)

    handler.setFormatter(Formatter())
    logger.info("outer")
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log") == ["inner", "outer"]


def test_it_can_be_configured_as_any_handler_of_logging(tmp_path: Path) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "trunkline.logs.JsonFormatter"}},
            "handlers": {
                "file": {
                    "class": "trunkline.logs.RotatingLogHandler",
                    "formatter": "json",
                    "path": str(tmp_path / "node.log"),
                    "interval": 86_400,
                }
            },
            "loggers": {"trunkline.configured": {"handlers": ["file"], "level": "INFO", "propagate": False}},
        }
    )
    logger = logging.getLogger("trunkline.configured")
    (handler,) = logger.handlers
    try:
        logger.info("hello")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert json.loads(lines_of(tmp_path / "node.log")[0])["event"] == "hello"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_bytes": 0}, "max_bytes = 0, backups = 5, interval = None: they must be more than 0"),
        ({"backups": 0}, "backups = 0"),
        ({"interval": 0.0}, "interval = 0.0"),
    ],
)
def test_a_number_out_of_range_is_named(tmp_path: Path, options: dict[str, int], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        RotatingLogHandler(tmp_path / "node.log", **options)  # type: ignore[arg-type]


def test_a_file_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'the log file ".*/no/node\.log" can\'t be opened: No such file'):
        RotatingLogHandler(tmp_path / "no" / "node.log")
    with pytest.raises(SettingsError, match="Is a directory"):
        RotatingLogHandler(tmp_path)
    with pytest.raises(SettingsError, match="null"):
        RotatingLogHandler(tmp_path / "a\0b")


# Rotation.


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=30),
    st.integers(min_value=1, max_value=60),
    st.integers(min_value=1, max_value=10),
)
def test_rotated_files_hold_all_lines_in_order_and_none_is_over_its_size(
    lines: list[bytes], max_bytes: int, batch: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.log"
        file = RotatingFile(path, max_bytes, 100, None, lambda: 0.0)
        for start in range(0, len(lines), batch):
            waiting = deque(lines[start : start + batch])
            given = done = size = 0
            given = len(waiting)
            total = sum(map(len, waiting))
            while waiting:
                count, written = file.write(waiting)
                done, size = done + count, size + written
            assert (done, size) == (given, total)
        file.close()
        count = len(list(path.parent.iterdir()))
        files = [path.with_name(f"node.log.{number}") for number in range(count - 1, 0, -1)] + [path]
        contents = [each.read_bytes() for each in files]
        assert b"".join(contents) == b"".join(lines)
        for content in contents:
            assert len(content) <= max_bytes or content.count(b"\n") == 1
            assert content.endswith(b"\n") or not lines


def test_only_so_many_rotated_files_are_kept(start: Start, tmp_path: Path) -> None:
    logger, handler = start(max_bytes=10, backups=2)
    for number in range(6):
        logger.info("line %04d", number)
    handler.flush(WAIT)
    assert lines_of(tmp_path / "node.log") == ["line 0003", "line 0004", "line 0005"]
    assert len(list(tmp_path.iterdir())) == 3


def test_it_goes_on_with_the_file_that_another_run_has_left(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("old\n")
    logger, handler = start(max_bytes=12)
    logger.info("new")
    handler.flush(WAIT)
    assert path.read_text() == "old\nnew\n"
    logger.info("newer")
    handler.flush(WAIT)
    assert path.read_text() == "newer\n"
    assert path.with_name("node.log.1").read_text() == "old\nnew\n"


def test_each_day_has_a_file_of_its_own(tmp_path: Path) -> None:
    path, day, now = tmp_path / "node.log", 86_400.0, [100 * 86_400.0 - 1]

    def write(line: bytes) -> None:
        file = RotatingFile(path, 1_000, 5, day, lambda: now[0])
        file.write(deque([line]))
        os.utime(path, (now[0], now[0]))
        file.write(deque([b"and " + line]))
        os.utime(path, (now[0], now[0]))
        file.close()

    write(b"the first day\n")
    now[0] += 2
    write(b"the second day\n")
    now[0] += day / 2
    write(b"still the second\n")
    now[0] -= 10 * day  # somebody sets the clock
    write(b"still the same file\n")
    now[0] += 12 * day
    file = RotatingFile(path, 1_000, 5, day, lambda: now[0])
    file.write(deque([b"later\n"]))
    now[0] += day
    file.write(deque([b"the day after\n"]))
    file.close()
    assert path.read_text() == "the day after\n"
    assert path.with_name("node.log.1").read_text() == "later\n"
    assert path.with_name("node.log.2").read_text().splitlines() == [
        "the second day", "and the second day", "still the second", "and still the second",
        "still the same file", "and still the same file",
    ]  # fmt: skip
    assert path.with_name("node.log.3").read_text().splitlines() == ["the first day", "and the first day"]


def test_a_rotation_that_fails_pushes_no_file_over_the_end(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("full\n")
    path.with_name("node.log.1").write_text("the last\n")
    (tmp_path / "node.log.2" / "of somebody").mkdir(parents=True)
    file = RotatingFile(path, 5, 2, None, lambda: 0.0)
    waiting = deque([b"next\n"])
    for _ in range(5):
        with pytest.raises(OSError, match=r"node\.log\.2"):
            file.write(waiting)
    assert (path.read_text(), path.with_name("node.log.1").read_text()) == ("full\n", "the last\n")
    assert list(waiting) == [b"next\n"]
    (tmp_path / "node.log.2" / "of somebody").rmdir()
    (tmp_path / "node.log.2").rmdir()
    file.write(waiting)
    file.close()
    assert lines_of(path) == ["the last", "full", "next"]


def test_a_number_that_a_crash_has_left_out_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("full\n")
    path.with_name("node.log.2").write_text("older\n")
    file = RotatingFile(path, 5, 2, None, lambda: 0.0)
    file.write(deque([b"next\n"]))
    file.close()
    assert lines_of(path) == ["older", "full", "next"]


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced", "cut"])
def test_it_follows_when_somebody_else_takes_the_file_away(start: Start, tmp_path: Path, how: str) -> None:
    path = tmp_path / "node.log"
    logger, handler = start()
    logger.info("before")
    handler.flush(WAIT)
    if how == "moved":
        path.rename(tmp_path / "archived")
    elif how == "deleted":
        path.unlink()
    elif how == "replaced":
        (tmp_path / "new").touch()
        (tmp_path / "new").replace(path)
    else:
        path.write_bytes(b"")
    logger.info("after")
    handler.flush(WAIT)
    assert path.read_text() == "after\n"
    assert how != "moved" or (tmp_path / "archived").read_text() == "before\n"


# Trouble.


def test_a_full_disk_is_told_once_and_the_lines_come_when_there_is_room(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.log"
    path.symlink_to("/dev/full")
    logger, handler = start(waiting_limit_bytes=1_000)
    for number in range(100):
        logger.info("line %03d", number)
    said = ""
    while not said:
        handler.flush(0.01)
        said = capsys.readouterr().err
    kept = 1_000 // (9 + 64)
    assert handler.dropped == 100 - kept
    path.unlink()
    handler.flush(WAIT)
    handler.flush(WAIT)
    logger.info("it goes on")
    handler.flush(WAIT)
    assert lines_of(path) == [
        *(f"line {number:03d}" for number in range(kept)),
        f"{100 - kept} lines dropped",
        "it goes on",
    ]
    assert said + capsys.readouterr().err == (
        f"trunkline: the log file {path}: No space left on device; lines wait, and are dropped if it lasts\n"
    )


def test_a_folder_that_is_gone_is_the_same(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    logger, handler = start(folder / "node.log")
    (folder / "node.log").unlink()
    folder.rmdir()
    logger.info("kept")
    said = ""
    while not said:
        handler.flush(0.01)
        said = capsys.readouterr().err
    assert "No such file" in said
    folder.mkdir()
    handler.flush(WAIT)
    assert lines_of(folder / "node.log") == ["kept"]


def test_a_disk_that_fills_within_a_line_tears_none(tmp_path: Path) -> None:
    said = run(
        """
        import io, logging, os, resource, sys
        from trunkline.logs import RotatingLogHandler
        path = sys.argv[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_005, resource.RLIM_INFINITY))
        handler = RotatingLogHandler(path)
        logger = logging.Logger("x")
        logger.addHandler(handler)
        for number in range(200):
            logger.info("line %04d", number)
        sys.stderr = io.StringIO()
        while not sys.stderr.getvalue():
            handler.flush(0.01)
        assert os.path.getsize(path) == 1_005, "which is within a line"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        handler.flush(20)
        sys.__stderr__.write(sys.stderr.getvalue())
        """,
        tmp_path / "node.log",
    )
    assert lines_of(tmp_path / "node.log") == [f"line {number:04d}" for number in range(200)]
    assert said.count("File too large") == 1


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file whose writes wait until somebody reads from the descriptor: a disk that does not answer."""
    path = tmp_path / "node.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(reader, b"*" * 4_096)
    yield path, reader
    os.close(reader)


def read_until(reader: int, end: bytes) -> bytes:
    os.set_blocking(reader, True)
    data = b""
    while not data.endswith(end):
        data += os.read(reader, 1_000_000)
    return data.lstrip(b"*")


def test_whoever_logs_never_waits_for_a_disk_that_does_not_answer(start: Start, stuck: tuple[Path, int]) -> None:
    path, reader = stuck
    logger, handler = start(path, waiting_limit_bytes=200_000)
    for number in range(5_000):
        logger.info("line %06d %s", number, "x" * 100)
    kept = 200_000 // (113 + 64)
    assert handler.dropped == 5_000 - kept
    data = read_until(reader, b" lines dropped\n").decode().splitlines()
    assert [line[:11] for line in data[:-1]] == [f"line {number:06d}" for number in range(kept)]
    assert data[-1] == f"{handler.dropped:,} lines dropped"
    logger.info("it goes on")
    assert read_until(reader, b"\n") == b"it goes on\n"


def test_close_waits_no_longer_than_it_may(stuck: tuple[Path, int], capsys: pytest.CaptureFixture[str]) -> None:
    path, reader = stuck
    handler = RotatingLogHandler(path)
    logger = logging.Logger("trunkline.test")
    logger.addHandler(handler)
    for _ in range(1_000):
        logger.info("x" * 200)
    handler.close(0.1)
    said = capsys.readouterr().err
    assert said == f"trunkline: the log file {path}: 1,000 lines could not be written\n"
    logger.info("too late")
    assert handler.dropped == 1_001
    os.set_blocking(reader, True)
    writer = handler._writer
    assert writer is not None
    while writer.is_alive():
        os.read(reader, 1_000_000)  # a disk that answers after all lets the thread end
        writer.join(0.01)


def test_lines_that_are_longer_than_the_bound_are_counted_too(start: Start, tmp_path: Path) -> None:
    logger, handler = start(waiting_limit_bytes=1_000)
    logger.info("x" * 2_000)
    handler.flush(WAIT)
    assert handler.dropped == 1
    handler.close(WAIT)
    assert lines_of(tmp_path / "node.log") == ["1 lines dropped"]


def test_after_close_lines_are_counted_and_no_thread_comes_back(start: Start, tmp_path: Path) -> None:
    logger, handler = start()
    logger.info("in time")
    handler.close(WAIT)
    handler.close(WAIT)
    before = threading.active_count()
    logger.info("too late")
    handler.flush(WAIT)
    assert handler.dropped == 1
    assert threading.active_count() == before
    assert lines_of(tmp_path / "node.log") == ["in time"]


def test_where_no_thread_can_be_started_close_writes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    logger, handler = start()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        logger.info("kept")
        logger.info("kept too")
    handler.close(WAIT)
    assert lines_of(tmp_path / "node.log") == ["kept", "kept too"]


def test_pythons_end_writes_what_waits(tmp_path: Path) -> None:
    run(
        """
        import logging, sys
        from trunkline.logs import RotatingLogHandler
        logging.basicConfig(level="INFO", format="%(message)s", handlers=[RotatingLogHandler(sys.argv[1])])
        for number in range(1_000):
            logging.info("line %d", number)
        """,
        tmp_path / "node.log",
    )
    assert lines_of(tmp_path / "node.log") == [f"line {number}" for number in range(1_000)]


def test_after_a_fork_each_process_writes_its_own_lines_once(tmp_path: Path) -> None:
    run(
        """
        import logging, os, sys
        from trunkline.logs import RotatingLogHandler
        logging.basicConfig(level="INFO", format="%(message)s", handlers=[RotatingLogHandler(sys.argv[1])])
        logging.info("the parent's, before")
        child = os.fork()
        if child == 0:
            logging.info("the child's")
            logging.shutdown()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        logging.info("the parent's, after")
        """,
        tmp_path / "node.log",
    )
    assert sorted(lines_of(tmp_path / "node.log")) == ["the child's", "the parent's, after", "the parent's, before"]
