"""zerorpc's server: ZeroMQ, and a greenlet for each call."""

import zerorpc
import zmq
from load import serving


class Echo:
    def echo(self, data):
        return data


server = zerorpc.Server(Echo())
server.bind("tcp://127.0.0.1:0")
endpoint = server._events._socket.getsockopt(zmq.LAST_ENDPOINT)  # it has no public name for the port that it got
serving(int(endpoint.decode().rstrip("\0").rsplit(":", 1)[1]))
server.run()
