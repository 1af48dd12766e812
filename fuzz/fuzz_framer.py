"""Looks for bytes that make a framer break a promise.

Run python fuzz/fuzz_framer.py NAME [libFuzzer's arguments]. NAME is one of `framers.TARGETS`. Fuzzing begins with the
files in corpus/NAME; what it finds besides goes into a folder that is deleted in the end. Bytes that break a promise
are written to crash-* in the working directory: `framers.check` with them repeats the find.

Needs Atheris: pip install atheris.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trunkline"]):
    import framers

CORPUS = Path(__file__).resolve().parent / "corpus"


def main() -> None:
    """Fuzzes until told to stop, by -max_total_time=SECONDS or Ctrl-C."""
    if len(sys.argv) < 2 or sys.argv[1] not in framers.TARGETS:
        sys.exit(f"usage: python fuzz/fuzz_framer.py {{{','.join(framers.TARGETS)}}} [-max_total_time=60] [...]")
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as found:
        arguments = [sys.argv[0], "-max_len=512", *sys.argv[2:], found, str(CORPUS / name)]
        atheris.Setup(arguments, lambda data: framers.check(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
