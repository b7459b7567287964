"""The names of a spec that nobody knows, told all at once, and beside what else is wrong with it.

Only what this machine can say: no network is asked, so that a misspelt GPU is told at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tgi_advisor.errors import AdvisorError, FactsError, Place, Problem, SpecError
from tgi_advisor.facts import flags, tables
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.spec.records import Spec


def with_names(error: SpecError) -> SpecError:
    """The error of a reader with the names in its specs that nobody knows."""
    names = [problem for spec in error.specs if isinstance(spec, Spec) for _, problem in _names(spec)]
    if not names or any(problem.place is None for problem in error.problems):  # there are too many to list already
        return error
    listed = _in_order([*error.problems, *names])
    return SpecError(f"{_source(error.specs)} has {len(listed)} problems", error.hint, listed)


def beside(error: AdvisorError, field: str, spec: Spec) -> AdvisorError:
    """The error about a field of a spec, with its place in the file, or one of its kind with all unknown names."""
    others = [problem for path, problem in _names(spec) if path != field]
    if not others:
        place = spec.place(field)
        named = field != "model.id" and field in spec.places  # of a model it is often the Hub that is at fault
        if not named or place is None or not place.line or error.problems:
            return error
        return type(error)(f"{place}: {error.message}", error.hint)
    own = [*error.problems] if isinstance(error, SpecError) and error.problems else []
    listed = _in_order([*(own or [Problem(error.message, error.hint, spec.place(field))]), *others])
    return type(error)(f"{_source([spec])} has {len(listed)} problems", problems=listed)


def _source(specs: Any) -> str:
    return next((spec.source for spec in specs if isinstance(spec, Spec)), "the spec")


def _in_order(problems: list[Problem]) -> list[Problem]:
    """From the top of the file down."""
    nowhere = Place("", 0, 0)
    return sorted(problems, key=lambda problem: ((problem.place or nowhere).line, problem.place or nowhere))


def _names(spec: Spec) -> Iterator[tuple[str, Problem]]:
    """(field, what is wrong) for every name that is not known."""
    for path, ask in (("model.id", _model), ("hardware.gpu", _gpu), ("tgi.release", _release), ("tgi.image", _image)):
        if path in spec.places:
            try:
                ask(spec)
            except (FactsError, SpecError) as error:
                yield path, Problem(error.message, error.hint, spec.place(path))
    yield from _flags(spec)


def _model(spec: Spec) -> None:
    from tgi_advisor.gather import model

    if spec.model.id and model.near_a_shipped_one(spec.model.id, spec.model.revision):
        raise FactsError(
            f"{spec.model.id} is not among the shipped models, and the Hub was not asked",
            model.suggestion(spec.model.id),
        )


def _gpu(spec: Spec) -> None:
    asked = spec.hardware.gpu
    if asked.name and asked.name != "auto" and not asked.stated and gpus.instance(asked.name) is None:
        gpus.find(asked.name)


def _release(spec: Spec) -> None:
    if spec.tgi.release:
        releases.find(spec.tgi.release)


def _image(spec: Spec) -> None:
    if spec.tgi.image:
        releases.from_image(spec.tgi.image, None)


def _flags(spec: Spec) -> Iterator[tuple[str, Problem]]:
    """Flags the release does not have; where the release is not known, those that no release has."""
    try:
        release = releases.find(spec.tgi.release) if spec.tgi.release else None
        if spec.tgi.image:
            release = releases.from_image(spec.tgi.image, release).release
    except (FactsError, SpecError):
        release = None
    for name in spec.tgi.flags:
        if release is None and (spec.tgi.release or spec.tgi.image) and name in tables.load("flags"):
            continue
        try:
            flags.find(name, release or releases.latest())
        except SpecError as error:
            path = f"tgi.flags.{name}"
            yield path, Problem(error.message, error.hint, spec.place(path))
