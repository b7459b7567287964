"""Where a model's facts come from: a folder, what ships with the package, what was kept, or the Hub.

online   folder, shipped snapshot (main), our cache, Hub; when the Hub is out of reach: what was kept
         longer than a day, the Hugging Face cache
offline  folder, our cache, Hugging Face cache, shipped snapshot
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Literal

from tgi_advisor.bounds import MAX_WORD
from tgi_advisor.errors import FactsError, Problem, listed, nearest
from tgi_advisor.facts.heads import method
from tgi_advisor.facts.model import ModelFacts

Source = Literal["auto", "hub", "cache", "snapshot", "folder"]

_NOTHING_KEPT = "our own cache: no answer of the Hub is kept"


def load(
    model_id: str,
    revision: str = "main",
    *,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    base_source: Source | None = None,
    on_host: Callable[[str], str] = str,
) -> ModelFacts:
    """The facts of a model at a revision; `source` names the only place to look, `auto` looks in all.

    `offline` (or HF_HUB_OFFLINE) forbids the network. `progress` is given a line of text now and then when it
    takes longer than a moment. FactsError when the facts are nowhere: it says everything that was tried.

    Speculation heads come with the model they are for, of `base_source` (`source`, and for a folder anywhere, unless it
    is given); `on_host` says where a path of the container lies here.
    """
    found = _load(model_id, revision, source=source, offline=offline, progress=progress)
    if method(found.config) is None:
        return found
    from tgi_advisor.gather import heads

    def base(name: str) -> ModelFacts:
        if heads.is_path(name):
            where = heads.on_this_machine(name, found.folder, on_host)
            return _load(where, "main", source="folder", offline=offline, progress=progress)
        place = base_source or ("auto" if source == "folder" else source)
        return _load(name, "main", source=place, offline=offline, progress=progress)

    return heads.served(found, base)


def _load(
    model_id: str, revision: str, *, source: Source, offline: bool, progress: Callable[[str], None] | None
) -> ModelFacts:
    """The facts of what a repository or folder holds itself."""
    if source == "folder" or (source == "auto" and _is_path(model_id)):
        from tgi_advisor.gather import folder

        return folder.read(model_id)
    from tgi_advisor.gather import environment
    from tgi_advisor.gather.names import check_id, check_revision

    check_id(model_id)
    check_revision(revision)
    offline = offline or environment.offline()
    if "/" not in model_id and source != "hub":
        _named_in_full(model_id)
    if source == "hub":
        if offline:
            raise FactsError("Asking the Hub is forbidden (--offline or HF_HUB_OFFLINE).", "Leave the switch out.")
        return _from_hub(model_id, revision, progress)
    tried: list[Problem] = []
    if source == "snapshot":
        places = [_shipped]
    elif source == "cache":
        places = [_kept, _downloaded]
    elif offline:
        places = [_kept, _downloaded, _shipped]
    else:
        return _online(model_id, revision, progress)
    for place in places:
        if facts := place(model_id, revision, tried):
            return facts
    if source != "cache" and (facts := _of_another_commit(model_id, revision)):
        return facts
    raise FactsError(
        f"There are no facts about {model_id} at {revision} on this machine.",
        suggestion(model_id)
        or (
            "Run it once without --offline and HF_HUB_OFFLINE." if offline else "Look everywhere: leave out the source."
        ),
        tried,
    )


def _online(model_id: str, revision: str, progress: Callable[[str], None] | None) -> ModelFacts:
    tried: list[Problem] = []
    if facts := _shipped(model_id, revision, tried):
        return facts
    from tgi_advisor.gather import cache

    kept = cache.load(model_id, revision)
    if kept and kept.fresh:
        return kept.facts
    if kept is None:
        tried.append(Problem(_NOTHING_KEPT))
    from tgi_advisor.gather.hub.wording import UnreachableError

    try:
        return _from_hub(model_id, revision, progress)
    except UnreachableError as error:
        note = f" (the Hub was out of reach: {error.message.rstrip('.')})"
        if kept:
            return kept.facts._replace(source=kept.facts.source + note)
        if facts := _downloaded(model_id, revision, tried) or _of_another_commit(model_id, revision):
            return facts._replace(source=facts.source + note)
        meant = suggestion(model_id)
        raise FactsError(error.message, f"{error.hint}\n{meant}" if meant else error.hint, tried) from None


def _from_hub(model_id: str, revision: str, progress: Callable[[str], None] | None) -> ModelFacts:
    from tgi_advisor.gather import cache
    from tgi_advisor.gather.hub.read import read
    from tgi_advisor.gather.hub.wording import UnknownModelError

    try:
        facts = read(model_id, revision, progress)
    except UnknownModelError as error:
        raise FactsError(error.message, suggestion(model_id) or error.hint) from None
    cache.store(facts, revision)
    return facts


def _shipped(model_id: str, revision: str, tried: list[Problem]) -> ModelFacts | None:
    """The snapshot inside the package, if it is of the revision asked for; `main` is the one it was taken of."""
    from tgi_advisor.gather import snapshot

    facts = snapshot.find(model_id)
    if facts and revision in ("main", facts.commit):
        return facts
    reason = f"is of {_commit(facts)}" if facts else "has no such model"
    tried.append(Problem(f"snapshot in the package: {reason}"))
    return None


def _of_another_commit(model_id: str, revision: str) -> ModelFacts | None:
    """The snapshot inside the package for a pinned commit it was not taken of: commits seldom change a shape.

    Branches and tags do (another quantization, another format), so that for them it is no answer.
    """
    from tgi_advisor.gather import snapshot

    facts = snapshot.find(model_id) if re.fullmatch(r"[0-9a-f]{7,40}", revision) else None
    if facts is None:
        return None
    assumed = f"{model_id} is taken to have at {revision[:12]} the shapes of the snapshot, which is of {_commit(facts)}"
    return facts._replace(commit=None, assumed=assumed)


def _commit(facts: ModelFacts) -> str:
    return f"commit {facts.commit[:12]}" if facts.commit else "a commit that was not recorded"


def _kept(model_id: str, revision: str, tried: list[Problem]) -> ModelFacts | None:
    from tgi_advisor.gather import cache

    if kept := cache.load(model_id, revision):
        return kept.facts
    tried.append(Problem(_NOTHING_KEPT))
    return None


def _downloaded(model_id: str, revision: str, tried: list[Problem]) -> ModelFacts | None:
    from tgi_advisor.gather import downloaded, environment

    try:
        if facts := downloaded.read(model_id, revision):
            return facts
        tried.append(Problem(f"Hugging Face cache {environment.hub_cache()}: not downloaded"))
    except FactsError as error:
        tried.append(Problem(f"Hugging Face cache: {error.message}", error.hint))
    return None


def _is_path(model_id: str) -> bool:
    """A folder, or something that can only have been meant as one."""
    return model_id.startswith(("/", "./", "../", "~")) or os.path.isdir(model_id)  # noqa: PTH112 (cheaper, and deaf to NUL)


def _named_in_full(model_id: str) -> None:
    """FactsError for a name without its organisation that a shipped model has behind its own."""
    from tgi_advisor.gather import snapshot

    if snapshot.recorded(model_id) is not None:
        return
    meant = [name for name in snapshot.names() if name.rpartition("/")[2].casefold() == model_id.casefold()]
    if meant:
        raise FactsError(f"{model_id!r} names no organisation.", f"Did you mean {listed(meant[:3])}?")


def near_a_shipped_one(model_id: str, revision: str) -> bool:
    """Whether a model of which nothing is on this machine has nearly the name of a shipped one."""
    from difflib import get_close_matches

    from tgi_advisor.gather import cache, downloaded, snapshot
    from tgi_advisor.gather.names import check_id, check_revision

    known = snapshot.names()
    if _is_path(model_id) or model_id in known or not get_close_matches(model_id[:MAX_WORD], known, 1, 0.9):
        return False
    try:
        check_id(model_id)
        check_revision(revision)
        there = cache.load(model_id, revision) or downloaded.file(model_id, revision, "config.json")
    except FactsError:
        return False
    return not there


def suggestion(model_id: str) -> str | None:
    """The shipped models that may have been meant: those that begin so, the nearest; by the name alone without an
    organisation.
    """
    from tgi_advisor.gather import snapshot

    known = snapshot.names()
    if model_id in known:
        return f"{model_id} is shipped with tgi-advisor: --source snapshot uses it."
    behind = {name if "/" in model_id else name.rpartition("/")[2]: name for name in reversed(known)}
    begun = [name for name in sorted(behind, key=len) if name.casefold().startswith(model_id.casefold())]
    near = begun[:3] or nearest(model_id, behind)
    return f"Among the shipped models: did you mean {listed([behind[name] for name in near])}?" if near else None
