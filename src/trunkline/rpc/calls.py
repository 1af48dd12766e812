"""The calls that are under way on one connection: a pure table, to which the time is an argument."""

from typing import Generic, TypeVar

from trunkline.errors import BadFrame, Overloaded

__all__ = ["NEVER", "CallTable"]

T = TypeVar("T")

NEVER = float("inf")
"""The deadline of a call that has none."""


class CallTable(Generic[T]):
    """Holds something for each call of one side that is under way, until whatever ends the call first takes it out.

    Ids rise: so a reply that comes late, to a call that was given up, is told from one to a call never made.
    Deadlines cost nothing while they are kept: until the soonest of them, `expired` does not look at the calls.

    Args:
        odd: whether the ids of these calls are odd: those of the side that connected are.
        limit: how many calls may be under way.

    Attributes:
        soonest: no deadline of a call that is held is before this moment.
    """

    __slots__ = ("_calls", "_last", "_parity", "limit", "soonest")

    def __init__(self, odd: bool, limit: int) -> None:
        self._parity = 1 if odd else 0
        self._last = -1 if odd else 0
        self._calls: dict[int, tuple[float, T]] = {}
        self.soonest = NEVER
        self.limit = limit

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._calls

    def begin(self, entry: T, deadline: float = NEVER) -> int:
        """A call of this side begins; returns its id.

        Args:
            entry: what to hold.
            deadline: the moment at which it is over, on the clock of `expired`.

        Raises:
            Overloaded: as many calls are under way as may be.
        """
        if len(self._calls) >= self.limit:
            raise Overloaded(f"{self.limit} calls are under way on this connection; wait for one of them")
        self._last = call_id = self._last + 2
        self._calls[call_id] = (deadline, entry)
        if deadline < self.soonest:  # noqa: PLR1730  # a call of min takes three times as long
            self.soonest = deadline
        return call_id

    def note(self, call_id: int) -> None:
        """A call of the peer has come. Until it is held, nothing is kept of it but that it was made.

        Raises:
            BadFrame: the id is not one of the peer's, or not greater than that of its last call.
        """
        if call_id <= self._last or call_id & 1 != self._parity:
            raise BadFrame(f"call {call_id}: the next id must be greater than {self._last}, and {self._kind}")
        self._last = call_id

    @property
    def last(self) -> int:
        """The id of the last call; 0 or less if there was none."""
        return self._last

    @property
    def _kind(self) -> str:
        return "odd" if self._parity else "even"

    def hold(self, call_id: int, entry: T, deadline: float = NEVER) -> None:
        """A call of the peer that has come is under way from now on. Its id was `note`d.

        Raises:
            Overloaded: as many calls are under way as may be.
        """
        if len(self._calls) >= self.limit:
            raise Overloaded(f"{self.limit} calls are under way on this connection; wait for one of them")
        self._calls[call_id] = (deadline, entry)
        if deadline < self.soonest:  # noqa: PLR1730  # a call of min takes three times as long
            self.soonest = deadline

    def get(self, call_id: int) -> T | None:
        """What is held for a call that is under way; None for one that has ended.

        Raises:
            BadFrame: there was never such a call.
        """
        found = self._calls.get(call_id)
        if found is not None:
            return found[1]
        self._check_made(call_id)
        return None

    def take(self, call_id: int) -> T | None:
        """Ends a call; returns what was held for it, or None if it has ended already.

        Raises:
            BadFrame: there was never such a call.
        """
        found = self._calls.pop(call_id, None)
        if found is not None:
            return found[1]
        self._check_made(call_id)
        return None

    def owns(self, call_id: int) -> bool:
        """Whether a call of these could have this id."""
        return call_id & 1 == self._parity

    def _check_made(self, call_id: int) -> None:
        if not 0 < call_id <= self._last or call_id & 1 != self._parity:
            raise BadFrame(f"call {call_id} was never made")

    def expired(self, now: float) -> list[tuple[int, T]]:
        """Ends the calls whose deadline has come; returns their ids and what was held for them."""
        if not self._calls:
            self.soonest = NEVER
        if now < self.soonest:
            return []
        over = [(call_id, entry) for call_id, (deadline, entry) in self._calls.items() if deadline <= now]
        for call_id, _ in over:
            del self._calls[call_id]
        self.soonest = min((deadline for deadline, _ in self._calls.values()), default=NEVER)
        return over

    def take_after(self, last: int) -> list[T]:
        """Ends the calls whose ids are greater than this one; returns what was held for them."""
        return [self._calls.pop(call_id)[1] for call_id in list(self._calls) if call_id > last]

    def take_all(self) -> list[tuple[int, T]]:
        """Ends all calls: the connection is gone."""
        calls, self._calls = self._calls, {}
        self.soonest = NEVER
        return [(call_id, entry) for call_id, (_, entry) in calls.items()]
