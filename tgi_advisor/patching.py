"""Limits that fit, put into the deployment file people already have; everything else of it stays, byte for byte.

>>> import tgi_advisor
>>> found = tgi_advisor.patch("compose.yaml", gpu="nvidia-l4", write=False)
>>> print(found.diff)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tgi_advisor import api, lint
from tgi_advisor.errors import SpecError, UsageError, listed
from tgi_advisor.facts import flags
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.gather import files
from tgi_advisor.gather.facts import gather
from tgi_advisor.gather.model import Source
from tgi_advisor.limits import Limits
from tgi_advisor.safe import named
from tgi_advisor.spec import amend as spec_amend
from tgi_advisor.spec import reader
from tgi_advisor.spec.records import Bound, LimitsSpec, Spec
from tgi_advisor.validate import amend, fix
from tgi_advisor.validate.amend import Wish
from tgi_advisor.validate.effective import Effective, effective
from tgi_advisor.validate.found import Document
from tgi_advisor.validate.importer import importing
from tgi_advisor.validate.judge import cases, findings
from tgi_advisor.validate.rules import Case
from tgi_advisor.validate.secrets import secrets


class Patched(NamedTuple):
    """A deployment file with limits that fit."""

    plan: api.Plan
    """What the search found; where nothing starts the file is left as it is."""
    file: str
    """The file."""
    text: str
    """It, with the limits."""
    diff: str
    """The change as a unified diff, without secrets; empty where there is none."""
    errors: tuple[str, ...] = ()
    """What `validate` still finds wrong in the file that the limits went into: the server may stop at it."""
    server: str = ""
    """Which server of the file, by its name and where it stands, where there are several; else empty."""

    def to_dict(self) -> dict[str, Any]:
        """The plan as `advise --json` prints it, with the file and the change under `patch`."""
        return {
            **self.plan.to_dict(),
            "patch": {
                "file": self.file,
                "server": self.server or None,
                "diff": self.diff or None,
                "errors": list(self.errors),
            },
        }


def patch(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    memory: str | None = None,
    release: str | None = None,
    server: str | None = None,
    images: Mapping[str, str] | None = None,
    fields: Sequence[str] = (),
    write: bool = True,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Patched:
    """Search the largest limits that fit a server of a deployment file, or a spec, and write them into it.

    The file's own limits are forgotten; `fields` (`path=value`, as `--set`) lay others over what it says, such as
    `limits.max_total_tokens=16k` and `workload.concurrency=20`. `model`, `gpu`, `count`, `memory` (of one GPU) and
    `release` say what the file does not, `server` which of several is meant. Without `write` the file is left as it is.
    Raises the kinds of `tgi_advisor.errors`; SpecError where the limits cannot be written there, with those to write
    by hand.
    """
    asked = os.fspath(path)
    document, reread = lint.opened(asked, images)
    lint.whole(document)
    errors: tuple[str, ...] = ()
    which = ""
    facts_of = _facts_of(source, offline, progress)
    if document.form == "spec":
        if model is not None:
            raise _of_named_model()
        plan, new, hidden = _of_spec(document, gpu, count, memory, release, fields, facts_of)
    else:
        if not document.servers:
            raise lint.without_server(document)
        stated = lint.stated(gpu, (f"gpu.memory={memory}",) if memory else (), count, release)
        known = cases(document, lint.facts_for("snapshot", True, asked), stated)
        case = lint.chosen(known, server, document.file)
        if model is not None and case.view.model:
            raise _of_named_model()
        lint.plannable(case, "runs: --release")
        lint.of_known_gpu(case, gpu)
        which = lint.whereabouts(case) if len(known) > 1 else ""
        spec = importing(case, gpu, count, memory, model)[0].spec
        spec = reader.build([], "command line", replace(spec, limits=LimitsSpec()), fields)
        plan = facts_of(spec)
        number, running = known.index(case), case.release

        def again(text: str) -> tuple[Document, list[Effective]]:
            there = reread(text)
            return there, [effective(one, running if one.image is None else None) for one in there.servers]

        hidden = secrets(document, known)
        new = document.text
        if plan.prediction.outcome == "starts":
            new = _written(document, number, case, plan, again)
            there = reread(new)
            after = cases(there, lint.facts_for("snapshot", True, asked), stated)
            errors = _errors(there, [after[number]])
            if added := _added(_errors(document, [case]), errors):
                raise _unwritable(document, plan.prediction.limits, f"`validate` would find more in it: {added}")
    diff = fix.diff(document.text, new, document.file, hidden) if new != document.text else ""
    if write and diff and asked != "-":
        lint.rewrite(asked, document, new)
    return Patched(plan, document.file, new, diff, errors, which)


def _of_named_model() -> UsageError:
    """That a model is stated, and the file has one."""
    return UsageError("--patch takes the model from the file, which names one", "Leave --model out.")


def _added(before: Sequence[str], after: Sequence[str]) -> str:
    """The first error of a kind that was not there before; empty where there is none."""
    kinds = {one.split(": ")[1] for one in before}
    return next((one for one in after if one.split(": ")[1] not in kinds), "")


def _errors(document: Document, judged: Sequence[Case]) -> tuple[str, ...]:
    """What is wrong with servers, each with its place."""
    found = (one for one in findings(document, judged) if one.severity == "error")
    return tuple([f"{one.place}: {one.code}: {one.message}" for one in found])


def _facts_of(source: Source, offline: bool, progress: Callable[[str], None] | None) -> Callable[[Spec], api.Plan]:
    """What searches a spec, its facts gathered as asked."""

    def advise(spec: Spec) -> api.Plan:
        return api.advise(spec, facts=gather(spec, source=source, offline=offline, progress=progress))

    return advise


def _of_spec(
    document: Document, gpu: str | None, count: int | None, memory: str | None, release: str | None,
    fields: Sequence[str], advise: Callable[[Spec], api.Plan],
) -> tuple[api.Plan, str, Any]:  # fmt: skip
    """A spec of ours with its limits pinned to those found."""
    specs = reader.read_text_all(document.text, document.file)
    if len(specs) > 1:
        raise UsageError(f"{files.shown(document.file)} holds {len(specs)} specs, and --patch writes into one")
    (spec,) = specs
    given = (("hardware.gpu", gpu), ("hardware.count", count and str(count)), ("tgi.release", release))
    sets = [f"hardware.gpu.memory={memory}"] if memory else []
    pairs = [(path, text) for path, text in given if text]
    asked = reader.build(pairs, "command line", replace(spec, limits=LimitsSpec()), [*sets, *fields])
    plan = advise(asked)
    hidden = secrets(document, [])
    if plan.prediction.outcome != "starts":
        return plan, document.text, hidden
    limits = plan.prediction.limits
    pinned = (limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens)
    wanted = replace(spec, limits=LimitsSpec(*(Bound(value, value) for value in pinned)))
    new = spec_amend.amended(document.text, document.file, wanted)
    if new is None:
        raise _unwritable(document, limits, "it is not written line by line")
    return plan, new, hidden


def _written(
    document: Document, number: int, case: Case, plan: api.Plan,
    again: Callable[[str], tuple[Document, list[Effective]]],
) -> str:  # fmt: skip
    """The file with the limits of a plan for its server of this number; all of them, or SpecError."""
    limits, running = plan.prediction.limits, case.release
    assert running is not None, "such a server was refused"
    wishes = _wishes(limits, running, case)
    made = amend.amend(document.text, number, wishes, flags.flags_of(running), again)
    if made.undone:
        why = f"{listed(list(made.undone), 'and')} cannot be written there"
        raise _unwritable(document, limits, f"{why}{_hindrance(document, number, case, wishes)}")
    return made.text


def _hindrance(document: Document, number: int, case: Case, wishes: Sequence[Wish]) -> str:
    """Why words cannot be written, where that is plain to see."""
    if "\r" in document.text.replace("\r\n", ""):
        return ", where a line ends with a bare carriage return"
    given = [case.view.get(wish.name) for wish in wishes]
    if any(one is not None and amend.by_template(one.value.text) for one in given):
        return ", where a template fills it in"
    files_of = dict.fromkeys(one.value.place.file for one in given if one is not None)
    if elsewhere := [files.shown(name) for name in files_of if name and name != document.file]:
        return f", where {listed(elsewhere, 'and')} {'says' if len(elsewhere) == 1 else 'say'} it"
    here = {word.spot for word in (*case.server.args, *case.server.env.values())}
    for at, other in enumerate(document.servers):
        if at != number and here & {word.spot for word in (*other.args, *other.env.values())}:
            return f", where {named(other.name) or 'another server'} at {other.place} would get them too"
    return ""


def _wishes(limits: Limits, release: TgiRelease, case: Case) -> list[Wish]:
    """The limits as launcher flags; the input has its old name where the release or the file calls it so."""
    before, since = (case.view.get(name) is not None for name in ("max-input-length", "max-input-tokens"))
    old = release.version < (2, 0, 0) or (before and not since)
    known = flags.flags_of(release)
    values: tuple[tuple[str, int | None], ...] = (
        ("max-input-length" if old else "max-input-tokens", limits.max_input_tokens),
        ("max-total-tokens", limits.max_total_tokens),
        ("max-batch-prefill-tokens", limits.max_batch_prefill_tokens),
    )
    stated = case.view.get("max-batch-total-tokens")
    if stated is not None and not _goes_with(limits, stated.value.number):
        values = (*values, ("max-batch-total-tokens", limits.max_batch_total_tokens))
    wishes = [Wish("flag", name, flags.parse_value(known[name], value)) for name, value in values if value is not None]
    return [*([Wish("flag", "max-input-length", None)] if before and not old else []), *wishes]


def _goes_with(limits: Limits, budget: int | None) -> bool:
    """Whether a stated budget leaves these limits as they are: the launcher lets no limit exceed it, and families whose
    budget TGI does not infer have the one that is stated.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/launcher/src/main.rs#L2203
    """
    least = max(limits.max_total_tokens or 0, limits.max_batch_prefill_tokens or 0)
    return budget is not None and least <= budget <= (limits.max_batch_total_tokens or budget)


def _unwritable(document: Document, limits: Limits, why: str) -> SpecError:
    """What is left to a person."""
    told = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in limits.given().items()
                    if name != "max_batch_total_tokens")  # fmt: skip
    return SpecError(f"{files.shown(document.file)} is left as it is: {why}", f"Write by hand: {told}")


__all__ = ["Patched", "patch"]
