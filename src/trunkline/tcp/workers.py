"""Worker processes that share a port: started, watched, started again, and ended in good order."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from trunkline.errors import UsageError
from trunkline.logs import event
from trunkline.reactor.signals import STOP_SIGNALS, run_until_signal
from trunkline.tcp.backoff import FullJitter

__all__ = ["hold_port", "run_workers"]

_log = logging.getLogger(__name__)
_SIGNALS = {signal.SIGCHLD, *STOP_SIGNALS}
_LONGEST_WAIT = 60.0  # seconds, where there is nothing to do


@contextlib.contextmanager
def hold_port(host: str, port: int) -> Iterator[int]:
    """Keeps a port for workers that listen with ``reuse_port``, and does not listen on it itself. Any thread.

    So the port is known, and one that is in use is noticed, before a worker is started; and it stays theirs while
    they are started again. Of a host with several addresses, the first is meant.

    Args:
        host: an address or name; empty for every address of this machine.
        port: the port; 0 for a free one.

    Yields:
        The port.

    Raises:
        OSError: the port is in use or not allowed, or the host is none of this machine's.
        UsageError: this platform can't share a port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("this platform has no SO_REUSEPORT; run one process, or give each its own port")
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        yield sock.getsockname()[1]


def run_workers(
    main: Callable[[int], Coroutine[Any, Any, object]],
    count: int,
    *,
    stop_timeout: float = 15.0,
    new_backoff: Callable[[], FullJitter] = FullJitter,
    poller: str = "auto",
) -> int:
    """Runs `main` in several processes until SIGINT or SIGTERM. The main thread of a program without a loop, on Unix.

    Each worker runs ``main(number)`` as `run_until_signal` does: to be stopped, it is cancelled, and drains in its
    ``finally``. One that ends before it is told to, for whatever reason, is started again after a full-jitter
    back-off. Workers whose parent has died, be it by ``kill -9``, end in good order by themselves: they hold one end
    of a pipe that only the parent could write to.

    Workers are forks: so `main` may be any function, with all that it refers to, and nothing is pickled or imported
    again. A fork copies neither threads nor what they were about to do, so it is made where there are none: start
    threads, loops and connections to databases inside `main`.

    Args:
        main: a coroutine function, called with the worker's number, from 0.
        count: how many workers.
        stop_timeout: seconds in which workers have to end once they are told to; then they are killed.
        new_backoff: makes what says how long to wait before a worker is started again, one for each.
        poller: what the workers' loops wait with: see `new_event_loop`.

    Returns:
        The exit code for the process: 0 if every worker ended in good order, else 1.

    Raises:
        UsageError: the count is less than 1, other threads or a loop run, or the platform has no fork and no
            ``sigtimedwait``.
    """
    _check(count)
    supervisor = _Supervisor(main, [_Worker(number, new_backoff()) for number in range(count)], poller)
    try:
        supervisor.watch()
        return supervisor.stop(stop_timeout)
    finally:
        supervisor.close()


def _check(count: int) -> None:
    if count < 1:
        raise UsageError(f"count = {count}: it must be 1 or more")
    if not (hasattr(os, "fork") and hasattr(signal, "sigtimedwait")):
        raise UsageError("worker processes need fork and sigtimedwait, which this platform lacks; run one process")
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("an event loop runs already; start workers before it, and run loops inside of them")
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        raise UsageError(f"other threads run already ({names}); start them in the workers")


class _Worker:
    """One place among the workers, and the process that fills it."""

    def __init__(self, number: int, backoff: FullJitter) -> None:
        self.number = number
        self.backoff = backoff
        self.pid: int | None = None
        self.exit_code = 0  # of the last process; the negative number of the signal that ended it
        self.starts_at = 0.0
        self.started_at = 0.0


class _Supervisor:
    """Starts workers, and hears of their ends and of its own by signals, which are blocked but while it waits."""

    def __init__(self, main: Callable[[int], Coroutine[Any, Any, object]], workers: list[_Worker], poller: str) -> None:
        self._main = main
        self._workers = workers
        self._poller = poller
        self._lifeline, self._held = os.pipe()
        self._sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, no end can be waited for
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def close(self) -> None:
        """Leaves the process as it was. Workers that are left, because this went wrong, end by themselves."""
        os.close(self._held)
        os.close(self._lifeline)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if self._sigchld is None else self._sigchld)

    def watch(self) -> None:
        """Keeps the workers up until it is told to stop."""
        while True:
            now = time.monotonic()
            for worker in self._workers:
                if worker.pid is None and worker.starts_at <= now:
                    self._start(worker)
            due = [worker.starts_at for worker in self._workers if worker.pid is None]
            if self._told_within(min(due, default=now + _LONGEST_WAIT) - now):
                return
            self._reap()

    def stop(self, timeout: float) -> int:
        """Has the workers end, and kills those that do not in time, or at once if told so again."""
        ends_at = time.monotonic() + timeout
        self._tell(signal.SIGTERM)
        self._reap()
        while any(worker.pid for worker in self._workers):
            rest = ends_at - time.monotonic()
            if rest <= 0 or self._told_within(rest):
                self._tell(signal.SIGKILL)
            self._reap()
        return int(any(worker.exit_code for worker in self._workers))

    def _told_within(self, seconds: float) -> bool:
        """Waits until a worker may have ended, or for so long; returns whether this process is told to stop."""
        info = signal.sigtimedwait(_SIGNALS, max(0.0, min(seconds, _LONGEST_WAIT)))
        return info is not None and info.si_signo != signal.SIGCHLD

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid is not None:  # and not yet waited for: the id is its own still
                os.kill(worker.pid, number)
                if number == signal.SIGKILL:
                    event(_log, logging.WARNING, "worker killed", worker=worker.number, pid=worker.pid)
                    self._ended(worker, os.waitpid(worker.pid, 0)[1])

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._ended(worker, status)

    def _ended(self, worker: _Worker, status: int) -> None:
        worker.exit_code = os.waitstatus_to_exitcode(status)
        level = logging.WARNING if worker.exit_code else logging.INFO
        event(_log, level, "worker ended", worker=worker.number, pid=worker.pid, exit_code=worker.exit_code)
        worker.pid = None
        self._put_off(worker)

    def _put_off(self, worker: _Worker) -> None:
        now = time.monotonic()
        if now - worker.started_at > worker.backoff.cap:
            worker.backoff.reset()
        worker.starts_at = now + worker.backoff.next_wait()

    def _start(self, worker: _Worker) -> None:
        worker.started_at = time.monotonic()
        sys.stdout.flush()  # what waits here would be written by both
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            event(_log, logging.ERROR, "no worker can be started", worker=worker.number, reason=error)
            worker.exit_code = 1
            self._put_off(worker)
            return
        if pid == 0:
            self._become(worker.number)
        worker.pid = pid
        event(_log, logging.INFO, "worker started", worker=worker.number, pid=pid)

    # In the worker.

    def _become(self, number: int) -> NoReturn:
        """Never comes back to what the parent was doing when it made this process."""
        exit_code = 1
        try:
            os.close(self._held)
            # Ctrl-C goes to all processes of a terminal. When a worker has to end, the parent says.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            run_until_signal(lambda: self._work(number), self._poller, signals=(signal.SIGTERM,), force=False)
            exit_code = 0
        except SystemExit as error:
            exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(exit_code)

    async def _work(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._lifeline, self._be_orphaned, loop)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # a SIGTERM that has come is heard only now
        try:
            await self._main(number)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it can do nothing but spoil the exit code

    def _be_orphaned(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._lifeline)
        event(_log, logging.WARNING, "the parent of this worker has died")
        os.kill(os.getpid(), signal.SIGTERM)
