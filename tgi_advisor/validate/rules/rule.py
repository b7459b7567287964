"""What a rule is: a function of a `Case` that yields what is wrong, with its code, severity and title.

A rule's docstring explains it and holds a failing and a fixed example, each behind a line such as
`Failing::` or `Fixed, compose.yaml, --gpu nvidia-t4::` (a file name, options of the command). An example
line that begins with `tgi:3.3.7` stands for a whole `docker run` of that release, words before it for
its environment; see `examples.py`. `docs/rules.md` is made from the docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Prediction
from tgi_advisor.refusals import Refusal
from tgi_advisor.safe import masked
from tgi_advisor.validate.effective import Effective
from tgi_advisor.validate.finding import Finding, Fix, Once, Severity
from tgi_advisor.validate.found import Defect, Document, Server, Value

OPEN = "..."
"""What stands in TGI's words where a figure depends on what is not known."""
MEMORY_FLAGS = (
    "max-input-tokens", "max-input-length", "max-total-tokens", "max-batch-prefill-tokens", "max-batch-size",
    "quantize", "dtype", "kv-cache-dtype", "cuda-memory-fraction", "speculate", "num-shard", "lora-adapters",
    "trust-remote-code", "enable-prefill-logprobs",
)  # fmt: skip
"""Flags the memory depends on."""
NO_GPU = "the file names no GPU (--gpu does)"
"""Why memory is not judged, where nobody names the GPU."""
NO_LIMITS = Limits()
"""No limit is given."""


class Machine(NamedTuple):
    """A machine with a known number of GPUs."""

    name: str
    """Its instance type (`g5.4xlarge`), or what else says how many GPUs it has."""
    gpus: int
    """GPUs it has."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a rule may look at: one server of one file, and what is known about it."""

    document: Document
    """The file."""
    server: Server
    """The server as found."""
    view: Effective
    """What its launcher is given."""
    facts: ModelFacts | None = None
    """The model; None when its facts are not known."""
    gpu: GpuFacts | None = None
    """The GPU; None when neither the file nor the caller names one."""
    gpu_word: Value | None = None
    """The word of the file that names the GPU."""
    gpu_unknown: str = ""
    """Why the GPU is not known, where the file says something about it."""
    machine: Machine | None = None
    """The machine it runs on, where file or caller name its type."""
    visible: int | None = None
    """GPUs the container sees; None when it cannot be known."""
    shards: int | None = None
    """Shards the launcher starts; None when it cannot be known."""
    limits: Limits = NO_LIMITS
    """The token limits the launcher is given."""
    refused: tuple[Refusal, ...] = ()
    """What TGI refuses for certain; on an unknown GPU or model only what holds on each of them."""
    unsure: frozenset[str] = frozenset()
    """Rules whose findings hold for the release that is supposed, and not for every one it may be."""
    setting: Setting | None = None
    """The launch; None unless model, GPU, release and shard count are all known."""
    prediction: Prediction | None = None
    """What TGI makes of it; None with `setting`."""
    before: tuple[Case, ...] = ()
    """Servers before it in the file that run on the same GPUs."""
    fits: Limits | None = None
    """Limits that would fit, where memory runs out and some do."""
    assumed: tuple[str, ...] = ()
    """What had to be assumed to say that much, one sentence each."""
    unjudged: tuple[str, ...] = ()
    """Why memory was not judged, with what would tell; empty when it was, or when other findings say it."""
    hopeless: bool = False
    """Whether no option of the command line would let memory be judged."""
    defect: str = ""
    """What went wrong in tgi-advisor itself while this was worked out; empty when nothing did."""

    @property
    def release(self) -> TgiRelease | None:
        """The release whose rules hold."""
        return self.view.release

    @property
    def version(self) -> tuple[int, int, int] | None:
        """Its number."""
        return None if self.view.release is None else self.view.release.version

    @property
    def home(self) -> Place:
        """Where to point at a server as a whole: its service or command; in Kubernetes and the like its image."""
        if self.server.image is not None and self.server.form not in ("compose", "docker-run", "systemd"):
            return self.server.image.place
        return self.server.place

    def at(self, *names: str) -> Value | None:
        """The value of the first of these flags that the file sets."""
        return next((given.value for name in names if (given := self.view.get(name)) is not None), None)

    def sure(self, *names: str) -> bool:
        """Whether these flags and (in capitals) variables are each known, given or left out."""
        for name in names:
            if name.isupper():
                value = self.view.env.get(name)
                if not (self.view.complete if value is None else value.known):
                    return False
                continue
            given = self.view.get(name)
            if given is None and not self.view.complete:
                return False
            if given is not None and given.typed is None:
                return False
        return True

    def variable(self, name: str) -> Value | None:
        """A variable the file sets, unless the image alone does."""
        value = self.view.env.get(name)
        return value if value is not None and value.origin != "image" else None


class Hit(NamedTuple):
    """What a rule found."""

    at: Value | Place
    """Where."""
    message: str
    """The cause, one sentence."""
    step: str = ""
    """What to do about it."""
    severity: Severity | None = None
    """When it is not the rule's own."""
    fix: Fix | None = None
    """A change that cannot alter the meaning."""
    once: Once = ""
    """Where saying it once is enough."""


Hits = Iterator[Hit]
Check = Callable[[Case], Hits]


class Rule(NamedTuple):
    """One rule."""

    code: str
    """`TGI104`."""
    severity: Severity
    """How bad it usually is."""
    title: str
    """A few words."""
    check: Check
    """The function."""
    refusals: tuple[str, ...] = ()
    """Codes of the refusals it reports, where it reports TGI's own."""
    defects: tuple[str, ...] = ()
    """Kinds of `Defect` it reports, where it reports those of the file."""

    @property
    def doc(self) -> str:
        """The docstring of the check, without its indentation."""
        from inspect import cleandoc

        return cleandoc(self.check.__doc__ or "")

    def findings(self, case: Case) -> Iterator[Finding]:
        """What the rule has to say about a case; where it fails itself, one finding that says so."""
        try:
            for hit in self.check(case):
                yield finding(self, hit, case.server.name)
        except Exception as error:  # noqa: BLE001  (a defect of one rule costs what that rule had to say)
            message = f"{self.code} ({self.title}) was not judged, because of a defect of tgi-advisor: {said(error)}"
            yield finding(RULES[FAILED], Hit(case.home, message, REPORT), case.server.name)


RULES: dict[str, Rule] = {}
"""Every rule by code."""
FAILED = "TGI590"
"""Code of the findings about a defect of ours."""
REPORT = "please report it; everything else was judged"
"""What to do about such a defect."""


def said(error: Exception) -> str:
    """An exception on one line, cut short."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def rule(code: str, severity: Severity, title: str, *refusals: str) -> Callable[[Check], Check]:
    """Register a rule; `refusals` are the codes of TGI's own refusals it foresees by itself."""

    def add(check: Check) -> Check:
        _register(Rule(code, severity, title, check, refusals=refusals))
        return check

    return add


Pointer = Callable[[Case], Value | Place | None]


Reads = Sequence[str] | Mapping[str, Sequence[str]]
"""Flags and (in capitals) variables that refusals look at; by refusal, where one rule has several that differ."""


def of_refusal(case: Case, pointer: Pointer, codes: Sequence[str], reads: Reads) -> Hits:
    """The first refusal of these codes of which all it looks at is known."""
    for refusal in case.refused:
        asked = reads.get(refusal.code, ()) if isinstance(reads, Mapping) else reads
        flash = case.view.env.get("USE_FLASH_ATTENTION")  # decides the class of every model
        if flash is not None and not flash.known and refusal.stage != "launcher":
            continue
        if refusal.code in codes and case.sure(*asked):
            step = "; or ".join(_spelled(step.removeprefix("or ")) for step in refusal.next_steps)
            message = f"{refusal.why.rstrip('.')}: TGI stops with {_quoted(refusal.message)}"
            if OPEN in refusal.message:
                message += f" ({OPEN} stands for what depends on what is not known here)"
            at = pointer(case) or case.home
            unset = isinstance(at, Value) and not at.text and at.defaulted  # `${NAME:-}`: empty unless the host sets it
            yield Hit(at, message, step, "warning" if unset else None)
            return


def refused(
    code: str, title: str, *codes: str, reads: Reads = (), severity: Severity = "error"
) -> Callable[[Pointer], Pointer]:
    """Register a rule that reports refusals of TGI (`tgi_advisor.refusals`) at the place the function points at.

    `reads` are the flags and variables the refusals look at: where one of them cannot be known the rule is
    silent. The model and the GPU are none of them: of those that are not known, refusals hold for all there are.
    """

    def add(pointer: Pointer) -> Pointer:
        def check(case: Case) -> Hits:
            yield from of_refusal(case, pointer, codes, reads)

        check.__doc__, check.__name__ = pointer.__doc__, pointer.__name__
        _register(Rule(code, severity, title, check, refusals=codes))
        return pointer

    return add


def defect(code: str, severity: Severity, title: str, *kinds: str) -> Callable[[Check], Check]:
    """Register a rule that reports defects the reader found in the file; the function only carries the docstring."""

    def add(check: Check) -> Check:
        _register(Rule(code, severity, title, check, defects=kinds))
        return check

    return add


def finding(rule: Rule, hit: Hit, server: str = "") -> Finding:
    """A hit as a finding."""
    place, length = (hit.at.place, hit.at.length) if isinstance(hit.at, Value) else (hit.at, 0)
    fix = hit.fix if hit.fix is not None and masked(hit.fix.old) == hit.fix.old else None
    severity, message, step = hit.severity or rule.severity, masked(hit.message), masked(hit.step)
    return Finding(rule.code, severity, place, length, message, step, masked(server), fix, hit.once)


def of_defect(found: Defect) -> Finding:
    """A defect of the file as a finding."""
    one = next(rule for rule in RULES.values() if found.kind in rule.defects)
    message, step = masked(found.message), masked(found.hint or "")
    return Finding(one.code, found.severity or one.severity, found.place, found.length, message, step)


def no_check(case: Case) -> Hits:  # noqa: ARG001
    """Yield nothing: for rules whose findings the reader makes."""
    return iter(())


def _register(one: Rule) -> None:
    if one.code in RULES:
        raise ValueError(f"{one.code} is taken twice")
    RULES[one.code] = one


_SPEC_WORDS = {
    "tgi.num_shard:": "--num-shard", "model.quantize:": "--quantize", "model.dtype": "--dtype",
    "model.quantize": "--quantize", "model.kv_cache_dtype": "--kv-cache-dtype", "tgi.num_shard": "--num-shard",
    "model.trust_remote_code: true": "--trust-remote-code", " in tgi.env": " in the environment",
    " under tgi.flags": "", "set tgi.release": "use release", "set max-batch-size": "set --max-batch-size",
}  # fmt: skip


def _spelled(step: str) -> str:
    """A next step in the words of a command line instead of a spec."""
    for spec, flag in _SPEC_WORDS.items():
        step = step.replace(spec, flag)
    return step


def _quoted(message: str) -> str:
    return f'"{message}"' if '"' not in message else message
