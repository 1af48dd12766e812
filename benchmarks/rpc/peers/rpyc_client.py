"""RPyC's client: a plain call where one is under way, else its asynchronous calls, the oldest waited for first."""

import time
from collections import deque

import rpyc
from load import WARM_UP, asked, check, payload, report, wait_for_start


def plain(echo, seconds):
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        sent = payload(0, calls)
        check(sent, echo(sent))
        calls += 1
    return calls, time.perf_counter() - began


def asynchronous(echoes, seconds):
    began, calls, number = time.perf_counter(), 0, 0
    under_way = deque()
    for worker, echo in enumerate(echoes):
        sent = payload(worker, number)
        under_way.append((echo, sent, echo(sent)))
    while under_way:
        echo, sent, result = under_way.popleft()
        check(sent, result.value)
        calls += 1
        if time.perf_counter() - began < seconds:
            number += 1
            sent = payload(0, number)
            under_way.append((echo, sent, echo(sent)))
    return calls, time.perf_counter() - began


def main():
    load = asked()
    roots = [rpyc.connect("127.0.0.1", load.port).root for _ in range(load.connections)]
    if load.connections == load.in_flight == 1:
        run, what = plain, roots[0].echo
    else:
        run, what = asynchronous, [rpyc.async_(root.echo) for root in roots for _ in range(load.in_flight)]
    run(what, WARM_UP)
    wait_for_start()
    report(*run(what, load.seconds))


main()
