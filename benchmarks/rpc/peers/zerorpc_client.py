"""zerorpc's client: a greenlet for each call that is under way."""

import time

import gevent
import zerorpc
from load import WARM_UP, asked, check, payload, report, wait_for_start


def calls_of(worker, client, until):
    calls = 0
    while time.perf_counter() < until:
        sent = payload(worker, calls)
        check(sent, client.echo(sent))
        calls += 1
    return calls


def run(clients, seconds):
    began = time.perf_counter()
    workers = [gevent.spawn(calls_of, number, client, began + seconds) for number, client in enumerate(clients)]
    gevent.joinall(workers, raise_error=True)
    return sum(worker.value for worker in workers), time.perf_counter() - began


def main():
    load = asked()
    connections = []
    for _ in range(load.connections):
        connections.append(zerorpc.Client(timeout=60, heartbeat=30))
        connections[-1].connect(f"tcp://127.0.0.1:{load.port}")
    clients = [client for client in connections for _ in range(load.in_flight)]
    run(clients, WARM_UP)
    wait_for_start()
    report(*run(clients, load.seconds))


main()
