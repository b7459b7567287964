"""Rules of thumb for what nobody has a checkpoint of: an article's and a calculator's, as they print them.

Both leave out what TGI does: it holds an embedding of its own size, a prefill, CUDA's context, graphs and a reserve,
and a model with grouped queries has a KV cache many times smaller than its hidden size says. Each answer says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgi_advisor import tabular
from tgi_advisor.choose.words import wrapped
from tgi_advisor.errors import UsageError
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import GB

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMbBtT]?)")
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
LEAST, MOST = 10**5, 10**14
"""Parameters below which a number without a unit, and beyond which any number is a slip."""


@dataclass(frozen=True)
class Shape:
    """What is known of a model."""

    parameters: float
    """How many it has."""
    bits: float = 16
    """Bits of a weight."""
    layers: int | None = None
    """Layers; None where nobody said."""
    hidden: int | None = None
    """Width of the residual stream; None where nobody said."""


@dataclass(frozen=True, repr=False)
class Rough(Answer):
    """What a load takes by rules of thumb, in bytes."""

    shape: Shape
    """The model."""
    users: int
    """Requests at once."""
    tokens: int
    """Tokens of each."""
    rows: tuple[tuple[str, str, int], ...]
    """Rule, part, bytes."""
    cards: tuple[GpuFacts, ...] = ()
    """GPUs of which so many are counted as hold it."""
    counts: tuple[int, ...] = ()
    """How many of them one server may have."""

    def table(self) -> Table:
        """One row for every part of every rule, then one for every rule and GPU."""
        told = {**ABOUT, PRINTED_FOR: f"{ABOUT[PRINTED_FOR]}. {PRINTED}"}
        parts = [(rule, part, size, None, None, told[rule, part]) for rule, part, size in self.rows]
        held = [
            (rule, "GPUs", card.memory_bytes * (count or 0) or None, card.name, count, "")
            for card in self.cards
            for rule, count in self._needed(card).items()
        ]
        return Table(COLUMNS, (*parts, *held))

    def _needed(self, card: GpuFacts) -> dict[str, int | None]:
        """How many of a GPU hold what each rule says; None for more than one server may have."""
        together = {rule: size for rule, part, size in self.rows if part == "together"}
        return {
            rule: next((count for count in sorted(self.counts) if count * card.memory_bytes >= size), None)
            for rule, size in together.items()
        }

    def text(self, width: int) -> str:
        """The rules side by side, what TGI does, how many GPUs that is, and what all of it leaves out."""
        rows = tuple((rule, part, f"{size / GB:,.2f} GB", ABOUT[rule, part]) for rule, part, size in self.rows)
        shown = Table((*COLUMNS[:2], Column("size", "BYTES", "text", ""), COLUMNS[-1]), rows)
        head = f"Rules of thumb for {self.shape.parameters / 1e9:g} B parameters, {self.users} x {self.tokens:,} tokens"
        lines = [*wrapped(head, width), "", tabular.text(shown, width), ""]
        if self.cards:
            rules = list(self._needed(self.cards[0]))
            most = max(self.counts)
            held = Table(
                (Column("gpu", "GPU", "text", ""), Column("memory", "MEMORY GiB", "bytes", ""),
                 *(Column(rule, f"GPUS, {rule.upper()}", "text", "") for rule in rules)),
                tuple(
                    (card.name, card.memory_bytes,
                     *(str(count or f"more than {most}") for count in self._needed(card).values()))
                    for card in self.cards
                ),
            )  # fmt: skip
            lines += [tabular.text(held, width), ""]
        if PRINTED_FOR in {(rule, part) for rule, part, _ in self.rows}:
            lines += wrapped(PRINTED, width)
        return "\n".join([*lines, *wrapped(NOTE, width)])


COLUMNS = (
    Column("rule", "RULE", "text", "Whose it is."),
    Column("part", "PART", "text", "What takes the memory, or `GPUs` for how many of one hold it."),
    Column("bytes", "BYTES", "bytes", "How much of it; of GPUs what they have."),
    Column("gpu", "GPU", "text", "The GPU."),
    Column("gpus", "GPUS", "count", "How many of it hold what the rule says; empty for more than one server may have."),
    Column("about", "WHAT TGI DOES", "text", "What TGI does instead, and what the rule's own source prints otherwise."),
)
_STORED = "holds what the checkpoint stores; each shard what is not split as well"
ABOUT = {
    ("article", "weights"): _STORED,
    ("article", "KV cache"): "the same where every head has keys of its own; with grouped queries a fraction",
    ("article", "beside"): "measures a whole prefill, and keeps up to a tenth of each GPU",
    ("article", "together"): "gives the KV cache what is left of each GPU",
    ("calculator", "weights"): _STORED,
    ("calculator", "KV cache"): "layers and heads decide, not parameters",
    ("calculator", "overhead"): "the driver's share, a context and CUDA graphs on each GPU; measures the prefill",
    ("calculator", "together"): "gives the KV cache what is left of each GPU",
}
"""What TGI does in the place of each part."""
PRINTED_FOR = ("article", "together")
"""The part of which the article itself prints another figure."""
PRINTED = (
    "The article prints 101.2 GB for its example (LLaMA 13B, ten users with 2,000 tokens each), which does not follow "
    "from its own parts: 26 + 16 + 9.2 are 51.2 GB. The sum of the parts is given."
)
"""What is to say of that figure."""
NOTE = (
    "Rules of thumb, with no GPU and no release in them. TGI reserves a KV cache at its start, of what the weights and "
    "a whole prefill leave of each GPU, and a model with grouped queries needs a fraction of the cache its hidden size "
    "suggests: `tgi-advisor size --model` computes it from the checkpoint."
)


def parameters(text: str) -> float:
    """The number in `13B`, `345M` or `13000000000`; UsageError for anything else, and for one no model has."""
    found = _PARAMETERS.fullmatch(text.strip())
    count = float(found[1]) * _SCALE[found[2].lower()] if found else 0.0
    if found and not found[2] and count < LEAST:
        raise UsageError(f"a model of {text.strip()} parameters?", f"Write {text.strip()}B for billions of them.")
    if not 0 < count <= MOST:
        raise UsageError(f"{text!r} is no number of parameters", "Write 13B, 345M or 1.5T.")
    return count


def weights(shape: Shape) -> float:
    """Bytes of the weights: parameters times bits. LLaMA 13B at 16 bits: 26 GB, GPT-3 350 GB, 345M 690 MB."""
    return shape.parameters * shape.bits / 8


def kv_per_token(layers: int, hidden: int) -> int:
    """Bytes of the KV cache of one token by the article: a key and a value of `hidden` in 16 bits for every layer.

    LLaMA 13B (40 layers, 5,120 wide): 819,200 bytes, 800 KB in the article's units. It is so for TGI where every query
    head has keys of its own; grouped queries divide it by their group.
    """
    return 2 * layers * hidden * 2


def calculator_cache(context: int, count: float) -> float:
    """Bytes of the KV cache by the web calculator: 1.5 GB for 7 B parameters and 4k tokens, and in proportion.

    The sizes of a model's layers and heads decide, not its parameters: Llama 3.1 8B has 0.5 GiB for 4k tokens.
    """
    return (context / 1024 / 4) * (count / 1e9 / 7) * 1.5 * GB


CALCULATOR_OVERHEAD = 1.5 * GB
"""What the calculator adds for CUDA and the framework."""
ARTICLE_OVERHEAD = 9.2 / (26 + 16)
"""Activations and overheads of the article's example, as a share of weights and cache: 9.2 GB of 42. Its text says 5 to
10 % and 20 to 30 %, its sum 101.2 GB; the parts it gives are 51.2."""


def estimate(
    shape: Shape, users: int, tokens: int, cards: Sequence[GpuFacts] = (), counts: Sequence[int] = ()
) -> Rough:
    """What so many users with so many tokens take, by both rules; by the article's only where the shape is known.

    Of the `cards` it says how many of the `counts` hold it.
    """
    held = round(weights(shape))
    rows: list[tuple[str, str, int]] = []
    if shape.layers and shape.hidden:
        cache = users * tokens * kv_per_token(shape.layers, shape.hidden)
        beside = round(ARTICLE_OVERHEAD * (held + cache))
        rows += [("article", "weights", held), ("article", "KV cache", cache), ("article", "beside", beside)]
        rows.append(("article", "together", held + cache + beside))
    cached = round(users * calculator_cache(tokens, shape.parameters))
    over = round(CALCULATOR_OVERHEAD)
    rows += [("calculator", "weights", held), ("calculator", "KV cache", cached), ("calculator", "overhead", over)]
    rows.append(("calculator", "together", held + cached + over))
    return Rough(shape, users, tokens, tuple(rows), tuple(cards), tuple(counts))
