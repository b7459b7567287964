"""The sizes of the LoRA adapters a spec names: their adapter_config.json, from a folder, the Hub's cache or the Hub.

An adapter that cannot be read is no error: it is assumed, and a note says so.
"""

from __future__ import annotations

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts import adapters
from tgi_advisor.facts.adapters import ASSUMED, CONFIG, Entry, Lora
from tgi_advisor.gather import checkpoint, downloaded, environment, folder
from tgi_advisor.gather.mounts import on_this_machine
from tgi_advisor.gather.names import check_id, check_revision
from tgi_advisor.safe import printable
from tgi_advisor.spec.records import Spec


def named(spec: Spec) -> tuple[Entry, ...]:
    """The adapters of a spec, by flag or variable."""
    given = spec.tgi.flags.get("lora-adapters", spec.tgi.env.get("LORA_ADAPTERS"))
    words = given.split(",") if isinstance(given, str) else ()
    return tuple(adapters.parse(word) for word in words if word.strip())


def gather(spec: Spec, *, network: bool) -> tuple[dict[str, Lora], tuple[str, ...]]:
    """(the adapters that could be read by their entry, what had to be assumed of the others)."""
    found: dict[str, Lora] = {}
    notes: list[str] = []
    for entry in named(spec):
        try:
            lora = adapters.read(*_config(spec, entry, network=network))
        except FactsError as error:
            lora, reason = None, error.message.rstrip(".")
        else:
            reason = f"its {CONFIG} names no rank"
        if lora:
            found[entry.text] = lora
        else:
            sure = f"adapter {printable(entry.text)} is taken to have rank {ASSUMED.rank} on every projection"
            notes.append(f"{sure}: {reason}")
    return found, tuple(notes)


def _config(spec: Spec, entry: Entry, *, network: bool) -> tuple[dict[str, object], str]:
    """(an adapter's configuration, where it was read); FactsError where it is nowhere."""
    if entry.folder is not None or entry.bare_folder:
        path = on_this_machine(spec, entry.folder or entry.id) / CONFIG
        return folder.read_json(path, bounds.MAX_CONFIG), str(path)
    revision = entry.revision or "main"
    check_id(entry.id)
    check_revision(revision)
    kept = downloaded.file(entry.id, revision, CONFIG)
    if kept is not None:
        return folder.read_json(kept, bounds.MAX_CONFIG), str(kept)
    if not network:
        raise FactsError(f"its {CONFIG} is not in the Hugging Face cache, and the Hub is not asked")
    return _of_hub(entry.id, revision)


def _of_hub(repo: str, revision: str) -> tuple[dict[str, object], str]:
    from tgi_advisor.gather.hub.client import Client
    from tgi_advisor.gather.hub.wording import refused

    client = Client()
    (answer,) = client.all(lambda name: client.file(repo, revision, name, bounds.MAX_CONFIG), [CONFIG], lambda _: None)
    if isinstance(answer, Exception):
        raise refused(answer, repo, revision, CONFIG, client.token_from)  # type: ignore[arg-type]
    url = environment.public(str(answer.url))
    return checkpoint.read_json(answer.content, url), f"{url} at {revision}"
