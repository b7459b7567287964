"""Validating and importing deployment files, for programs: the command line is made of the same calls.

>>> import tgi_advisor
>>> for report in tgi_advisor.validate_files(["compose.yaml"], gpu="nvidia-l4"):
...     for finding in report.findings:
...         print(finding.place, finding.code, finding.message)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tgi_advisor.bounds import MAX_CHARACTERS
from tgi_advisor.errors import AdvisorError, FactsError, Place, SpecError, UsageError
from tgi_advisor.gather import files
from tgi_advisor.gather.files import Beside
from tgi_advisor.safe import masked, named
from tgi_advisor.spec.tree import Map, compose
from tgi_advisor.validate import comments, config, fix
from tgi_advisor.validate.config import Settings
from tgi_advisor.validate.found import Document
from tgi_advisor.validate.read import read
from tgi_advisor.validate.report import Report, report
from tgi_advisor.validate.rules.rule import said
from tgi_advisor.validate.secrets import secrets

if TYPE_CHECKING:
    from tgi_advisor.facts.model import ModelFacts
    from tgi_advisor.gather.model import Source
    from tgi_advisor.validate.finding import Finding
    from tgi_advisor.validate.hardware import Stated
    from tgi_advisor.validate.judge import FactsFor
    from tgi_advisor.validate.rules import Case


class Asked(NamedTuple):
    """How files are judged, beyond the settings."""

    source: Source = "snapshot"
    """Where facts about models are looked for; anything but `snapshot` and `cache` may ask the Hub."""
    offline: bool = False
    """Never use the network."""
    fix: bool = False
    """Mend what can be mended."""
    write: bool = True
    """Whether what is mended is written to the file."""
    link: bool = False
    """Whether the file was found as a link to one outside the folder that was named: it is not written."""
    stdin_name: str = files.STDIN
    """What standard input is called, which also says what kind of file it is."""


def validate_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    gpu: str | None = None,
    count: int | None = None,
    memory: str | None = None,
    release: str | None = None,
    source: Source = "snapshot",
    offline: bool = False,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> list[Report]:
    """What TGI will make of the servers in these files and folders; one report a file that has to do with TGI.

    The arguments are the command line's; configuration files are not read. A file that cannot be read
    has a report that says why. UsageError when there is none of that name, FactsError when the GPU or
    release is not known.
    """
    try:
        hardware = (f"gpu.memory={memory}",) if memory else ()
        chosen = Settings(
            config.codes(select), config.codes(ignore), gpu=gpu, hardware=hardware, count=count, release=release
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    asked = Asked(source, offline)
    told: set[tuple[str, str, int, int]] = set()
    checks = (_once(check(path, chosen, asked), told) for path in files.find(os.fspath(path) for path in paths))
    return [one for one in checks if one.servers or one.findings or one.unread]


def checked(
    paths: Sequence[str], over: Settings, stated: frozenset[str], asked: Asked, config_file: str | None = None
) -> Iterator[Report]:
    """One report a file, as they are read; settings come from the files above each, `stated` fields from `over`.

    A defect of ours in one file is reported there and does not keep the others from being judged.
    """
    settings = SettingsOf(over, stated, config_file)
    told: set[tuple[str, str, int, int]] = set()
    for path in files.find(paths, settings.excluded):
        chosen = settings.of(path)
        try:
            here = asked if path in paths or not files.leaves(path, paths) else asked._replace(link=True)
            yield _once(check(path, chosen, here), told)
        except AdvisorError:
            raise
        except Exception as error:  # noqa: BLE001  (a linter of thousands of files goes on)
            yield Report(path, defect=masked(said(error)))


def _once(made: Report, told: set[tuple[str, str, int, int]]) -> Report:
    """The report without what was said already: what is said once a run or a file is kept apart, and what stands in
    an environment file, which is read alone and with its Compose file, is gone.
    """
    places = [one.place for one in made.findings] + [one.place for one in made.servers]
    elsewhere = any(place.file != made.file for place in places)
    twice = elsewhere or any(server.form == "env" for server in made.servers)
    kept: list[Finding] = []
    repeated: list[Finding] = []
    of_file: set[tuple[str, str]] = set()
    for one in made.findings:
        said = (*one.same, 0, 0)
        here = (one.code, os.path.normpath(one.place.file), one.place.line, one.place.column)
        again = one.same in of_file if one.once == "file" else one.once in ("run", "kind") and said in told
        if here in told and not again:
            continue  # the same place, read with another file
        (repeated if again else kept).append(one)
        of_file.add(one.same)
        told |= {said, here} if twice else {said}
    servers = []
    for server in made.servers:  # a Compose file's may be told of its override or of what includes it
        place = ("server", os.path.normpath(server.place.file), server.place.line, server.place.column)
        if server.form != "compose" or place not in told:
            servers.append(server)
        told.add(place)
    return replace(made, findings=tuple(kept), servers=tuple(servers), repeated=tuple(repeated))


def check(path: str, settings: Settings, asked: Asked) -> Report:
    """The report on one file."""
    name = asked.stdin_name if path == "-" else path
    try:
        text = files.load(path)
    except UsageError as error:
        return Report(name, unread=error.message)
    beside = Beside(asked.stdin_name if path == "-" and asked.stdin_name != files.STDIN else path)
    document = (
        read(text.text, name, lookup=beside, images=settings.images, listed=beside.listed)
        if text is not None
        else Document(name, "", "none")
    )
    if text is None or not (document.servers or document.defects):
        return Report(name)
    whole = text.whole and len(text.text) <= MAX_CHARACTERS
    note = "" if whole else f"only the first {MAX_CHARACTERS:,} characters were read, and nothing was mended"
    now = _Mended(document, *_judged(document, settings, asked))
    hidden = secrets(document, now.cases)
    if whole:
        try:
            now = _mended(now, settings, asked, beside)
        except Exception as error:  # noqa: BLE001  (what was found is told nevertheless)
            note = f"nothing was mended, because of a defect of tgi-advisor: {said(error)}"
    diff = unread = ""
    if now.mended:
        diff = fix.diff(text.text, now.document.text, name, hidden)
        if asked.link:
            note = "not written: it is a link to a file elsewhere; name it to mend it"
        elif path != "-" and asked.write:
            try:
                files.save(path, text._replace(text=now.document.text), text)
            except UsageError as error:
                unread = error.message
    told = [one for one in now.findings if settings.reports(one.code)]
    made = _with_real_places(report(now.document, now.cases, told, beside.found), beside)
    fatal = ("error", "warning") if settings.strict else ("error",)
    failed = any(one.severity in fatal for one in made.findings)
    return replace(made, fixed=now.mended, diff=diff, unread=unread, note=note, failed=failed)


def import_server(
    path: str,
    server: str | None = None,
    *,
    gpu: str | None = None,
    count: int | None = None,
    memory: str | None = None,
    release: str | None = None,
    images: Mapping[str, str] | None = None,
    model: str | None = None,
) -> str:
    """A server of a deployment file as a deployment spec (YAML); `server` names it where there are several.

    `model` takes the place of the file's.

    `images` are images under other names that hold TGI, each with the tag its own would have. UsageError when there
    is no server, or which one is meant is not said.
    """
    from tgi_advisor.validate.importer import imported
    from tgi_advisor.validate.judge import cases

    path = _values_of(path)
    document, _ = opened(path, images)
    if not document.servers:
        raise without_server(document)
    more = (f"gpu.memory={memory}",) if memory else ()
    said = stated(gpu, more, count, release)
    meant = chosen(cases(document, facts_for("snapshot", True, path), said), server, document.file)
    several = said.machine.gpus if said.machine and said.machine.gpus > 1 else None
    return imported(meant, gpu, count or several, memory, model)


def _values_of(path: str) -> str:
    """The values of a Helm chart where a path is the chart's folder; else the path itself."""
    chart, values = (Path(path) / name for name in ("Chart.yaml", "values.yaml"))
    return str(values) if chart.is_file() and values.is_file() else path


def is_spec(path: str) -> bool:
    """Whether a file is a deployment spec, and not somebody's deployment file. False where it cannot be read."""
    text = files.load(path)
    document = read(text.text if text else "", path, lookup=Beside(path))
    return bool(document.servers) and all(server.form == "spec" for server in document.servers)


def text_of(path: str) -> str:
    """A file as text; empty where it is none."""
    found = files.load(path)
    return found.text if found else ""


Again = Callable[[str], Document]
"""Reads another text as the same file, with the same files beside it."""


def opened(path: str, images: Mapping[str, str] | None) -> tuple[Document, Again]:
    """A deployment file, or standard input for `-`, and what reads it anew; UsageError where it cannot be read."""
    text = files.load(path)
    name = files.STDIN if path == "-" else path
    beside = Beside(path)

    def again(text: str) -> Document:
        return read(text, name, lookup=beside, images=images, listed=beside.listed)

    return again(text.text if text else ""), again


def plannable(case: Case, stated: str) -> None:
    """FactsError or UsageError for a server that cannot be planned; `stated` is how its release is said."""
    where = whereabouts(case)
    if not case.view.image.judged:
        raise FactsError(f"{where}: {case.view.image.note}", "Only TGI's own server is known, release by release.")
    if case.view.image.server:
        raise FactsError(f"{where}: what {case.view.image.server} does with memory is not known")
    if case.release is None:
        raise UsageError(f"{where}: {case.view.image.note}", f"State which release it {stated} X.Y.Z.")


def of_known_gpu(case: Case, gpu: str | None) -> None:
    """UsageError for a server whose GPU neither the file nor the caller names."""
    if gpu is None and case.gpu is None:
        hint = "Name it: --gpu nvidia-l4 (`tgi-advisor gpus` lists them), or --gpu auto for this machine's."
        raise UsageError(f"{whereabouts(case)}: the file does not name its GPU", hint)


def whereabouts(case: Case) -> str:
    """A server by its name, and where it stands."""
    return f"{named(case.server.name) or 'the server'} at {case.server.place}"


def rewrite(path: str, before: Document, text: str) -> None:
    """A deployment file with another text, in the coding it has; UsageError where it is not what was read any more."""
    original = files.load(path)
    if original is None or original.text != before.text:
        raise UsageError(f"{files.shown(path)} has changed since it was read, and is left as it is", "Run it again.")
    files.save(path, original._replace(text=text), original)


def whole(document: Document) -> None:
    """UsageError for a file of which only the head was read: written anew, it would end there."""
    if len(document.text) >= MAX_CHARACTERS:
        raise UsageError(
            f"only the first {MAX_CHARACTERS:,} characters of {files.shown(document.file)} are read, and it is left as "
            "it is"
        )


def without_server(document: Document) -> UsageError:
    """That a file starts no TGI server, and what is probably wrong with it."""
    file = files.shown(document.file)
    message = f"there is no TGI server in {file}"
    if document.defects:
        first = document.defects[0]
        return UsageError(message, f"{first.place}: {first.message}")
    try:
        root = compose(document.text, file) if document.file.endswith((".yaml", ".yml", files.STDIN)) else None
    except SpecError as error:
        problem = error.problems[0] if error.problems else None
        told = f"{problem.place}: {problem.message}" if problem and problem.place else error.message
        return UsageError(message, f"It is no YAML: {told}")
    sections = {key.text: value for key, value in root.entries} if isinstance(root, Map) else {}
    if isinstance(sections.get("model"), Map) and "hardware" not in sections:
        hint = "A deployment spec names its GPU: add hardware: {gpu: …}. `tgi-advisor gpus` lists them."
        return UsageError(message, hint)
    return UsageError(message, "It names neither a TGI image nor the launcher.")


def chosen(found: Sequence[Case], server: str | None, file: str) -> Case:
    """The server that is meant, by its name or its number."""
    names = [case.server.name for case in found]
    lines = "\n".join(
        f"{number}: {named(case.server.name) or '(no name)'} at {case.server.place}"
        for number, case in enumerate(found, start=1)
    )
    if server is None:
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f"{files.shown(file)} has {len(found)} TGI servers", f"Say which with --server NAME or NUMBER:\n{lines}"
        )
    if names.count(server) == 1:
        return found[names.index(server)]
    if server.isdecimal() and 1 <= int(server) <= len(found):
        return found[int(server) - 1]
    several = "several servers" if server in names else "no server"
    raise UsageError(
        f"{files.shown(file)} has {several} named {server!r}", f"Say which with --server NAME or NUMBER:\n{lines}"
    )


class SettingsOf:
    """The settings of each file: those of the nearest configuration file above it, under the command line's."""

    def __init__(self, over: Settings, stated: frozenset[str], config_file: str | None) -> None:
        self._over = {name: getattr(over, name) for name in stated}
        if "gpu" in stated:  # what a file states beside its own GPU is not true of another
            self._over.setdefault("hardware", ())
        self._fixed = self._read(config_file) if config_file else None
        self._by_folder: dict[str, Settings] = {}

    def of(self, path: str) -> Settings:
        """The settings of a file."""
        return self._for_file(self._of_folder(files.folder_of(path)), path)

    def excluded(self, path: str) -> bool:
        """Whether a file or folder is left out when its folder is searched."""
        settings = self._of_folder(files.folder_of(path))
        return bool(settings.exclude) and files.matches(path, settings.exclude, os.path.dirname(settings.file))  # noqa: PTH120

    def _of_folder(self, folder: str) -> Settings:
        if folder not in self._by_folder:
            found = self._fixed or self._found(folder)
            self._by_folder[folder] = replace(found, **self._over)
        return self._by_folder[folder]

    def _found(self, folder: str) -> Settings:
        """The settings in a folder, else those above it."""
        for file, text in files.named_in(folder, config.FILES):
            if (settings := config.read(text, file)) is not None:
                return settings
        above = os.path.dirname(folder)  # noqa: PTH120
        return config.NOTHING if above == folder else self._of_folder(above)

    def _read(self, file: str) -> Settings:
        found = files.load(file)
        settings = config.read(found.text, file) if found else None
        if settings is None:
            raise UsageError(f"{files.shown(file)} holds no [tool.tgi-advisor]")
        return settings

    def _for_file(self, settings: Settings, path: str) -> Settings:
        base = os.path.dirname(settings.file)  # noqa: PTH120
        more = [
            code
            for pattern, codes in settings.per_file_ignores.items()
            if files.matches(path, [pattern], base)
            for code in codes
        ]
        return replace(settings, ignore=(*settings.ignore, *more)) if more else settings


def _judged(document: Document, settings: Settings, asked: Asked) -> tuple[list[Case], list[Finding]]:
    """The servers of a file and what every rule has to say about them."""
    from tgi_advisor.validate import judge

    facts = facts_for(asked.source, asked.offline, document.file)
    cases = judge.cases(document, facts, stated(settings.gpu, settings.hardware, settings.count, settings.release))
    return cases, list(judge.findings(document, cases))


class _Mended(NamedTuple):
    """A document on its way through its fixes."""

    document: Document
    """As it reads now."""
    cases: list[Case]
    """Its servers."""
    findings: list[Finding]
    """What every rule has to say about it; a fix that cannot be made is no longer among them."""
    mended: int = 0
    """Findings that were mended."""


def _mended(first: _Mended, settings: Settings, asked: Asked, beside: Beside) -> _Mended:
    """The document with its fixes, read again until there are none left; unless `fix` is asked for, as it was.

    Either way the findings keep only the fixes that can be made.
    """

    def again(text: str) -> tuple[Document, list[Finding]]:
        document = read(text, first.document.file, lookup=beside, images=settings.images, listed=beside.listed)
        return document, _judged(document, settings, asked)[1]

    now = first
    for _ in range(fix.MAX_ROUNDS):
        kept, _ignored = comments.split([one for one in now.findings if settings.reports(one.code)], now.document)
        made = fix.mend(now.document, kept, now.findings, again)
        now = now._replace(findings=[fix.unmended(one, made.refused) for one in now.findings])
        if not made.findings or not asked.fix:
            break
        document = read(made.text, first.document.file, lookup=beside, images=settings.images, listed=beside.listed)
        now = _Mended(document, *_judged(document, settings, asked), now.mended + made.findings)
    return now


def _with_real_places(made: Report, beside: Beside) -> Report:
    """The report with findings in a file beside the judged one at that file's own path."""
    names = {name: beside.path_of(name) for name in beside.found}

    def moved(place: Place) -> Place:
        return Place(names[place.file], place.line, place.column) if place.file in names else place

    if not names:
        return made
    return replace(
        made,
        findings=tuple(replace(one, place=moved(one.place)) for one in made.findings),
        servers=tuple(
            replace(
                one,
                place=moved(one.place),
                arguments=tuple(replace(given, place=moved(given.place)) for given in one.arguments),
            )
            for one in made.servers
        ),
        lines={(names.get(file, file), number): line for (file, number), line in made.lines.items()},
    )


@lru_cache(maxsize=8)
def stated(gpu: str | None, hardware: tuple[str, ...], count: int | None, release: str | None) -> Stated:
    """What somebody states about hardware and release; an instance type says how many GPUs there are.

    `hardware` are assignments to the fields of a spec's `hardware`, as `gpu.memory=64GiB`.
    """
    from tgi_advisor.facts import gpu as gpus
    from tgi_advisor.facts import release as releases
    from tgi_advisor.validate.hardware import CPU, Stated
    from tgi_advisor.validate.rules.rule import Machine

    said = releases.find(release) if release is not None else None
    if gpu is None and not hardware:
        return Stated(None, count, said)
    from tgi_advisor.gather import facts
    from tgi_advisor.spec import reader
    from tgi_advisor.spec.records import Spec

    given = [("model.id", "the file's"), ("hardware.gpu", gpu or CPU)]
    given += [("hardware.count", str(count))] if count is not None else []
    asked = reader.build(given, "command line", None, [f"hardware.{one}" for one in hardware]).hardware
    if asked.gpu.memory is None and gpus.is_cpu(asked.gpu.name):
        return Stated(None, count, said, cpu=True)
    if gpu is None and asked.gpu.name == CPU:
        return Stated(None, count, said, memory=asked.gpu.memory)
    found, there = facts.hardware(Spec(hardware=asked))
    instance = gpus.instance(asked.gpu.name)
    if asked.gpu.name == "auto":
        return Stated(found, count, said, Machine("this machine", there))
    return Stated(found, count, said, Machine(asked.gpu.name, instance[1]) if instance else None)


_PLACES: dict[Source, tuple[Source, ...]] = {"auto": ("snapshot", "cache", "hub")}
"""Where `auto` looks; never in a folder of this machine that happens to be called like a model."""


@lru_cache(maxsize=8)
def _models(source: Source, offline: bool) -> FactsFor:
    """Facts about models by id and revision, each asked for once; None where they are not known."""

    @lru_cache(maxsize=256)
    def facts(model: str, revision: str | None) -> ModelFacts | None:
        from tgi_advisor.gather.model import load
        from tgi_advisor.validate.catalogue import is_hub_id

        if not is_hub_id(model):  # a folder of the container, which is not this machine's
            return None
        for place in _PLACES.get(source, (source,)):
            with suppress(AdvisorError):
                return load(model, revision or "main", source=place, offline=offline, base_source=source)
        return None

    return facts


def facts_for(source: Source, offline: bool, file: str) -> FactsFor:
    """Facts about models; a relative path is a folder beside the deployment file, or below it."""
    known, folder = _models(source, offline), files.folder_of(file)

    def facts(model: str, revision: str | None) -> ModelFacts | None:
        return _beside(model, folder, source, offline) if model.startswith("./") else known(model, revision)

    return facts


def _beside(path: str, folder: str, source: Source, offline: bool) -> ModelFacts | None:
    """Facts of the model in a folder below the one of its deployment file; None where there is none."""
    from tgi_advisor.gather.model import load

    there = files.below(folder, path)
    if there is None:
        return None
    with suppress(AdvisorError):
        return load(str(there), source="folder", offline=offline, base_source=source)
    return None
