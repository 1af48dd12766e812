"""Listening sockets: TCP and Unix."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from trunkline.errors import SettingsError, UsageError

__all__ = ["bind", "bind_resolved", "bind_tcp", "bind_unix", "resolve"]

_BACKLOG = 1024
_PORT_TRIES = 20


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
    return bind_resolved(_resolved(host or None, port), port, reuse_port=reuse_port, backlog=backlog)


def bind_resolved(
    found: list[Any], port: int, *, reuse_port: bool = False, backlog: int = _BACKLOG
) -> list[socket.socket]:
    """As `bind_tcp`, of addresses that `resolve` has found."""
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("reuse_port: this platform has no SO_REUSEPORT; run one process, or give each its own port")
    for _ in range(_PORT_TRIES - 1):
        try:
            return _bound(found, port, reuse_port, backlog)
        except OSError as error:
            # A port that is free on one address may be in use on the next.
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bound(found, port, reuse_port, backlog)


def _bound(found: list[Any], port: int, reuse_port: bool, backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in found:
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


async def resolve(host: str, port: int) -> list[Any]:
    """The addresses to bind to, for `bind_resolved`. A name is looked up in another thread: it may take seconds.

    Args:
        host: an address or a name; empty for all addresses of both families.
        port: the port; 0 for a free one.

    Raises:
        OSError: the host is unknown.
    """
    try:
        return _resolved(host or None, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return list(dict.fromkeys(found))


def _resolved(host: str | None, port: int, flags: int = 0) -> list[Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | flags)
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
