"""Whether a call may be made again: pure rules."""

from trunkline.errors import CallLost, Overloaded

__all__ = ["RetryBudget", "may_retry"]


def may_retry(error: Exception, idempotent: bool) -> bool:
    """Whether a call that has failed so may be made again without being run twice where that matters.

    Args:
        error: how it has failed.
        idempotent: whether it does no harm to run it twice.
    """
    if isinstance(error, Overloaded):
        return True  # nothing was accepted
    return isinstance(error, CallLost) and (idempotent or error.sent == "no")


class RetryBudget:
    """How many calls may be made again: a part of all calls, and a few besides.

    A server that fails is not helped by three times as many calls. Each call earns a part of a further try, each
    further try costs one; what is saved is bounded. Source: the retry budgets of Twitter's Finagle.

    Args:
        part: further tries for each call.
        reserve: further tries that are there at the start, and may be saved at the most.
    """

    __slots__ = ("_left", "part", "reserve")

    def __init__(self, part: float = 0.1, reserve: float = 10.0) -> None:
        self.part = part
        self.reserve = reserve
        self._left = reserve

    def earn(self) -> None:
        """One call was made."""
        self._left = min(self.reserve, self._left + self.part)

    def spend(self) -> bool:
        """Takes one further try; returns whether there was one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
