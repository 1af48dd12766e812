"""RPyC's server as its manual starts it: a thread for each connection."""

import rpyc
from load import serving
from rpyc.utils.server import ThreadedServer


class Echo(rpyc.Service):
    def exposed_echo(self, data):
        return data


server = ThreadedServer(Echo, hostname="127.0.0.1", port=0, backlog=1024)
serving(server.port)
server.start()
