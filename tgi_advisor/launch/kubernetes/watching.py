"""Objects of a namespace as they are now: listed once, then watched, each kind in a thread of its own.

A watch that ends is taken up at the last resource version seen; one that is too old (410) begins with a new list
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tgi_advisor.errors import EngineError
from tgi_advisor.launch.kubernetes.cluster import PUT_OFF, Cluster, RefusedError
from tgi_advisor.launch.place import LostPlaceError

WATCH_S = 240
"""Seconds after which the server ends a watch."""
QUIET_S = WATCH_S + 30.0
"""Seconds of silence after which a connection is taken for broken."""
AGAIN_S = 0.5
"""Seconds before a watch that broke off is taken up, at first."""
MOST_AGAIN_S = 5.0
"""The longest such wait."""
FIRST_S = 15.0
"""Seconds the first list may take."""
PATIENT = 3
"""How often in a row a watch may break off before that is told: connections end, and servers put requests off."""
LINE_BYTES = 1 << 22
"""The longest event; objects are at most 1.5 MiB (etcd)."""


class TooOldError(Exception):
    """The resource version is not kept any more."""


class Watch:
    """The objects of one kind that a selector picks, by name."""

    def __init__(self, cluster: Cluster, path: str, what: str, selector: Mapping[str, str]) -> None:
        self._cluster, self._path, self._what, self._selector = cluster, path, what, dict(selector)
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Any]] = {}
        self._lost: EngineError | None = None
        self._listed = threading.Event()
        self._closed = threading.Event()
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, name=f"watch {what}", daemon=True)
        self._thread.start()

    def objects(self) -> list[dict[str, Any]]:
        """What is there now; EngineError when it cannot be seen, LostPlaceError when nobody answers."""
        self._listed.wait(FIRST_S)
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if not self._listed.is_set():
                raise LostPlaceError(f"the API server at {self._cluster.address} has not listed {self._what} yet")
            return list(self._objects.values())

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._answer is not None:
            hang_up(self._answer)

    def _run(self) -> None:
        version, wait, broken = "", AGAIN_S, 0
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                version = version or self._list()
                version = self._follow(version)
                self._seen(None)
                broken = 0
            except TooOldError:
                version = ""
            except EngineError as error:
                if self._closed.is_set():
                    return
                broken += 1
                passing = isinstance(error, LostPlaceError)
                if isinstance(error, RefusedError):
                    version = "" if error.status == 410 else version
                    passing = error.status in (*PUT_OFF, 410)
                if passing and broken > PATIENT:
                    self._seen(LostPlaceError(error.message, error.hint))
                elif not passing:
                    self._seen(error)
            except Exception as error:  # noqa: BLE001  (a thread that ends would be taken for a cluster at rest)
                version = ""
                self._seen(EngineError(f"the cluster's answers about {self._what} are not understood ({error!r})"))
            wait = AGAIN_S if time.monotonic() - began > MOST_AGAIN_S else min(wait * 2, MOST_AGAIN_S)
            self._closed.wait(wait)

    def _seen(self, error: EngineError | None) -> None:
        with self._lock:
            self._lost = error
        if error is not None:
            self._listed.set()

    def _list(self) -> str:
        """List all; the resource version to watch from."""
        found = self._cluster.get(self._path, f"list {self._what}", self._selector)
        objects = {str(one["metadata"]["name"]): one for one in found.get("items") or ()}
        with self._lock:
            self._objects, self._lost = objects, None
        self._listed.set()
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> str:
        """Watch from a version until the connection ends; the version it came to."""
        query = {**self._selector, "watch": "true", "resourceVersion": version, "timeoutSeconds": WATCH_S,
                 "allowWatchBookmarks": "true"}  # fmt: skip
        self._answer = self._cluster.stream(self._path, f"watch {self._what}", query, QUIET_S)
        if self._closed.is_set():
            hang_up(self._answer)
        try:
            for event in events(self._answer):
                self._seen(None)
                one = event["object"]
                if event["type"] == "ERROR":
                    if one.get("code") == 410:
                        raise TooOldError
                    raise EngineError(f"the cluster ended the watch of {self._what}: {one.get('message')}")
                version = str(one["metadata"]["resourceVersion"])
                if event["type"] != "BOOKMARK":
                    self._note(str(event["type"]), one)
        finally:
            hang_up(self._answer)
        return version

    def _note(self, kind: str, one: dict[str, Any]) -> None:
        name = str(one["metadata"]["name"])
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(name, None)
            else:
                self._objects[name] = one


def events(answer: Any) -> Iterator[dict[str, Any]]:
    """The events of a watch, to where its connection ends or breaks."""
    for line in lines(answer):
        with suppress(ValueError, RecursionError):  # a line that was cut off with its connection
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found.get("object"), dict):
                yield found


def lines(answer: Any) -> Iterator[bytes]:
    """The lines of a stream, without their ends, to where its connection ends or breaks."""
    rest = b""
    with suppress(Exception):  # anything a broken connection raises
        while chunk := answer.read1(1 << 16):
            *ended, rest = (rest + chunk).split(b"\n")
            yield from ended
            if len(rest) > LINE_BYTES:
                return
    if rest:
        yield rest


def hang_up(answer: Any) -> None:
    """End a stream, also while another thread reads it."""
    with suppress(Exception):  # of a connection that is broken anyway
        answer.shutdown()
    with suppress(Exception):
        answer.close()
