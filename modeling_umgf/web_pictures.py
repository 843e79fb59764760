"""Pictures from the web, for those who ask for them: from public addresses alone, with limits on size and time."""

import base64
import http.client
import ipaddress
import socket
import threading
import time
import urllib.request

from .pictures import UnreadablePicture

MAX_BYTES = 30_000_000
"""Largest file that is fetched."""

SECONDS = 20.0
"""What fetching a picture may take, redirects included."""

WEB = ("http://", "https://")


def fetch_picture(address: str, seconds: float | None = None) -> bytes:
    """Fetch the file of a picture.

    The addresses that a name stands for are looked up once, and one of these is used; where any of them is not public
    (of this machine, a private network, a cloud's metadata), nothing is. Redirects are held to the same. Proxies of the
    environment are not used: they would look up names by themselves.

    Args:
        address: http:// or https://, or what data:image/… holds itself.
        seconds: limit for all of it; default 20.

    Returns:
        The bytes of the file.

    Raises:
        UnreadablePicture: it cannot be fetched within the limits.
    """
    try:
        if address.startswith("data:"):
            return base64.b64decode(address.partition(",")[2])
        return _fetch(address, time.monotonic() + (SECONDS if seconds is None else seconds))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnreadablePicture(address[:80], f"cannot be fetched ({error or type(error).__name__})") from error


def _fetch(address: str, end: float) -> bytes:
    opener = urllib.request.OpenerDirector()  # not `build_opener`: that one reads files, FTP and proxies too
    for handler in (
        _Handler(end),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(address, headers={"User-Agent": "modeling_umgf"})
    with opener.open(request, timeout=_left(end)) as response:
        content = bytearray()
        while part := response.read1(1 << 16):
            content += part
            if len(content) > MAX_BYTES:
                raise OSError(f"larger than {MAX_BYTES:,} bytes")
            _left(end)
    return bytes(content)


class _Handler(urllib.request.HTTPSHandler):
    """Opens http and https through connections to public addresses, which are cut at the end."""

    def __init__(self, end: float):
        super().__init__()
        self.end = end

    def http_open(self, request):
        return self._open(_Connection, request)

    def https_open(self, request):
        return self._open(_SecureConnection, request)

    http_request = urllib.request.AbstractHTTPHandler.do_request_

    def _open(self, connection_class, request):
        request.timeout = _left(self.end)
        connections = []

        def connect(host, **settings):
            connections.append(connection_class(host, **settings))
            return connections[-1]

        def cut():  # a server that sends a byte now and then would hold a socket's own limit off forever
            for connection in connections:
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(request.timeout, cut)
        timer.daemon = True
        timer.start()
        try:
            return self.do_open(connect, request)
        finally:
            timer.cancel()


class _Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = _public_socket(self.host, self.port, self.timeout)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self):
        plain = _public_socket(self.host, self.port, self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def _public_socket(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to a host whose addresses are all public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [place[0].partition("%")[0] for *_, place in found]
    for address in addresses:
        if not is_public(address):
            raise OSError(f"{host} is {address}, which is no public address")
    return socket.create_connection((addresses[0], port), timeout)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also where it holds another one inside."""
    own = ipaddress.ip_address(address)
    inside = []
    if own.version == 6:
        inside = [own.ipv4_mapped, own.sixtofour, *(own.teredo or ())]
        if own in ipaddress.ip_network("64:ff9b::/96"):
            inside.append(ipaddress.ip_address(int(own) & 0xFFFFFFFF))
    return all(one.is_global and not one.is_multicast for one in (own, *inside) if one is not None)


def _left(end: float) -> float:
    """Seconds until the end; raises TimeoutError when it is over."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it takes too long")
    return left
