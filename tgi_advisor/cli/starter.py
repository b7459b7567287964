"""The spec `init` writes: checked names, this machine's GPU where none is given."""

from __future__ import annotations

from tgi_advisor.errors import FactsError, UsageError
from tgi_advisor.spec import writer


def starter(model: str, gpu: str | None, count: int | None, release: str | None) -> str:
    """A commented starter spec; an unknown GPU or release is reported now, not when the spec is first used."""
    from tgi_advisor.facts import gpu as gpus
    from tgi_advisor.facts import release as releases

    known = releases.find(release) if release else releases.latest()
    memory = None
    if gpu is None:
        gpu, there, memory = _here()
    else:
        instance = gpus.instance(gpu)
        there = instance[1] if instance else 1
        facts = instance[0] if instance else gpus.find(gpu)
        memory = None
    shards = count or there
    image = None
    if memory is None:
        facts = (gpus.instance(gpu) or (gpus.find(gpu), 1))[0]
        variant = {"cuda": "", "rocm": "rocm", "xpu": "intel-xpu", "cpu": "intel-cpu", "gaudi": "gaudi"}[facts.system]
        image = releases.image_for(known, variant) if variant else None
    return writer.starter(model, gpu, shards, known.name, memory=memory, image=image)


def _here() -> tuple[str, int, int | None]:
    """This machine's GPU, how many, and its memory when the table does not know it."""
    from tgi_advisor.facts import gpu as gpus
    from tgi_advisor.gather import host

    try:
        found, there = host.this_machine()
    except FactsError as error:
        raise UsageError(
            f"no GPU was named, and this machine has none to take: {error.message}",
            "Say which with --gpu NAME; `tgi-advisor gpus` lists the names.",
        ) from None
    try:
        gpus.find(found.name)
    except FactsError:
        return found.name, there, found.memory_bytes
    return found.name, there, None
