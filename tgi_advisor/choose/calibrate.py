"""`calibrate`: what a running server reaches of its card's figures, from what it has done.

The mean decode step and the mean prefill are held to the roofline of `estimate/speed.py`: what remains when reductions
and the router are taken off is the reading of weights and KV cache, or the launch of the layers where no CUDA graph
holds the batch, and the computing of the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tgi_advisor.choose.words import wrapped
from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.speed import Server, cache_of, kv_cache
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts import families
from tgi_advisor.facts.speed import LARGEST, Calibration, constants
from tgi_advisor.metrics import Traffic
from tgi_advisor.safe import printable
from tgi_advisor.tabular import Answer, Column, Table

FEWEST_REQUESTS, FEWEST_STEPS = 20, 500
"""Answered requests, and decode steps, that a mean is taken of."""
COMPUTED = 1.5
"""Times the reading of the weights that a prefill has to take before it says how fast is computed."""
LEAST = 0.02
"""A share of a card's figures below which something else takes the time."""

SLOWEST = 0.25
"""Below the least share of the bandwidth that a public measurement with CUDA graphs reaches: 0.27, of 405 B parameters
on eight MI300X with prompts of 128k tokens (tests/data/speed.yaml). From there on reading alone explains a step."""


@dataclass(frozen=True, repr=False)
class Calibrated(Answer):
    """What a server was found to reach."""

    url: str
    """Its address."""
    what: str
    """Model, card and release."""
    traffic: Traffic
    """What it had done."""
    batch: float
    """Requests of a decode step, on average."""
    calibration: Calibration
    """What it reaches."""
    notes: tuple[str, ...]
    """What its traffic does not tell, and why."""

    def table(self) -> Table:
        """One row for each constant, with the one that is shipped."""
        shipped, found = constants(), self.calibration
        rows = (
            ("bandwidth", found.bandwidth, shipped.bandwidth, "share of the memory bandwidth"),
            ("compute", found.compute, shipped.compute, "share of the dense 16-bit FLOPS"),
            ("host", found.host, shipped.host, "seconds a layer takes to launch without CUDA graphs"),
        )
        return Table(COLUMNS, rows)

    def text(self, width: int) -> str:
        """What was read and what follows, as comments, and the file that --speed takes."""
        seen, step = self.traffic, self.traffic.decode_seconds / self.traffic.decodes
        lines = [
            f"{self.what}, read from {self.url}",
            f"{seen.requests:,} requests of {seen.prompt_tokens:,.0f} tokens in, {seen.answer_tokens:,.0f} out; "
            f"{seen.decodes:,} decode steps of {1000 * step:.1f} ms with {self.batch:.1f} requests each; "
            f"{seen.prefills:,} prefills of {1000 * seen.prefill_seconds / max(1, seen.prefills):.0f} ms",
        ]
        comments = [line for text in (*lines, *self.notes) for line in wrapped(text, width, "# ", "# ")]
        return "\n".join([*comments, *self._file()])

    def _file(self) -> list[str]:
        """The calibration as YAML."""
        import yaml

        row = {name: value for name, value in self.calibration._asdict().items() if value is not None}
        text = yaml.safe_dump([row], sort_keys=False, allow_unicode=True, width=1000)
        return str(text).rstrip("\n").split("\n")


COLUMNS = (
    Column("constant", "CONSTANT", "text", "Its name in the file."),
    Column("measured", "MEASURED", "figure", "What the server reaches; empty where its traffic does not tell."),
    Column("shipped", "SHIPPED", "figure", "What is used without a measurement."),
    Column("about", "OF", "text", "What it is."),
)


def calibrate(here: Base, seen: Traffic, url: str, date: str) -> Calibrated:
    """What a server of this launch reaches; FactsError where it has not done enough, or what no such card can."""
    setting, gpu = here.setting, here.setting.facts.gpu
    _enough(seen, url)
    if not gpu.bandwidth or not gpu.fp16_tflops:
        raise FactsError(f"the speed of {gpu.name} is not known", "Name a card of the table: `tgi-advisor gpus`.")
    if setting.speculate:
        raise FactsError("it speculates", "TGI does not say how many tokens a step made: measure it without.")
    if families.experts(setting.facts.model):
        raise FactsError(
            f"{setting.facts.model.id} is a mixture of experts",
            "How many of its experts a step reads depends on what is asked, and TGI does not say it: measure another.",
        )
    if setting.num_shard > 1 and constants().link(gpu) is None:
        raise FactsError(
            f"how fast several {gpu.name} add up what each has computed is not known",
            "Measure a server on one of them.",
        )
    server = Server(here, constants())
    batch = _batch(seen, chunking=setting.chunking)
    bandwidth, host = _decoding(server, seen, batch)
    compute, why = _prefilling(server, seen, bandwidth or constants().bandwidth)
    what = f"{setting.facts.model.id} on {setting.facts.gpu_count} x {gpu.name}, TGI {setting.facts.release}"
    done = f"{printable(url)}: {what}, {seen.requests} requests, {seen.decodes} decode steps"
    found = Calibration(
        gpu.name, setting.num_shard, setting.quantize or "none", setting.chunking, date, done, bandwidth, compute, host,
        kv_cache(setting),
    )  # fmt: skip
    return Calibrated(url, what, seen, batch, found, tuple(filter(None, (why, _mixed(here, seen), _slow(found)))))


def _slow(found: Calibration) -> str:
    """That a server reaches less of its card than any that was measured; empty where it does not."""
    if found.bandwidth is None or found.bandwidth >= SLOWEST:
        return ""
    share = f"{100 * found.bandwidth:.0f} % of the bandwidth of {found.gpu}"
    return f"it reaches {share}, less than any server that was measured in public: is that the card?"


def _mixed(here: Base, seen: Traffic) -> str:
    """That decode steps compute prompts too, where those are longer than a chunk; empty where they do not."""
    setting = here.setting
    chunk = defaults.launcher_limits(setting, defaults.given_limits(setting)).max_batch_prefill_tokens
    if not setting.chunking or chunk is None or seen.prompt_tokens <= chunk:
        return ""
    return f"prompts are longer than a prefill of {chunk:,} tokens, so that decode steps compute the rest: it is faster"


def _enough(seen: Traffic, url: str) -> None:
    """FactsError unless the server has done enough to take means of."""
    load = "Send it the traffic that is planned for it (text-generation-benchmark does), and ask again."
    if not seen.requests or not seen.decodes or not seen.decode_seconds:
        raise FactsError(f"{url} has answered no request yet", load)
    if seen.requests < FEWEST_REQUESTS or seen.decodes < FEWEST_STEPS:
        done = f"{seen.requests} request{'s' if seen.requests > 1 else ''} in {seen.decodes} decode steps"
        raise FactsError(
            f"{url} has answered only {done}", f"At least {FEWEST_REQUESTS} and {FEWEST_STEPS} are taken. {load}"
        )


def _batch(seen: Traffic, *, chunking: bool) -> float:
    """Requests of a decode step: the tokens that steps have made for each of them.

    A prefill makes the first token of its own prompts; where prefills are chunked it makes one for each request that
    is running, too.
    """
    tokens = seen.requests * seen.answer_tokens
    if chunking:
        return max(1.0, tokens / (seen.decodes + seen.prefills))
    return max(1.0, (tokens - seen.requests) / seen.decodes)


def _decoding(server: Server, seen: Traffic, batch: float) -> tuple[float | None, float | None]:
    """(share of the bandwidth, seconds of a layer's launch): the one that decoding waits for.

    FactsError where a step is faster than the card reads, and where either may be what it waits for.
    """
    step, setting = seen.decode_seconds / seen.decodes, server.here.setting
    reductions = server.reductions(batch)
    busy = step - reductions - constants().step
    least = server.read(batch, cache_of(server.here, seen.prompt_tokens, seen.answer_tokens)) / server.bandwidth
    gpu = setting.facts.gpu.name
    if busy < least:
        added = (
            f"{1000 * reductions:.2f} ms in which {setting.num_shard} shards add up and "
            if setting.num_shard > 1
            else ""
        )
        raise FactsError(
            f"a decode step takes {1000 * step:.2f} ms; {added}{1000 * constants().step:g} ms of router and sampling "
            f"leave {1000 * max(0.0, busy):.2f} ms, and reading the weights and the KV cache of {batch:.1f} requests "
            f"alone takes {1000 * least:.2f} ms on {gpu}",
            "Is that the card, their number (--count) and the model of this server? --gpu and --set say otherwise.",
        )
    share = least / busy
    if server.launched(batch):
        host = busy / server.here.geometry.layers
        if share >= SLOWEST:
            largest = max(setting.graph_sizes, default=0)
            graphs = f"more than its largest CUDA graph, of {largest}" if largest else "without CUDA graphs"
            raise FactsError(
                f"a decode step takes {1000 * step:.1f} ms with {batch:.1f} requests, {graphs}: reading at "
                f"{100 * share:.0f} % of the bandwidth of {gpu} explains that, and so does launching "
                f"{server.here.geometry.layers} layers in {1000 * host:.2f} ms each, so that neither is measured",
                f"Send it no more than {largest} requests at a time, and ask again."
                if largest
                else "A server that captures CUDA graphs tells.",
            )
        return None, round(min(host, LARGEST["host"]), 6)
    if share < LEAST:
        raise FactsError(
            f"a decode step takes {1000 * step:.1f} ms, {1 / share:.0f} times what the bandwidth of {gpu} allows",
            "Something else takes the time: is the card shared, or another one than that?",
        )
    return round(share, 3), None


def _prefilling(server: Server, seen: Traffic, bandwidth: float) -> tuple[float | None, str]:
    """(share of the FLOPS, why there is none)."""
    if not seen.prefills or not seen.prompts or not seen.prompt_tokens:
        return None, "it says nothing of its prefills"
    if server.here.setting.prefix_caching:
        why = "prefills are not taken: TGI caches prefixes, and does not say how many tokens it did not compute"
        return None, why
    tokens = seen.prompts / seen.prefills * seen.prompt_tokens
    busy = seen.prefill_seconds / seen.prefills - server.reductions(tokens) - constants().step
    flops = seen.prompts / seen.prefills * server.prompt_flops(seen.prompt_tokens)
    reading = server.work.read(tokens) / (server.bandwidth * bandwidth)
    if busy < COMPUTED * reading:
        return None, f"prefills are not taken: of {tokens:,.0f} tokens they hardly take longer than a decode step"
    share = flops / (server.peak * busy)
    if not LEAST <= share <= LARGEST["compute"]:
        return None, f"prefills are not taken: they would reach {100 * share:,.0f} % of the card's FLOPS"
    return round(share, 3), ""
