"""A port of a pod as a socket: the API server's port-forward over a WebSocket.

Each frame begins with a channel: 0 carries the port's data, 1 errors; the first frame of each is the port's number
(https://kubernetes.io/docs/reference/using-api/websockets/, as of v4.channel.k8s.io).
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PROTOCOL = "v4.channel.k8s.io"
DATA = 0
CHUNK = 1 << 16


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
        raise OSError(f"the API server forwards no port: {f'status {status}' if status else type(made).__name__}")
    near, far = socket.socketpair()
    for pump in (_from_pod, _to_pod):
        threading.Thread(target=pump, args=(made, far), name="port-forward", daemon=True).start()
    return near


def _from_pod(web: Any, far: socket.socket) -> None:
    """What the port says goes into the socket, to the end of either."""
    greeted = set()
    with suppress(Exception):  # anything a broken connection raises
        while frame := web.recv():
            data = frame.encode() if isinstance(frame, str) else frame
            channel, rest = data[0], data[1:]
            if channel not in greeted:
                greeted.add(channel)
            elif channel == DATA:
                far.sendall(rest)
            else:
                break
    _end(web, far)


def _to_pod(web: Any, far: socket.socket) -> None:
    """What is written into the socket goes to the port, to the end of either."""
    with suppress(Exception):
        while data := far.recv(CHUNK):
            web.send_binary(bytes([DATA]) + data)
    _end(web, far)
    far.close()


def _end(web: Any, far: socket.socket) -> None:
    with suppress(Exception):
        far.shutdown(socket.SHUT_RDWR)
    with suppress(Exception):  # closing alone would not wake a thread that reads
        web.sock.shutdown(socket.SHUT_RDWR)
    with suppress(Exception):
        web.shutdown()
