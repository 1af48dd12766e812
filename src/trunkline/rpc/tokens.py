"""Who may connect, and as what: tokens, and the roles that each stands for."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from trunkline.errors import UsageError
from trunkline.wire import Hello

__all__ = ["Tokens"]


class Tokens:
    """The tokens that a server takes. They are compared in constant time, and kept as hashes alone.

    Args:
        roles: what each token's owner may do, by token.

    Raises:
        UsageError: a token is empty.
    """

    def __init__(self, roles: Mapping[str, Iterable[str]]) -> None:
        if "" in roles:
            raise UsageError("a token is empty; a peer without one would have it")
        self._roles = [(_hash(token), frozenset(named)) for token, named in roles.items()]

    def roles_of(self, hello: Hello) -> frozenset[str] | None:
        """What a peer may do, by its hello; None if it has no token of these."""
        if not isinstance(hello.auth, str):
            return None
        given, found = _hash(hello.auth), None
        for known, roles in self._roles:  # all of them, so that the time does not tell which it was
            if hmac.compare_digest(known, given):
                found = roles
        return found

    def judge(self, hello: Hello) -> str | None:
        """For a session's ``authorize``: None to let the peer in, else why not."""
        return None if self.roles_of(hello) is not None else "the token is missing or wrong"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
