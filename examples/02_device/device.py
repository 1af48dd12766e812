"""A device on a plain socket: it says who it is, stores a reading, answers commands, and beats while all is quiet.

usage: python device.py [ID] [HOST:PORT]
"""

import json
import socket
import sys

BEAT_INTERVAL = 30.0  # seconds; the node closes a line that is silent for 90
PAGES = 3


def reply_to(cmd: str) -> str:
    """One line for each command, whatever it is: the node waits for it."""
    word, _, number = cmd.partition(" ")
    if cmd == "read all":
        return "voltage=230.1 energy=4711"
    if cmd == "PAGES":
        return str(PAGES)
    if word == "PAGE" and number in {"1", "2", "3"}:
        return json.dumps({f"reading {number}-{row}": 100 * int(number) + row for row in range(1, 5)})
    return f"unknown command: {cmd}"


def main(device_id: str = "d1", address: str = "127.0.0.1:7400") -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as line:
        line.settimeout(BEAT_INTERVAL)
        reading = json.dumps([{"device": device_id, "energy": 4711}])
        line.sendall(f"HELLO {device_id}\nSTORE {reading}\n".encode())
        rest = b""
        while True:
            try:
                data = line.recv(4096)
            except TimeoutError:
                line.sendall(b"PING\n")
                continue
            if not data:
                return
            # What arrives is a stream: it may hold half a line, or several.
            *lines, rest = (rest + data).split(b"\n")
            for text in (one.decode() for one in lines):
                print(text, flush=True)
                if text != "PONG" and not text.startswith(("STORED ", "ERR ", "BYE ")):
                    line.sendall(reply_to(text).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
