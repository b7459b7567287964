"""What a refusal is, and how a rule becomes one.

A rule is a function whose first paragraph is the reason people read; its decorator holds the releases
that refuse (inclusive) and where that was read. It returns the text TGI prints and what to do about it,
or None.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.families import Family
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits

Version = tuple[int, int, int]
Stage = Literal["launcher", "load", "warmup", "router"]
Found = tuple[str, tuple[str, ...]] | None
_FIRST: Version = (0, 0, 0)
_LAST: Version = (999, 0, 0)


class Refusal(NamedTuple):
    """TGI's answer to arguments it does not take."""

    stage: Stage
    """Where TGI notices: the launcher's argument check, loading, warm-up, or the router."""
    code: str
    """Our short name for it, e.g. `input-not-below-total`."""
    message: str
    """What TGI prints."""
    why: str
    """One or two sentences of explanation."""
    next_steps: tuple[str, ...]
    """What to do about it, most useful first."""
    source: str
    """Where it was read: path@tag:line in https://github.com/huggingface/text-generation-inference."""


class Case(NamedTuple):
    """What a rule may look at."""

    setting: Setting
    """The launch."""
    given: Limits
    """The limits the launcher is given."""
    limits: Limits
    """The limits as far as they are known: with the launcher's defaults, for the router those of the shards."""
    budget: int | None = None
    """max_batch_total_tokens inferred at warm-up; None before, and where nothing is inferred."""

    @property
    def family(self) -> Family:
        """How TGI holds the model."""
        return self.setting.family

    @property
    def release(self) -> TgiRelease:
        """The TGI release."""
        return self.setting.facts.release

    @property
    def system(self) -> str:
        """TGI's own name of the system (utils/import_utils.py): both Intel images are `ipex`."""
        return {"cpu": "ipex", "xpu": "ipex"}.get(self.setting.facts.gpu.system, self.setting.facts.gpu.system)

    @property
    def version(self) -> Version:
        """The release's number."""
        return self.release.version


Check = Callable[[Case], Found]


class Rule(NamedTuple):
    """One refusal: where and in which releases it holds, and the check."""

    stage: Stage
    """Where TGI notices."""
    code: str
    """Our short name for it."""
    since: Version
    """First release that refuses."""
    until: Version
    """Last release that refuses."""
    source: str
    """Where it was read."""
    check: Check
    """Returns TGI's text and the next steps, or None."""
    of_limits: bool = False
    """Whether it looks at token limits; the others are asked once a launch."""

    @property
    def why(self) -> str:
        """The first paragraph of the check's docstring, on one line."""
        return " ".join((self.check.__doc__ or "").partition("\n\n")[0].split())


def rule(
    register: list[Rule], stage: Stage, source: str, since: Version = _FIRST, until: Version = _LAST, *,
    of_limits: bool = False,
) -> Callable[[Check], Check]:  # fmt: skip
    """Put a check into a register under its own name; `S/` in `source` is server/text_generation_server/."""
    where = "server/text_generation_server/" + source[2:] if source.startswith("S/") else source

    def add(check: Check) -> Check:
        register.append(Rule(stage, check.__name__.replace("_", "-"), since, until, where, check, of_limits))
        return check

    return add


def refusal(one: Rule, said: tuple[str, tuple[str, ...]]) -> Refusal:
    """The refusal of a rule, of what its check said."""
    message, next_steps = said
    return Refusal(one.stage, one.code, message, one.why, next_steps, one.source)


def argument(text: str, *steps: str) -> Found:
    """A failed argument check as launcher and router print it (Rust's Debug form)."""
    return f'Error: ArgumentValidation("{text}")', steps
