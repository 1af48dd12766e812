"""Listening sockets, and the loop that accepts their connections."""

import contextlib
import errno
import logging
import math
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.errors import SettingsError, UsageError
from trunkline.logs import event
from trunkline.reactor import Reactor, Timer

__all__ = ["Acceptor", "bind", "bind_tcp", "bind_unix"]

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_PORT_TRIES = 20
_SHED_PER_SECOND = 640  # peers dropped at the descriptor limit: enough to clear a full backlog in two seconds
_RETRY_DELAY = 1.0  # seconds
_LOG_INTERVAL = 10.0  # seconds

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# What has become of one connection that waited; the next may be good. Source: accept(2), "Error handling".
_PEER_GONE = {
    errno.ECONNABORTED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EPERM,
    errno.EPROTO, errno.ETIMEDOUT,
}  # fmt: skip


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket of a host's first address, so that a port in use is known before anything else is started.

    Args:
        host: the address or name to bind to.
        port: the port; 0 for a free one.
        setting: the group of settings that they came from, to name in errors.

    Raises:
        SettingsError: the port is in use or not allowed, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = _resolved(host, port)[0]
    except socket.gaierror as error:
        raise SettingsError(f'{setting}.host = "{host}": {error.strerror}; the default is "127.0.0.1"') from None
    sock = socket.socket(family, kind, protocol)
    try:
        _listen(sock, address, _BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = (
                f"the port is in use on {host}; stop what uses it (ss -ltnp 'sport = :{port}' shows it) or set another"
            )
        elif error.errno == errno.EACCES:
            text = "this user may not bind the port; set one above 1023"
        elif error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f'{setting}.host = "{host}": no address of this machine; try "127.0.0.1"') from None
        else:
            text = str(error)
        raise SettingsError(f"{setting}.port = {port}: {text}") from None
    return sock


def bind_tcp(host: str, port: int, *, reuse_port: bool = False, backlog: int = _BACKLOG) -> list[socket.socket]:
    """Listening sockets, one for each address of a host that this machine has, all with the same port.

    A socket of an IPv6 address takes IPv6 alone, so that ``::`` and ``0.0.0.0`` can be had side by side.

    Args:
        host: an address or a name; empty for all addresses of both families.
        port: the port; 0 for a free one.
        reuse_port: whether other processes that ask for it too may listen on the port. The system shares the
            connections out among them; what waits at one that stops listening is lost.
        backlog: connections that may wait to be accepted.

    Raises:
        OSError: the host is unknown or none of this machine's, or the port is in use or not allowed.
        UsageError: this platform can't share a port.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("reuse_port: this platform has no SO_REUSEPORT; run one process, or give each its own port")
    for _ in range(_PORT_TRIES - 1):
        try:
            return _bound(host, port, reuse_port, backlog)
        except OSError as error:
            # A port that is free on one address may be in use on the next.
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bound(host, port, reuse_port, backlog)


def _bound(host: str, port: int, reuse_port: bool, backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in _resolved(host or None, port):
            try:
                sock = opened.enter_context(socket.socket(family, kind, protocol))
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                _listen(sock, (address[0], port, *address[2:]), backlog)
            except OSError as error:
                # A name may stand for addresses of a family that this machine does not have.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]
        if sockets or missing is None:
            opened.pop_all()
            return sockets
    raise missing


def _resolved(host: str | None, port: int) -> list[Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))


def _listen(sock: socket.socket, address: Any, backlog: int, mode: int | None = None) -> None:
    """Binds and listens; closes the socket if that fails."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        if mode is not None:
            Path(address).chmod(mode)  # before it listens: until then nobody can connect
        # At once: two that bind a port of the same number both succeed, and the second one's listen fails.
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise


def bind_unix(path: str | os.PathLike[str], mode: int = 0o600, *, backlog: int = _BACKLOG) -> socket.socket:
    """A listening Unix socket. A file that nobody listens on any more is replaced; `Acceptor.close` removes it.

    Args:
        path: the file.
        mode: who may connect: the file's permission bits.
        backlog: connections that may wait to be accepted.

    Raises:
        OSError: somebody listens on it (``EADDRINUSE``), it is no socket (``EEXIST``), or it can't be made.
        UsageError: this platform has no Unix sockets, or the path holds a NUL.
    """
    name = os.fspath(path)
    if not hasattr(socket, "AF_UNIX") or "\0" in name:
        raise UsageError(f"{name!r}: it holds a NUL, or this platform has no Unix sockets; use a TCP port on 127.0.0.1")
    _remove_stale(name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _listen(sock, name, backlog, mode)
    return sock


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "it is no socket; remove it or name another path", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full
    raise OSError(errno.EADDRINUSE, "another process listens on it; stop it or name another path", path)


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
