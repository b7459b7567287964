"""Answers that are worth remembering until something else is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import is_
from typing import ParamSpec, TypeVar

About = ParamSpec("About")
Answer = TypeVar("Answer")


def remembered(question: Callable[About, Answer]) -> Callable[About, Answer]:
    """The question, which is answered once for the launch (or model) that is asked about again and again."""
    last: tuple[tuple[object, ...], Answer] | None = None

    @wraps(question)
    def ask(*about: About.args, **more: About.kwargs) -> Answer:
        nonlocal last
        asked, known = (*about, *more.values()), last
        if known is None or len(known[0]) != len(asked) or not all(map(is_, known[0], asked)):
            last = known = asked, question(*about, **more)
        return known[1]

    return ask
