"""The half of a peer that is called."""

import logging
import traceback
from time import perf_counter_ns
from typing import Any, cast

from trunkline.errors import BadFrame, CallLost, DeadlineExceeded, Overloaded, RpcError
from trunkline.ids import IdMaker
from trunkline.rpc import failures
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.calling import Calling
from trunkline.rpc.calls import NEVER, CallTable
from trunkline.rpc.context import CallContext
from trunkline.rpc.messages import Call, Item, Notify, encode
from trunkline.rpc.runner import Run
from trunkline.rpc.service import Method
from trunkline.rpc.streams import Credits, IncomingItems, Tally
from trunkline.tcp import TcpConnection

__all__ = ["Serving"]

_TEXT_LIMIT = 2_000
_log = logging.getLogger(__name__)
_new_id = IdMaker()


class Serving(Calling):
    """Calls in."""

    __slots__ = ("_methods", "_served", "roles", "runs", "tally")

    def __init__(
        self,
        blueprint: RpcBlueprint,
        connection: TcpConnection,
        connected: bool,
        roles: frozenset[str] | None = None,
    ) -> None:
        super().__init__(blueprint, connection, connected)
        self.roles = roles
        self.runs: set[Run] = set()
        self.tally = Tally()
        self._methods = blueprint.methods
        # One more than may be run: a function that wants its context is held while it runs.
        self._served: CallTable[Run] = CallTable(not connected, blueprint.limits.connection_limit + 1)

    # How a call begins.

    def called(self, call: Call) -> None:
        """The package's: the peer calls."""
        self._served.note(call.id)
        method = self._methods.get(call.method)
        if method is None or not method.is_plain or call.credit or self._blueprint.goes_away:
            self._called_slowly(call, method)
            return
        # The common case: a function that is run here and now. No task, no future, no timer.
        started_at = perf_counter_ns()
        try:
            arguments = method.arguments(call.args)
        except (ValueError, RecursionError) as error:
            self._refuse(call.id, failures.USAGE, f"{call.method}: {error}", method)
            return
        try:
            data = encode((2, call.id, method.function(*arguments)))
        except Exception as error:
            self._say_failed(call.id, method, error)
        else:
            if len(data) > self._message_limit:
                self._too_long(call.id, method, len(data))
            else:
                self._say_now(data)
        method.figures.add(perf_counter_ns() - started_at)

    def _called_slowly(self, call: Call, method: Method | None) -> None:
        if self._blueprint.goes_away:
            self._refuse(call.id, failures.GOAWAY, "this side is stopping and takes no more calls")
        elif method is None:
            self._refuse(call.id, failures.NOT_FOUND, f"there is no method {call.method[:200]!r}")
        elif method.roles and self.roles is not None and not method.roles & self.roles:
            text = f"{method.name} is for {' or '.join(sorted(method.roles))}"
            self._refuse(call.id, failures.FORBIDDEN, text, method)
        elif (method.kind == "stream") != (call.credit > 0):
            what = "its result is a stream: call it as one" if method.kind == "stream" else "its result is no stream"
            self._refuse(call.id, failures.USAGE, f"{method.name}: {what}", method)
        else:
            self._begin_run(call, method)

    def _begin_run(self, call: Call, method: Method) -> None:
        deadline = self.reactor.now() + call.timeout_ms / 1000 if call.timeout_ms else NEVER
        context = CallContext(cast(Any, self), method.name, deadline, call.meta)
        try:
            run = self._new_run(call.id, method, context, call.args)
        except (ValueError, RecursionError) as error:
            self._refuse(call.id, failures.USAGE, f"{method.name}: {error}", method)
            return
        if method.kind == "function":
            self._run_now(run)
            return
        if call.credit:
            run.credits = Credits(self.reactor.loop, call.credit)
        try:
            self._blueprint.runner.admit(run)
        except Overloaded as error:
            self._refuse(call.id, failures.OVERLOADED, str(error), method)
            return
        self._served.hold(call.id, run, deadline)  # for which there is room: a call that is held is a run
        if deadline != NEVER and not self._watched:
            self._watched = True
            self._blueprint.ticker.watch(self)
        if run.items is not None:
            self._say(encode((8, call.id, self._blueprint.limits.stream_window)))

    def _new_run(self, call_id: int, method: Method, context: CallContext, raw: Any) -> Run:
        arguments = method.arguments(raw)
        if method.takes_context:
            arguments = (context, *arguments)
        items: IncomingItems | None = None
        if method.takes_stream:

            def grant(count: int) -> None:
                if call_id in self._served:
                    self._say(encode((8, call_id, count)))

            window = self._blueprint.limits.stream_window
            items = IncomingItems(self._loop, window, method.decode_item, grant, self.tally)
            arguments = (*arguments, items)
        run = Run(cast(Any, self), call_id, method, arguments, context, len(raw))
        run.items = items
        return run

    def _run_now(self, run: Run) -> None:
        """Runs a function that wants its context, or has roles."""
        if run.call_id:
            self._served.hold(run.call_id, run)
        try:
            result = run.method.function(*run.arguments)
        except Exception as error:
            self.failed(run, error)
        else:
            self.returned(run, result)

    def notified(self, message: Notify) -> None:
        """The package's: the peer wants a method to be run, and no reply."""
        method = self._methods.get(message.method)
        if method is None or self._blueprint.goes_away:
            return
        if method.roles and self.roles is not None and not method.roles & self.roles:
            method.figures.errors[failures.FORBIDDEN] += 1
            return
        context = CallContext(cast(Any, self), method.name, NEVER, message.meta)
        try:
            run = self._new_run(0, method, context, message.args)
            if run.items is not None:
                run.items.end()
            if method.kind == "function":
                self._run_now(run)
            else:
                self._blueprint.runner.admit(run)
        except (ValueError, RecursionError):
            method.figures.errors[failures.USAGE] += 1
        except Overloaded:
            method.figures.errors[failures.OVERLOADED] += 1

    # How it goes on.

    def cancelled(self, call_id: int) -> None:
        """The package's: the peer does not wait for a call any more."""
        run = self._served.take(call_id)
        if run is not None:
            run.method.figures.errors[failures.CANCELLED] += 1
            self._ended(run)
            run.stop()

    def argument_item(self, message: Item) -> None:
        """The package's: an item of an argument that is a stream has come."""
        run = self._served.get(message.id)
        if run is None:
            return
        if run.items is None or run.items.has_ended:
            raise BadFrame(f"call {message.id}: an item came, though its argument is no stream, or has ended")
        bound = self._blueprint.limits.connection_bytes
        try:
            if self.tally.held + len(message.item) > bound:
                self._break_off(run, failures.OVERLOADED, f"the calls of this connection hold {bound} bytes")
            else:
                run.items.put(message.item)
        except (ValueError, RecursionError) as error:
            self._break_off(run, failures.USAGE, f"{run.method.name}: {run.method.takes_stream}: {error}")

    def argument_ended(self, call_id: int) -> None:
        """The package's: the argument that is a stream has ended."""
        run = self._served.get(call_id)
        if run is not None and run.items is not None:
            run.items.end()

    def result_credit(self, call_id: int, count: int) -> None:
        """The package's: the caller takes more items of the result."""
        run = self._served.get(call_id)
        if run is not None and run.credits is not None:
            run.credits.add(count)

    async def send_item(self, run: Run, item: Any) -> None:
        """The package's: sends one item of a result that is a stream."""
        data = encode((6, run.call_id, item))
        if len(data) > self._message_limit:
            raise ValueError(f"an item of the stream has {len(data)} bytes; the caller takes {self._message_limit}")
        self._say(data)
        await self._drained()

    # How it ends: whatever takes it out of the table says so to the peer, and nothing else does.

    def returned(self, run: Run, result: Any) -> None:
        """The package's: a method has returned."""
        if run.call_id and self._served.take(run.call_id) is None:
            return
        if run.call_id:
            try:
                data = encode((2, run.call_id, None if run.method.kind == "stream" else result))
            except Exception as error:
                self._say_failed(run.call_id, run.method, error)
            else:
                if len(data) > self._message_limit:
                    self._too_long(run.call_id, run.method, len(data))
                else:
                    self._say(data)
        self._ended(run)

    def failed(self, run: Run, error: BaseException) -> None:
        """The package's: a method has raised."""
        if isinstance(error, DeadlineExceeded) and self.reactor.now() >= run.context.deadline:
            # That of a call which it has made: it had no more time than it has itself, and the clock comes to both.
            self._break_off(run, failures.DEADLINE, f"{run.method.name} took longer than its caller waits")
        elif not run.call_id or self._served.take(run.call_id) is not None:
            self._say_failed(run.call_id, run.method, error)
            self._ended(run)

    def broken_off(self, run: Run) -> None:
        """The package's: a method was cancelled, by its caller or by something on this side."""
        if run.call_id and self._served.take(run.call_id) is not None:
            self._refuse(run.call_id, failures.CANCELLED, f"{run.method.name} was broken off", run.method)
            self._ended(run)

    def _break_off(self, run: Run, code: str, text: str) -> None:
        if self._served.take(run.call_id) is not None:
            self._refuse(run.call_id, code, text, run.method)
            self._ended(run)
            run.stop()

    def _ended(self, run: Run) -> None:
        run.over = run.over or run.method.kind == "blocking"
        run.method.figures.add(perf_counter_ns() - run.started_at)
        if run.items is not None:
            run.items.end(CallLost("the call has ended", sent="yes"))

    def _refuse(self, call_id: int, code: str, text: str, method: Method | None = None) -> None:
        if method is not None:
            method.figures.errors[code] += 1
        self._say_now(encode((3, call_id, code, text[:_TEXT_LIMIT])))

    def _too_long(self, call_id: int, method: Method, size: int) -> None:
        text = f"{method.name}: its result has {size} bytes; the caller takes {self._message_limit}"
        self._refuse(call_id, failures.USAGE, text, method)

    def _say_failed(self, call_id: int, method: Method, error: BaseException) -> None:
        """Tells the caller of a declared error as it is; of any other, only under which id the log has it."""
        if isinstance(error, RpcError) and method.errors.get(error.code) is type(error):
            try:
                data = encode((3, call_id, error.code, str(error)[:_TEXT_LIMIT], error.data))
            except Exception as unfit:
                error = unfit
            else:
                if len(data) <= self._message_limit:
                    method.figures.errors[error.code] += 1
                    if call_id:
                        self._say_now(data)
                    return
        method.figures.errors[failures.INTERNAL] += 1
        found = _new_id()
        _log.error("method failed", exc_info=error, extra={"facts": {"method": method.name, "id": found}})
        text = f"{method.name} failed; the log of its side has the traceback under {found}"
        if self._blueprint.debug:
            text = "".join(traceback.format_exception(error))[-_TEXT_LIMIT:]
        if call_id:
            self._say_now(encode((3, call_id, failures.INTERNAL, text, found)))

    def _expire_runs(self, now: float) -> None:
        for call_id, run in self._served.expired(now):
            self._refuse(call_id, failures.DEADLINE, f"{run.method.name} took longer than its caller waits", run.method)
            self._ended(run)
            run.stop()

    def break_off_runs(self) -> None:
        """The package's: this side stops: breaks off what still runs, and says so to the peer."""
        for call_id, run in self._served.take_all():
            self._refuse(call_id, failures.CANCELLED, f"{run.method.name} was broken off: this side stops", run.method)
            self._ended(run)
        for run in list(self.runs):
            run.stop()

    def _lose_runs(self) -> None:
        for _, run in self._served.take_all():
            self._ended(run)
        for run in list(self.runs):
            run.stop()
