"""From one TGI release to another, for programs: the command line is made of the same call.

>>> import tgi_advisor
>>> found = tgi_advisor.upgrade("compose.yaml", to="3.3.7", gpu="nvidia-l4")
>>> for one in found.servers:
...     print(one.serves, one.less, one.proposal.pins)

What is thought here is in `upgrades`; what a file says is read by `validate`, facts are gathered, files are mended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tgi_advisor import lint
from tgi_advisor.errors import AdvisorError, Exit, UsageError
from tgi_advisor.facts import changes, flags
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.gather import files
from tgi_advisor.gather.facts import gather
from tgi_advisor.gather.model import Source
from tgi_advisor.spec import amend as spec_amend
from tgi_advisor.spec import reader, writer
from tgi_advisor.spec.contradictions import image_release
from tgi_advisor.spec.reader import SpecLike
from tgi_advisor.spec.records import Spec
from tgi_advisor.upgrades import Surroundings, Upgrade
from tgi_advisor.upgrades import upgrade as judged
from tgi_advisor.upgrades.document import documents
from tgi_advisor.upgrades.records import Fixed, Prefer
from tgi_advisor.upgrades.sides import compared, judge, renamed
from tgi_advisor.validate import amend, fix
from tgi_advisor.validate.amend import Wish
from tgi_advisor.validate.effective import Effective, Slip, effective
from tgi_advisor.validate.found import Document, Server, Value
from tgi_advisor.validate.hardware import Stated
from tgi_advisor.validate.importer import Importing, cache_of, importing
from tgi_advisor.validate.judge import FactsFor, cases, findings
from tgi_advisor.validate.rules import RULES, Case
from tgi_advisor.validate.secrets import Hidden, secrets, without_secrets


class Unjudged(NamedTuple):
    """A server of a file with several that cannot be judged."""

    name: str
    """Its name; may be empty."""
    place: str
    """Where it stands."""
    error: AdvisorError
    """Why."""


class Upgrades(NamedTuple):
    """What moving every server of a file to another release changes."""

    servers: tuple[Upgrade, ...]
    """One each, in the order of the file."""
    unjudged: tuple[Unjudged, ...] = ()
    """Those of several that cannot be judged."""
    file: str = ""
    """The file; empty for a spec of a program's."""
    text: str = ""
    """The mended file, where it was to be mended."""
    diff: str = ""
    """The change as a unified diff, without secrets; empty where there is none."""

    @property
    def exit_code(self) -> Exit:
        """The worst of the servers': it does not start, it serves less, or why one could not be judged."""
        worst = (Exit.REFUSED, Exit.OUT_OF_MEMORY, Exit.LESS)
        codes = {one.exit_code for one in self.servers}
        unjudged = tuple(one.error.exit_code for one in self.unjudged)
        return next((code for code in (*worst, *unjudged) if code in codes or code in unjudged), Exit.STARTS)

    def to_dict(self) -> dict[str, Any]:
        """The answer as --json prints it: docs/json.md has every name."""
        left = [
            {
                "server": one.name or None,
                "place": one.place,
                "exit_code": int(one.error.exit_code),
                "message": one.error.message,
                "hint": one.error.hint,
            }
            for one in self.unjudged
        ]
        return {**documents(self.servers), "unjudged": left, "diff": self.diff or None}

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.servers))


class _Asked(NamedTuple):
    """What the caller says."""

    to: TgiRelease
    since: TgiRelease | None
    gpu: str | None
    gpus: int | None
    memory: str | None
    prefer: Prefer
    between: bool
    gather: Callable[[Spec], Facts]


def upgrade(
    spec: SpecLike | os.PathLike[str],
    *,
    to: str | None = None,
    since: str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    memory: str | None = None,
    server: str | None = None,
    images: Mapping[str, str] | None = None,
    prefer: Prefer = "same",
    releases_between: bool = False,
    fix: bool = False,
    write: bool = False,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Upgrades:
    """What moving a deployment to another TGI release changes, and the spec that keeps or betters what it serves.

    `spec` is a spec (a path, a mapping or a `Spec`), or the path of a deployment file, of which every server is judged,
    or the one that `server` names. `to` is the newest release where it is left out; `since` is the one it runs today,
    where the file does not say it; `gpu`, `count` and `memory` (of one GPU) the hardware, `images` images of other
    names that hold TGI, each with the tag its own would have. `prefer` is `same` (state what the old release did by
    itself) or `better` (the largest limits the new one gives). With `fix` the file is mended in memory, with `write` on
    disk too. Raises the kinds of `tgi_advisor.errors`.
    """
    wanted = releases.find(to) if to else releases.latest()
    asked = _Asked(
        wanted, _since(since), gpu, count, memory, prefer, releases_between,
        lambda one: gather(one, source=source, offline=offline, progress=progress),
    )  # fmt: skip
    if not isinstance(spec, (str, os.PathLike)):
        return Upgrades((_of_spec(reader.read_any(spec), asked),))
    path = os.fspath(spec)
    document, reread = lint.opened(path, images)
    if document.form == "spec":
        return _of_specs(document, asked, server, fix=fix, write=write, path=path)
    return _of_file(document, asked, server, reread, fix=fix, write=write, path=path)


def _agrees(since: TgiRelease, said: TgiRelease, where: str) -> None:
    """UsageError where --from says another release than the file does."""
    if since != said:
        raise UsageError(f"--from says TGI {since}, but {where} says {said}", "Leave --from out.")


def _since(text: str | None) -> TgiRelease | None:
    """The release that is said to run today."""
    return releases.find(text) if text else None


UNTOUCHED = "the file is left as it is"
"""What becomes of a file of which the new release starts nothing."""


# ---- specs


def _of_spec(spec: Spec, asked: _Asked, place: str = "") -> Upgrade:
    """One spec; the caller's release and hardware are laid over it."""
    given = [("hardware.gpu", asked.gpu), ("hardware.count", str(asked.gpus) if asked.gpus else None)]
    sets = [f"hardware.gpu.memory={asked.memory}"] if asked.memory else []
    told = (image_release(spec.tgi.image) if spec.tgi.image else None) or spec.tgi.release
    if asked.since is None and told is None and not spec.tgi.image:
        raise UsageError(
            f"{place or 'the spec'} does not say which release of TGI runs today",
            "Give --from X.Y.Z, or state tgi.release; a spec without one is planned for the newest.",
        )
    if asked.since is not None:
        if told is not None:
            _agrees(asked.since, releases.find(told), place or "the spec")
        spec = replace(spec, tgi=replace(spec.tgi, release=asked.since.name))
    pairs = [(path, text) for path, text in given if text is not None]
    spec = reader.build(pairs, "command line", spec, sets) if pairs or sets else spec
    around = Surroundings(spec.container.name if place else "", place, volume=spec.container.cache)
    return judged(spec, asked.gather(spec), asked.to, prefer=asked.prefer, between=asked.between, around=around)


def _of_specs(document: Document, asked: _Asked, server: str | None, *, fix: bool, write: bool, path: str) -> Upgrades:
    """The specs of a file, in one or more documents."""
    specs = reader.read_text_all(document.text, document.file)
    if server is not None:
        names = [spec.container.name for spec in specs]
        if server not in names:
            raise UsageError(
                f"{files.shown(document.file)} has no spec named {server!r}", f"It has {', '.join(names)}."
            )
        specs = tuple(spec for spec in specs if spec.container.name == server)
    several = len(specs) > 1
    found = tuple(_of_spec(one, asked, str(one.place("") or document.file) if several else "") for one in specs)
    if not fix:
        return Upgrades(found, file=document.file)
    if several:
        raise UsageError(
            f"{files.shown(document.file)} holds {len(specs)} specs, and --fix mends one",
            "Keep each in a file of its own.",
        )
    (one,) = found
    if not one.proposal.side.starts:
        fixed = Fixed(one.proposal.side, one.proposal.serves, one.proposal.less, (), (UNTOUCHED,))
        return Upgrades((replace(one, fixed=fixed),), file=document.file, text=document.text)
    if not one.moves and not one.proposal.pins:
        return Upgrades(found, file=document.file, text=document.text)
    text = spec_amend.amended(document.text, document.file, one.proposal.spec)
    note = "" if text is not None else "the spec was written anew: its comments are gone"
    text = text if text is not None else writer.dump(one.proposal.spec)
    fixed = Fixed(one.proposal.side, one.proposal.serves, one.proposal.less, (), (note,) if note else ())
    return _mended(Upgrades((replace(one, fixed=fixed),), file=document.file), document, text, (), write, path)


def _mended(found: Upgrades, document: Document, text: str, known: Sequence[Case], write: bool, path: str) -> Upgrades:
    """The answer with the change, which is written where that is asked for."""
    lint.whole(document)
    hidden = secrets(document, list(known))
    diff = fix.diff(document.text, text, document.file, hidden) if text != document.text else ""
    if write and diff and path != "-":
        lint.rewrite(path, document, text)
    return found._replace(text=text, diff=diff)


# ---- deployment files


def _of_file(
    document: Document, asked: _Asked, server: str | None, reread: lint.Again, *, fix: bool, write: bool, path: str,
) -> Upgrades:  # fmt: skip
    """The servers of a deployment file."""
    if not document.servers:
        raise lint.without_server(document)
    stated = lint.stated(
        asked.gpu, (f"gpu.memory={asked.memory}",) if asked.memory else (), asked.gpus,
        asked.since.name if asked.since else None,
    )  # fmt: skip
    facts_for = lint.facts_for("snapshot", True, path)
    known = cases(document, facts_for, stated)
    chosen = [lint.chosen(known, server, document.file)] if server is not None else known
    text, found = document.text, []

    def again(text: str) -> tuple[Document, list[Effective]]:
        there = reread(text)
        return there, [effective(one, asked.to if one.image is None else asked.since) for one in there.servers]

    unjudged: list[Unjudged] = []
    for number, case in enumerate(known):
        if case not in chosen:
            continue
        try:
            one = _of_case(document, case, stated, asked, facts_for)
            if fix:
                text, one = _fixed(text, number, case, one, asked, stated, facts_for, again)
            found.append(one)
        except AdvisorError as error:
            if len(chosen) == 1:
                raise
            unjudged.append(Unjudged(case.server.name, str(case.server.place), error))
    if not found:
        raise unjudged[0].error
    made = Upgrades(tuple(found), tuple(unjudged), document.file)
    return _mended(made, document, text, known, write, path) if fix else made


def _of_case(document: Document, case: Case, stated: Stated, asked: _Asked, facts_for: FactsFor) -> Upgrade:
    """One server of a deployment file."""
    lint.plannable(case, "runs today: --from")
    assert case.release is not None, "such a server is refused"
    if asked.since is not None:
        _agrees(asked.since, case.release, lint.whereabouts(case))
    new, _ = importing(case, asked.gpu, asked.gpus, asked.memory)
    lint.of_known_gpu(case, asked.gpu)
    facts = asked.gather(new.spec)
    if facts.release != case.release:
        facts = facts._replace(release=case.release)
    image = _new_image(case, facts, asked.to)
    after = _moved(document, case, image, stated, asked, facts_for)
    around = _around(document, case, after, new, image)
    found = judged(new.spec, facts, asked.to, prefer=asked.prefer, between=asked.between, around=around)
    notes = (*((case.view.image.note,) if case.view.image.note else ()), *case.assumed)
    return replace(found, notes=tuple(dict.fromkeys((*notes, *found.notes))))


def _new_image(case: Case, facts: Facts, to: TgiRelease) -> str | None:
    """The image of the new release under the server's own name; None where it has none, or the name does not say."""
    image = case.server.image
    text = amend.noted_image(case.server) if image is None else image.text if image.known else ""
    return renamed(text, to, facts.variant)[0] if text else None


def _moved(
    document: Document, case: Case, image: str | None, stated: Stated, asked: _Asked, facts_for: FactsFor
) -> Case:
    """The server as it is with the image of the new release."""
    server: Server = case.server
    if server.image is not None:
        variant = case.view.image.variant or ""
        text = image or releases.image_for(asked.to, variant if variant in releases.variants(asked.to) else "")
        server = replace(server, image=Value(text, server.image.place))
    there = replace(document, servers=(server,))
    (moved,) = cases(there, facts_for, stated._replace(release=asked.to))
    return moved


def _around(document: Document, case: Case, after: Case, new: Importing, image: str | None) -> Surroundings:
    """What the file says of a server beside the spec; no secret of the file is in it."""
    server, view = case.server, case.view
    names = {**server.env, **server.secret_env}
    older = view.image.older
    of_spec = {f"--{name}" for name in new.spec.tgi.flags}
    today, then = ([_said_word(slip, new.hidden) for slip in one.view.slips] for one in (case, after))
    settled = any(name in names for name in ("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"))
    kept = [mount.kind for mount in server.mounts if (mount.target.text.rstrip("/") or "/") == cache_of(case)]
    port = view.flags.get("port")
    return Surroundings(
        name=server.name,
        place=str(server.place),
        older=older,
        flags=view.known_flags if older else None,
        shards_before=case.shards,
        shards_after=after.shards,
        bare=not server.args and server.form in ("compose", "kubernetes", "docker-run"),
        host_network=server.network is not None and server.network.text == "host",
        cache=bool(kept) and not settled,
        old_token="HUGGING_FACE_HUB_TOKEN" in names and "HF_TOKEN" not in names,
        new_token="HF_TOKEN" in names and "HUGGING_FACE_HUB_TOKEN" not in names,
        volume=new.spec.container.cache if any(kind in ("bind", "volume") for kind in kept) else "",
        refused=tuple(dict.fromkeys(word for word in then if word not in of_spec)),
        broken=tuple(dict.fromkeys(today)),
        left=tuple(new.told),
        port=str(port.typed) if port is not None and port.by != "image" and port.typed is not None else "",
        image_today=server.image.text if older and server.image is not None and server.image.known else "",
        image=image,
        found=tuple(_found(document, case, after)),
    )


def _said_word(slip: Slip, hidden: Hidden) -> str:
    """A word the launcher refuses, without its value and without secrets."""
    return without_secrets(slip.word.text.partition("=")[0], hidden)


def _found(document: Document, case: Case, after: Case) -> Iterator[tuple[str, str, str]]:
    """What `validate` finds of a server with the new release alone, apart from what the verdict and the flags say."""
    today = {one.code for one in findings(replace(document, servers=(case.server,), defects=()), [case])}
    for one in findings(replace(document, servers=(after.server,), defects=()), [after]):
        told = RULES[one.code].refusals or one.code[:4] == "TGI2" or one.code in _TOLD
        if one.code not in today and not told and one.severity != "info":
            yield one.code, one.message, one.next_step


_TOLD = ("TGI101", "TGI102", "TGI170", "TGI173", "TGI321", "TGI404", "TGI405")
"""Rules whose findings an upgrade says by itself: flags and variables that are gone, the cache, the token."""


# ---- mending a deployment file


def _fixed(
    text: str, number: int, case: Case, found: Upgrade, asked: _Asked, stated: Stated, facts_for: FactsFor,
    again: Callable[[str], tuple[Document, list[Effective]]],
) -> tuple[str, Upgrade]:  # fmt: skip
    """The text with the new release and what the proposal states, and what is then served."""
    known = flags.flags_of(asked.to)
    proposal = found.proposal
    if not proposal.side.starts:
        return text, replace(found, fixed=Fixed(proposal.side, proposal.serves, proposal.less, (), (UNTOUCHED,)))
    made = amend.amend(text, number, list(_wishes(case, found, known)), known, again)
    document, _ = again(made.text)
    then = Stated(stated.gpu, stated.gpu_count, asked.to, stated.machine, stated.cpu, stated.memory)
    now = cases(document, facts_for, then)[number]
    notes = []
    undone = made.undone
    if found.surroundings.image is None and found.moves:
        own = releases.image_for(asked.to, found.before.setting.facts.variant)
        what = "the image" if case.server.image is not None else "the release, which the file does not say"
        undone = (f"{what}: {own}", *undone)
        notes.append(f"judged as if TGI {asked.to} ran")
    new, _ = importing(now, asked.gpu, asked.gpus, asked.memory)
    facts = found.after.setting.facts
    spec = new.spec
    side = judge(spec, facts, now.shards)
    seen = compared(found.before, side)
    return made.text, replace(found, fixed=Fixed(side, seen.serves, seen.less, undone, tuple(notes)))


def _wishes(case: Case, found: Upgrade, known: Mapping[str, flags.Flag]) -> Iterator[Wish]:
    """What the file is to say, in the order it can be written: the image first."""
    around, proposal = found.surroundings, found.proposal
    if around.image is not None and found.moves:
        yield Wish("image", "", around.image)
    for word in around.refused:
        yield Wish("flag", word.lstrip("-"), None)
    pinned = {_said(pin.path) for pin in proposal.pins}
    for path in proposal.dropped:
        kind, name = _said(path)
        follows = changes.instead(name)
        free = follows is not None and follows.to not in {**case.server.env, **case.server.secret_env}
        if kind == "variable" and follows is not None and free and (kind, follows.to) in pinned:
            yield Wish("rename", name, follows.to)  # the pin below gives it its value
        else:
            yield Wish(kind, name, None)
    longest = case.view.get("max-input-tokens")
    if longest is not None and "max-input-tokens" not in known:  # its name until 1.4.5
        if longest.by == "environment":
            yield Wish("rename", "MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH")
        elif (tokens := proposal.spec.limits.max_input_tokens.fixed) is not None:
            yield Wish("flag", "max-input-length", tokens)
    token = "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"
    named_since = found.after.release.version >= (2, 1, 0)
    if around.old_token and named_since:
        yield Wish("rename", *token)
    elif around.new_token and not named_since:
        yield Wish("rename", *token[::-1])
    for pin in proposal.pins:
        kind, name = _said(pin.path)
        if kind == "variable":
            yield Wish("variable", name, str(pin.value))
            continue
        if name == "max-input-tokens" and (name not in known or case.view.get("max-input-length") is not None):
            name = "max-input-length"
        value = flags.parse_value(known[name], pin.value)
        yield Wish("flag", name, value)


_FIELDS = {
    "tgi.num_shard": "num-shard", "model.dtype": "dtype", "model.quantize": "quantize",
    "model.kv_cache_dtype": "kv-cache-dtype",
}  # fmt: skip
"""Fields of a spec that are launcher flags."""


def _said(path: str) -> tuple[str, str]:
    """Whether a field of a spec is a flag or a variable, and which."""
    if path.startswith("tgi.env."):
        return "variable", path.removeprefix("tgi.env.")
    if path.startswith("limits."):
        return "flag", path.removeprefix("limits.").replace("_", "-")
    return "flag", _FIELDS.get(path, path.removeprefix("tgi.flags."))


__all__ = ["Upgrade", "Upgrades", "upgrade"]
