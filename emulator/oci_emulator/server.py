"""The socket: a forward proxy that carries the cloud's hosts itself, and the control interface, on one port."""

import email.utils
import logging
import re
import socket
import ssl
import time
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from oci.regions import REGIONS

from . import control, prices
from .answer import Answer
from .api import Api
from .credentials import Authority
from .principal import InstancePrincipal

_ADDRESS_SERVICE = "checkip.amazonaws.com"  # says from which address one comes; asked by clients, not by us
_SOME_ADDRESS = b"198.51.100.7\n"  # from a range for documentation
_SERVICE = re.compile(r"(?:identity|iaas|auth|limits)\.([a-z0-9-]+)\.(?:oci\.)?oraclecloud\.com")


def is_emulated(host: str) -> bool:
    """Whether a host name is one of the cloud's, in any region the SDK knows, or a public one beside it."""
    match = _SERVICE.fullmatch(host)
    return host in {_ADDRESS_SERVICE, *prices.HOSTS} or bool(match and match[1] in REGIONS)


class Server(ThreadingHTTPServer):
    """Listens on loopback."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, api: Api, authority: Authority, principal: InstancePrincipal):
        self.api, self.authority, self.principal = api, authority, principal
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report; anything else goes to the log with its traceback."""
        logging.getLogger(__name__).debug("connection of %s ended", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection: plain requests for the control interface, or CONNECT and TLS for one of the cloud's hosts."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 65536
    timeout = 120
    _host = ""

    def do_CONNECT(self) -> None:
        """Become the host that the client asks for, or refuse: nothing is ever passed on."""
        host, _, port = self.path.rpartition(":")
        if self._host or port != "443" or not is_emulated(host):
            self._send(Answer(403, {"content-type": "text/plain"}, b"The emulator does not know this host.\n"))
            self.close_connection = True
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._host = host
        try:
            self.connection = self.server.authority.context(host).wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):  # the client does not trust us, or went away
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb")
        self.close_connection = False

    def finish(self) -> None:
        """Close the TLS socket too, which took the plain one's place."""
        super().finish()
        self.connection.close()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not headers.get("content-length", "0").isdigit() or "transfer-encoding" in headers:
            self._send(Answer(411, {}, b""))
            self.close_connection = True
            return
        self._acknowledge()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if self._host == _ADDRESS_SERVICE:
            answer: Answer | None = Answer(200, {"content-type": "text/plain"}, _SOME_ADDRESS)
        elif self._host.startswith("auth."):
            answer = self.server.principal.exchange(self.command, self.path, headers, body)
        elif self._host:
            answer = self.server.api.answer(self._host, self.command, self.path, headers, body)
        elif self.path.startswith("/emulator/"):
            answer = control.answer(self.server.api, self.command, self.path, body)
        elif self.path.startswith("/opc/v2/"):
            answer = self.server.principal.metadata(self.path, headers)
        else:
            answer = Answer(403, {"content-type": "text/plain"}, b"The emulator passes nothing on.\n")
        if answer is None:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _answer  # noqa: N815 (the base class names them)

    def _acknowledge(self) -> None:
        """Acknowledge the head of the request at once: a client with a proxy holds its body back until then.

        (urllib3 leaves Nagle's algorithm on for proxies; without this, each POST takes 40 ms.)
        """
        if hasattr(socket, "TCP_QUICKACK"):  # Linux; it has to be asked for each time
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _send(self, answer: Answer) -> None:
        headers = {
            "Date": email.utils.formatdate(time.time() + self.server.api.settings.values.clock, usegmt=True),
            "content-type": "application/json",
            **answer.headers,
            **({} if answer.status == 204 else {"content-length": str(len(answer.body))}),
        }
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: /emulator/requests has it all."""
