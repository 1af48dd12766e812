"""One connected device: does what its `Delivery` decides."""

import asyncio
import logging

from trunkline.bus import Bus
from trunkline.clock import Clock
from trunkline.db import Writer
from trunkline.errors import Unavailable, UsageError
from trunkline.gateway.command_store import LOAD_LIMIT, LateReply, Standing, late_replies, load_commands, record_states
from trunkline.gateway.commands import publish_outcome
from trunkline.gateway.delivery import Action, Delivery, End, GiveUp, Late, Unsolicited, WriteOut
from trunkline.gateway.ledger import Command, CommandState
from trunkline.gateway.profiles import LineProfile
from trunkline.logs import event
from trunkline.reactor import Reactor
from trunkline.stats import Stats
from trunkline.tcp import TcpConnection

__all__ = ["OUT_OF_STEP", "STORAGE_FAILED", "DeviceLine", "Lines"]

OUT_OF_STEP = "out_of_step"
"""Why a line is closed whose replies can't be told apart any more. See `trunkline.gateway.delivery`."""

STORAGE_FAILED = "storage_failed"
"""Why a line is closed of which something could not be recorded: a fresh one begins from what the ledger says."""

RESYNC_TIMEOUT = 10.0
_RELOAD_BELOW = 8
_log = logging.getLogger(__name__)


class Lines:
    """What all lines of a gateway share."""

    def __init__(
        self, reactor: Reactor, writer: Writer, bus: Bus, clock: Clock, stats: Stats, profile: LineProfile
    ) -> None:
        self.reactor = reactor
        self.writer = writer
        self.bus = bus
        self.clock = clock
        self.stats = stats
        self.profile = profile


class DeviceLine:
    """The line that one device holds. Reactor's thread.

    Attributes:
        device: the device's id.
        epoch: the fencing number of this connection; None until it is registered.
    """

    __slots__ = (
        "_delivery", "_ended_meanwhile", "_in_database", "_loading", "_passed_over", "_shared", "_timer", "connection",
        "device", "epoch",
    )  # fmt: skip

    def __init__(self, shared: Lines, device: str, connection: TcpConnection) -> None:
        self.device = device
        self.connection = connection
        self.epoch: int | None = None
        self._shared = shared
        self._delivery: Delivery | None = None
        self._in_database = False  # whether more commands wait there than are known here
        self._loading = False
        self._passed_over = False  # whether a command was left there since the last load began
        self._ended_meanwhile: set[str] = set()  # what a load that is under way may still have read as open
        self._timer: asyncio.TimerHandle | None = None

    def open(self, epoch: int, commands: list[Command]) -> None:
        """The device is registered: its commands can go out."""
        self.epoch = epoch
        self._delivery = Delivery(RESYNC_TIMEOUT)
        self._loaded(commands, more=len(commands) >= LOAD_LIMIT)

    def detach(self) -> None:
        """This connection serves its device no longer. What is unfinished stays in the ledger, for the next one."""
        self._delivery = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def offer(self, command: Command) -> None:
        """A new command is in the ledger."""
        delivery = self._delivery
        if delivery is None:
            return
        if self._in_database or len(delivery) >= LOAD_LIMIT:
            self._in_database = self._passed_over = True  # it has to wait for those before it anyway
        else:
            self._act(delivery.offer([(command, self._deadline(command))], self._shared.reactor.now()))

    def load(self) -> None:
        """Looks into the ledger for what this line does not know of."""
        if self._delivery is not None and not self._loading:
            self._loading, self._passed_over = True, False
            self._shared.reactor.spawn(self._load(), f"load commands of {self.device}")

    async def _load(self) -> None:
        try:
            commands = await self._shared.writer.submit(load_commands, self.device)
            # Rows that were read before their outcome was recorded: offered again, they would be written again.
            ended = self._ended_meanwhile
            fresh = [command for command in commands if command.id not in ended]
        finally:
            self._loading = False
            self._ended_meanwhile = set()
        # A command that was passed over meanwhile may have come too late to be read.
        self._loaded(fresh, more=self._passed_over or len(commands) >= LOAD_LIMIT)

    def _loaded(self, commands: list[Command], *, more: bool) -> None:
        if self._delivery is not None:
            self._in_database = more
            offered = [(command, self._deadline(command)) for command in commands]
            self._act(self._delivery.offer(offered, self._shared.reactor.now()))

    def said(self, text: str) -> None:
        """The device said something that may be a reply."""
        if self._delivery is not None:
            self._act(self._delivery.said(text, self._shared.reactor.now()))
        else:
            self._unsolicited()

    def _deadline(self, command: Command) -> float:
        """The moment of its expiry on the reactor's clock, which nobody can set."""
        return self._shared.reactor.now() + command.expires_at - self._shared.clock.time()

    def _tick(self) -> None:
        self._timer = None
        if self._delivery is not None:
            self._act(self._delivery.tick(self._shared.reactor.now()))

    def _act(self, actions: list[Action]) -> None:
        try:
            self._carry_out(actions)
        except Unavailable as error:
            # What became of a command can't be recorded. The ledger has it as open still, and the next line gets it.
            self._give_up(STORAGE_FAILED, error)

    def _give_up(self, reason: str, error: BaseException) -> None:
        event(_log, logging.ERROR, "line given up", device=self.device, reason=reason, error=error)
        self.detach()
        if self.connection.is_open:
            self.connection.send(f"BYE {reason}".encode())
            self.connection.close(reason)

    def _carry_out(self, actions: list[Action]) -> None:
        waiting = list(reversed(actions))
        while waiting:
            match waiting.pop():
                case WriteOut(command):
                    # What follows from a refused write comes before the rest.
                    waiting += reversed(self._write(command))
                case End(command, state, reply, reason):
                    command.become(state, self._shared.clock.time(), reply=reply, reason=reason)
                    if self._loading:
                        self._ended_meanwhile.add(command.id)
                    self._record_outcome(command)
                case Late(command, reply):
                    event(_log, logging.INFO, "late reply", device=self.device, command=command.id)
                    self._shared.writer.post(late_replies, LateReply(command.id, reply))
                case Unsolicited():
                    self._unsolicited()
                case GiveUp():
                    if self.connection.is_open:
                        self.connection.send(f"BYE {OUT_OF_STEP}".encode())
                    self.connection.close(OUT_OF_STEP)
        self._set_timer()

    def _write(self, command: Command) -> list[Action]:
        shared = self._shared
        try:
            line = shared.profile.encode(command.cmd)
        except UsageError as error:
            return self._delivery.refuse(str(error), shared.reactor.now()) if self._delivery is not None else []
        if not self.connection.is_open:
            self.detach()  # it is closing: what is unfinished stays in the ledger, for the next connection
            return []
        # Handed to the writer first: should it be full, nothing is written to the device either.
        command.become(CommandState.WRITTEN, shared.clock.time())
        shared.writer.post(record_states, Standing.of(command))
        self.connection.send(line)
        shared.stats.commands_written.inc()
        return []

    def _record_outcome(self, command: Command) -> None:
        shared = self._shared
        committed = shared.writer.submit(record_states, Standing.of(command))

        def tell(done: "asyncio.Future[None]") -> None:
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                self._give_up(STORAGE_FAILED, error)
                return
            publish_outcome(command, shared.bus, shared.stats)

        committed.add_done_callback(tell)

    def _unsolicited(self) -> None:
        self._shared.stats.unsolicited_lines.inc()

    def _set_timer(self) -> None:
        delivery = self._delivery
        if delivery is None:
            return
        if self._in_database and len(delivery) < _RELOAD_BELOW:
            self.load()
        due = delivery.next_deadline()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # it comes early enough; it sets itself anew then
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._shared.reactor.loop.call_at(due, self._tick)
