"""The conformance check of framers."""

import random
from collections.abc import Callable, Sequence

from trunkline.wire import Framer

__all__ = ["check_framer"]


def check_framer(
    new_framer: Callable[[], Framer],
    messages: Sequence[bytes],
    *,
    bad_streams: Sequence[bytes] = (),
    seed: int = 0,
    rounds: int = 50,
) -> None:
    """Proves that a framer gives the same messages and the same error however its stream is split.

    Args:
        new_framer: makes a fresh one.
        messages: messages that it can frame.
        bad_streams: streams that break its protocol, perhaps after some good messages.
        seed: of the random splits.
        rounds: random splits to try for each stream, besides whole and byte by byte.

    Raises:
        AssertionError: it does not; the text says for which split.
    """
    stream = b"".join(new_framer().encode(message) for message in messages)
    _check_splits(new_framer, stream, list(messages), failing=False, seed=seed, rounds=rounds)
    for bad in bad_streams:
        framer = new_framer()
        expected = framer.receive(bad)
        assert framer.error is not None, f"no error for {bad[:80]!r}"
        assert framer.receive(stream) == [], "a framer goes on after its error"
        _check_splits(new_framer, bad, expected, failing=True, seed=seed, rounds=rounds)


def _check_splits(
    new_framer: Callable[[], Framer], stream: bytes, expected: list[bytes], *, failing: bool, seed: int, rounds: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    splits = [[], list(range(1, len(stream)))]
    splits += [
        sorted(chance.sample(range(len(stream) + 1), k=chance.randint(0, min(10, len(stream))))) for _ in range(rounds)
    ]
    for cuts in splits:
        framer = new_framer()
        got: list[bytes] = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            got += framer.receive(stream[start:end])
        assert got == expected, f"cut at {cuts}: {got!r} instead of {expected!r}"
        assert (framer.error is not None) == failing, f"cut at {cuts}: the error is {framer.error!r}"
