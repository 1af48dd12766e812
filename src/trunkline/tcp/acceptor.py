"""The loop that accepts the connections of a listening socket."""

import contextlib
import errno
import logging
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.logs import event
from trunkline.reactor import Reactor, Timer

__all__ = ["Acceptor"]

_log = logging.getLogger(__name__)

_SHED_PER_SECOND = 640  # peers dropped at the descriptor limit: enough to clear a full backlog in two seconds
_RETRY_DELAY = 1.0  # seconds
_LOG_INTERVAL = 10.0  # seconds

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# What has become of one connection that waited; the next may be good. Source: accept(2), "Error handling".
_PEER_GONE = {
    errno.ECONNABORTED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EPERM,
    errno.EPROTO, errno.ETIMEDOUT,
}  # fmt: skip


class Acceptor:
    """Accepts the connections of one listening socket, from its making until `close`. Reactor's thread.

    At the limit of descriptors it goes on in good order: with one that it has kept for this, it takes the peers that
    wait and drops them, at a bounded rate, so that they see a close and not a hang. Where not even this works (or for
    want of memory), it lets them wait and tries again each second.

    Args:
        reactor: whose loop watches the socket.
        sock: a listening socket, which the acceptor owns from now on.
        on_accepted: called with each accepted socket, which does not block and is its own from then on, and with the
            peer's address. If it raises, the socket is closed and the error reported.
        on_shed: called with the number of peers that were dropped just now.
        batch: connections to accept before all else has its turn.

    Attributes:
        address: the address that the socket is bound to; a path for a Unix socket.
        accepted: connections handed over so far.
        shed: peers dropped so far.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_accepted: Callable[[socket.socket, Any], object],
        on_shed: Callable[[int], object] = lambda _count: None,
        *,
        batch: int = 64,
    ) -> None:
        self.address: Any = sock.getsockname()
        self.accepted = self.shed = 0
        self._reactor = reactor
        self._socket = sock
        self._on_accepted = on_accepted
        self._on_shed = on_shed
        self._batch = batch
        self._file = _file(self.address)
        self._spare: int | None = None
        self._timer: Timer | None = None
        self._paused = True
        self._closed = False
        self._logged_at = -math.inf
        sock.setblocking(False)
        self.resume()

    def pause(self) -> None:
        """Accepts no more until `resume`; who connects waits in the backlog. Pausing twice does nothing."""
        self._reactor.check_thread()
        self._paused = True
        self._unwatch()

    def resume(self) -> None:
        """Accepts again after `pause`. Resuming twice, or after `close`, does nothing."""
        self._reactor.check_thread()
        if self._paused and not self._closed:
            self._paused = False
            self._watch()

    def close(self) -> None:
        """Accepts no more, closes the socket, and removes a Unix socket's file. Closing twice does nothing."""
        self.pause()
        if not self._closed:
            self._closed = True
            self._free_spare()
            if self._file is not None and _file(self.address) == self._file:
                Path(self.address).unlink(missing_ok=True)
            self._socket.close()

    def _watch(self) -> None:
        self._timer = None
        self._keep_spare()
        self._reactor.loop.add_reader(self._socket, self._accept_some)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed:
            self._reactor.loop.remove_reader(self._socket)

    def _accept_some(self) -> None:
        for _ in range(self._batch):
            if self._paused:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _PEER_GONE:
                    continue
                self._drop_some(error)
                return
            sock.setblocking(False)
            self.accepted += 1
            try:
                self._on_accepted(sock, address)
            except Exception as error:
                sock.close()
                self._reactor.report(error, getattr(self._on_accepted, "__qualname__", repr(self._on_accepted)))

    def _drop_some(self, error: OSError) -> None:
        """Drops who waits if only a descriptor is missing, and pauses in any case: an endless crowd costs little."""
        dropped = self._shed_waiting() if error.errno in _EXHAUSTED else None
        delay = _RETRY_DELAY if dropped is None else max(1, dropped) / _SHED_PER_SECOND
        self._unwatch()
        self._timer = self._reactor.call_later(delay, self._watch)
        if self._reactor.now() - self._logged_at > _LOG_INTERVAL:
            self._logged_at = self._reactor.now()
            mend = "raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else "see the error"
            event(_log, logging.ERROR, "can't accept connections", error=error.strerror, shed=self.shed, mend=mend)
        if dropped:
            self._reactor.run_guarded(self._on_shed, dropped)

    def _shed_waiting(self) -> int | None:
        """Accepts and drops the peers that wait, some at the most; returns how many, or None if that does not work."""
        if self._spare is None:
            return None
        self._free_spare()
        dropped = 0
        try:
            for _ in range(self._batch):
                self._socket.accept()[0].close()
                dropped += 1
        except BlockingIOError:
            pass
        except OSError as error:
            if not dropped and error.errno not in _PEER_GONE:
                return None
        finally:
            self.shed += dropped
            self._keep_spare()
        return dropped

    def _keep_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _free_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _file(address: Any) -> tuple[int, int] | None:
    """What tells a Unix socket's file from another one of the same name; None if there is none."""
    if isinstance(address, str) and address:
        with contextlib.suppress(OSError):
            found = os.lstat(address)
            return found.st_dev, found.st_ino
    return None
