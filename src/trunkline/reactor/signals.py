"""Running until the process is told to stop: by Ctrl-C, or by the SIGTERM of whoever started it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from trunkline.errors import WrongThread
from trunkline.reactor.pollers import new_event_loop

__all__ = ["STOP_SIGNALS", "run_until_signal"]

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What tells a process to stop."""


def run_until_signal(
    main: Callable[[], Coroutine[Any, Any, T]],
    poller: str = "auto",
    *,
    signals: Sequence[signal.Signals] = STOP_SIGNALS,
    force: bool = True,
) -> T | None:
    """Runs `main` to its end in the calling thread, or until a signal says stop. The process's main thread, on Unix.

    A signal cancels `main`: wherever it waits, its ``finally`` and ``async with`` blocks then close what it has
    opened, and have the time that they take. So a server drains, and a client says goodbye, by one and the same way,
    and from the first moment on.

    Args:
        main: a coroutine function without arguments.
        poller: what the loop waits with: see `new_event_loop`.
        signals: which ones say stop.
        force: whether a second one ends the process at once, even if the loop stands still; else it is ignored.

    Returns:
        What `main` returns; None where it was stopped.

    Raises:
        UsageError: the platform has no such poller.
        WrongThread: the caller is not in the main thread, to which alone signals come.
    """
    if threading.current_thread() is not threading.main_thread():
        raise WrongThread("signals come to the main thread alone; in another one, use ReactorThread and its stop()")
    before = {number: signal.getsignal(number) for number in signals}
    try:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(poller)) as runner:
            return runner.run(_until_told(main, signals, force))
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


async def _until_told(
    main: Callable[[], Coroutine[Any, Any, T]], signals: Sequence[signal.Signals], force: bool
) -> T | None:
    loop = asyncio.get_running_loop()
    task: asyncio.Task[object] | None = asyncio.current_task()
    assert task is not None  # a coroutine runs in one
    told = False

    def stop() -> None:
        nonlocal told
        if told:
            return
        told = True
        if force:  # else this stays: there must be no moment in which a second signal would end the process
            for number in signals:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
        task.cancel()
        # The request has been delivered then. While it counts, early releases of Python 3.11 take a timeout that passes
        # inside a `finally` for this cancellation, and end the `finally` with it.
        loop.call_soon(task.uncancel)

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        return await main()
    except asyncio.CancelledError:
        if not told:
            raise
        return None
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
