"""The spec `init` writes: with checked names, and this machine's GPU where none is given."""

from __future__ import annotations

from tgi_advisor.errors import FactsError, UsageError
from tgi_advisor.spec import reader, writer


def starter(model: str, gpu: str | None, count: int | None, release: str | None, memory: str | None) -> str:
    """A commented starter spec; what is wrong with a name is reported now, not when the spec is first used."""
    from tgi_advisor.facts import release as releases
    from tgi_advisor.gather.facts import hardware, software

    given = [("model.id", model), ("hardware.gpu", gpu or "auto")]
    given += [("hardware.count", str(count))] if count else []
    given += [("tgi.release", release)] if release else []
    asked = reader.build(given, sets=[f"hardware.gpu.memory={memory}"] if memory else [])
    try:
        found, there = hardware(asked)
    except FactsError as error:
        if gpu is not None:
            raise
        hint = "Say which with --gpu NAME; `tgi-advisor gpus` lists the names."
        raise UsageError(f"no --gpu was given, and {error.message}", hint, error.problems) from None
    known, variant, _ = software(asked, found)
    name = gpu or (found.name if _in_table(found.name) else "auto")
    here = found.driver and name != "auto"  # what is read off this machine; `auto` reads it again
    return writer.starter(
        model,
        name,
        there,
        known.name,
        memory=found.memory_bytes if memory else None,
        image=releases.image_for(known, variant) if variant else None,
        driver=found.driver if here else None,
        link=found.link if here and there > 1 else None,
    )


def _in_table(name: str) -> bool:
    from tgi_advisor.facts import gpu as gpus

    try:
        gpus.find(name)
    except FactsError:
        return False
    return True
