"""Answers that are worth remembering until something else is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from operator import is_
from typing import Any, ParamSpec, TypeVar, cast

About = ParamSpec("About")
Answer = TypeVar("Answer")


def remembered(question: Callable[About, Answer]) -> Callable[About, Answer]:
    """The question, which is answered once for the launch (or model) that is asked about again and again.

    What was asked and its answer are always one tuple, as several threads may ask.
    """
    of_one = len(signature(question).parameters) == 1
    return wraps(question)(cast("Callable[About, Answer]", (_of_one if of_one else _of_several)(question)))


def _of_one(question: Callable[..., Answer]) -> Callable[[object], Answer]:
    """A question about one thing, of which there are by far the most."""
    last: tuple[object, Answer] | None = None

    def ask(about: object) -> Answer:
        nonlocal last
        known = last
        if known is None or known[0] is not about:
            last = known = about, question(about)
        return known[1]

    return ask


def _of_several(question: Callable[..., Answer]) -> Callable[..., Answer]:
    last: tuple[tuple[object, ...], Answer] | None = None

    def ask(*about: Any, **more: Any) -> Answer:
        nonlocal last
        asked, known = (*about, *more.values()), last
        if known is None or len(known[0]) != len(asked) or not all(map(is_, known[0], asked)):
            last = known = asked, question(*about, **more)
        return known[1]

    return ask
