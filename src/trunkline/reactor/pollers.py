"""Event loops by the name of what they wait with."""

import asyncio
import selectors

from trunkline.errors import UsageError

__all__ = ["POLLERS", "new_event_loop"]

_SELECTORS = {"epoll": "EpollSelector", "kqueue": "KqueueSelector", "poll": "PollSelector", "select": "SelectSelector"}

POLLERS = ("auto", "uvloop", *_SELECTORS)
"""The names that `new_event_loop` takes. Not every platform has every one."""


def new_event_loop(poller: str = "auto") -> asyncio.AbstractEventLoop:
    """A new event loop.

    Args:
        poller: ``auto`` for uvloop where it is installed, else the platform's best; or one of `POLLERS`.

    Raises:
        UsageError: there is no such poller here; the text says which there are.
    """
    if poller in ("auto", "uvloop"):
        try:
            import uvloop  # noqa: PLC0415  it has no build for every platform, and the rest runs without

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        except ImportError:
            if poller == "auto":
                return asyncio.new_event_loop()
        else:
            return loop
    selector = getattr(selectors, _SELECTORS.get(poller, ""), None)
    if selector is None:
        raise UsageError(f'poller = "{poller}": there is none here; there are {", ".join(_available())}')
    return asyncio.SelectorEventLoop(selector())


def _available() -> list[str]:
    found = [name for name, selector in _SELECTORS.items() if hasattr(selectors, selector)]
    try:
        import uvloop  # noqa: F401, PLC0415
    except ImportError:
        return ["auto", *found]
    return ["auto", "uvloop", *found]
