"""The methods that every server has, under a prefix that nobody else may use."""

from typing import TYPE_CHECKING, Any

from trunkline.rpc.service import RESERVED_PREFIX, Method

if TYPE_CHECKING:
    from trunkline.rpc.server import RpcServer

__all__ = ["client_methods", "server_methods"]


def client_methods(methods: dict[str, Method]) -> dict[str, Method]:
    """A client's methods, with those that are built in.

    Args:
        methods: the user's.
    """

    def ping() -> str:
        """A sign of life."""
        return "pong"

    def describe() -> list[dict[str, Any]]:
        """Every method: its name, its document, its arguments with their types, its result, its errors."""
        return [method.describe() for method in every.values()]

    every = {**methods, **_named(ping, describe)}
    return every


def server_methods(server: "RpcServer", methods: dict[str, Method], roles: tuple[str, ...]) -> dict[str, Method]:
    """A server's methods, with those that are built in.

    Args:
        server: what they tell of.
        methods: the user's.
        roles: who may see what goes on; empty for everybody.
    """

    def health() -> str:
        """``serving``, or ``draining`` when no new calls are taken."""
        return server.health

    def stats() -> dict[str, Any]:
        """What is counted: the server's figures, and each method's."""
        return server.stats()

    def connections() -> list[dict[str, Any]]:
        """Every connection: its peer, its age in seconds, its counts."""
        return server.describe_connections()

    return client_methods(methods | _named(health)) | _named(stats, connections, roles=roles)


def _named(*functions: Any, roles: tuple[str, ...] = ()) -> dict[str, Method]:
    made = [Method(RESERVED_PREFIX + one.__name__, one, idempotent=True, roles=roles) for one in functions]
    return {method.name: method for method in made}
