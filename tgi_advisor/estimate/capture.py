"""Whether the CUDA graphs fit what the KV cache leaves, and what TGI does where they do not.

They are captured last: a server has its KV cache by then and is about to be ready. What PyTorch's allocator refuses
is an OutOfMemoryError, which every release that captures logs and goes on after. What the driver refuses while it
instantiates a graph is another error, which ends the start from 2.0.0 on. Several shards run a pass together before
each capture: a shard that goes on without its graphs leaves the others waiting in it, until NCCL's timeout ends them.
A size that fails once its tables are made stays known to TGI, which then replays a graph that is not there.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1439-L1505
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1649-L1676
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1793-L1879
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/dist.py#L101-L107
"""

from typing import Literal, NamedTuple

from tgi_advisor.estimate import overhead, underload
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.units import human

Then = Literal["goes_on", "ends"]


class Capture(NamedTuple):
    """The verdict on the CUDA graphs of a server that starts."""

    outcome: Literal["fits", "may_not_fit"]
    """`may_not_fit`: less is left than they need with the estimate's own spread on top."""
    then: Then | None
    """The worst that happens where they do not fit: TGI logs it and `goes_on`, or its start `ends`; None: they fit."""
    needed_bytes: int
    """What they take on one GPU."""
    left_bytes: int
    """What is left for them beside everything loaded and a full KV cache; negative: nothing."""
    why: str
    """One against the other, and what happens then."""
    next_step: str | None
    """What to do about it; None where they fit."""


def judge(here: Base, seen: Warmup, spread: int) -> Capture | None:
    """The verdict on a warm-up that passed; `spread` is the estimate's own uncertainty in bytes.

    None where no graphs are captured, or the family reserves no KV cache: nothing is left over there.
    """
    if seen.budget is None or seen.stage is not None:
        return None
    needed = underload.graphs(here, seen)
    if not needed:
        return None
    left = _left(here, seen)
    why = f"{human(max(0, left))} left beside weights and a full KV cache; they take {human(needed)}"
    then = _then(here, left, needed, spread)
    if then is None:
        return Capture("fits", None, needed, left, why, None)
    why = f"{why}, give or take {human(spread)}. {_what_happens(here, then)}"
    step = "--cuda-graphs with fewer sizes, or 0 for none"
    if here.most + _driver(here) >= here.total:  # the card is what is full, not PyTorch's fraction of it
        step += "; or a smaller --cuda-memory-fraction"
    if here.captured and _driver(here) > here.captured.driver:
        step += f"; or driver {overhead.LEAN_GRAPHS} or newer, which keeps less for each graph"
    return Capture("may_not_fit", then, needed, left, why, step)


def may_end(here: Base, seen: Warmup, spread: int) -> bool:
    """Whether `judge` says that the graphs may end the start."""
    if seen.budget is None or seen.stage is not None:
        return False
    needed = underload.graphs(here, seen)
    return bool(needed) and _then(here, _left(here, seen), needed, spread) == "ends"


def _left(here: Base, seen: Warmup) -> int:
    """Bytes graphs may take: the card is one bound, the other holds for what PyTorch allocates of them."""
    return min(here.total, here.most + _driver(here)) - underload.idle(here, seen)


def _driver(here: Base) -> int:
    """What the driver keeps for the graphs, outside PyTorch; 0 where their capture is not replayed."""
    return overhead.graphs_in_driver(here.setting, here.captured) if here.captured else 0


def _then(here: Base, left: int, needed: int, spread: int) -> Then | None:
    """What happens at the worst where graphs may not fit; None where they fit."""
    if left >= needed + spread:
        return None
    if here.setting.num_shard > 1:
        return "ends"
    if here.setting.facts.release.graph_errors == "any":
        return "goes_on"
    driver = _driver(here)  # PyTorch's own share comes first: where even that is sure not to fit, PyTorch refuses
    return "goes_on" if driver and left + spread < needed - driver else "ends"


def _what_happens(here: Base, then: Then) -> str:
    """The same in words."""
    if then == "goes_on":
        return "TGI logs the error and gets ready, but requests may fail whose batch wants a size that failed"
    if here.setting.num_shard > 1:
        return "A shard that stops capturing ends the start: the driver's errors end it, or the others wait for it"
    return "What the driver refuses while it makes a graph is an error that TGI does not survive: the start ends"
