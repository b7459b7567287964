"""A port of a pod as a socket: the API server's port-forward over a WebSocket.

Each frame begins with a channel: 0 carries the port's data, 1 errors; the first frame of each is the port's number
(https://kubernetes.io/docs/reference/using-api/websockets/, as of v4.channel.k8s.io).
"""

from __future__ import annotations

import queue
import selectors
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PROTOCOL = "v4.channel.k8s.io"
DATA = 0
CHUNK = 1 << 16


class RefusedForwardError(OSError):
    """The API server answered, and forwards no port."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the API server forwards no port: status {status}")
        self.status = status


def connect(configuration: Any, url: str, headers: Mapping[str, str], seconds: float) -> socket.socket:
    """The near end of a connection to the port, once the API server has agreed; OSError within `seconds`."""
    from kubernetes.stream.ws_client import create_websocket, get_websocket_url

    answers: queue.Queue[Any] = queue.Queue()
    given_up = threading.Event()

    def dial() -> None:
        """In a thread of its own: the client's WebSocket knows no time-out for connecting."""
        try:
            made = create_websocket(
                configuration, get_websocket_url(url), {**headers, "sec-websocket-protocol": PROTOCOL}
            )
        except Exception as error:  # noqa: BLE001  (TLS, proxies, a refusal: all mean that there is no connection)
            answers.put(error)
            return
        if given_up.is_set():
            with suppress(Exception):
                made.shutdown()
        answers.put(made)

    threading.Thread(target=dial, name="port-forward", daemon=True).start()
    try:
        made = answers.get(timeout=seconds)
    except queue.Empty:
        given_up.set()
        raise TimeoutError("the API server forwards no port in time") from None
    if isinstance(made, Exception):
        status = getattr(made, "status_code", None)
        if status:
            raise RefusedForwardError(status)
        raise OSError(f"the API server forwards no port: {type(made).__name__}")
    near, far = socket.socketpair()
    threading.Thread(target=_pump, args=(made, far), name="port-forward", daemon=True).start()
    return near


def _pump(web: Any, far: socket.socket) -> None:
    """Carry both ways, to the end of either; in one thread, for a TLS connection is not to be used by two at a time."""
    greeted: set[int] = set()
    with suppress(Exception), selectors.DefaultSelector() as waiting:  # anything a broken connection raises
        waiting.register(web.sock, selectors.EVENT_READ, _from_pod)
        waiting.register(far, selectors.EVENT_READ, _to_pod)
        going = True
        while going:
            if isinstance(web.sock, ssl.SSLSocket) and web.sock.pending():  # has been read, and is not given out yet
                going = _from_pod(web, far, greeted)
            else:
                going = all(key.data(web, far, greeted) for key, _ in waiting.select())
    with suppress(Exception):
        web.shutdown()
    far.close()


def _from_pod(web: Any, far: socket.socket, greeted: set[int]) -> bool:
    """What the port says goes into the socket; whether there may be more."""
    frame = web.recv()
    if not frame:
        return False
    data = frame.encode() if isinstance(frame, str) else frame
    channel, rest = data[0], data[1:]
    if channel not in greeted:
        greeted.add(channel)
        return True
    if channel == DATA:
        far.sendall(rest)
    return bool(channel == DATA)


def _to_pod(web: Any, far: socket.socket, _greeted: set[int]) -> bool:
    """What is written into the socket goes to the port; whether there may be more."""
    data = far.recv(CHUNK)
    if data:
        web.send_binary(bytes([DATA]) + data)
    return bool(data)
