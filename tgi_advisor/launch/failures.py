"""Why a start failed, from TGI's log and the container's last state: the cause, the lines that prove it, what to do.

Pure. Message texts: launcher/src/main.rs and server/text_generation_server of TGI 1.0.0 to 3.3.7, PyTorch, NCCL,
huggingface_hub and clap as they appear in TGI's logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tgi_advisor import logs
from tgi_advisor.errors import Exit
from tgi_advisor.launch.preflight import size
from tgi_advisor.launch.watch import Step
from tgi_advisor.plan import Container, Plan
from tgi_advisor.units import GiB, human, thousands

Where = Literal["docker", "kubernetes"]
PROOF_LINES = 4
LINE_WIDTH = 400

Cause = Literal[
    "out_of_memory_at_warmup", "out_of_memory_at_load", "gated", "not_found", "disk_full", "shared_memory", "nccl",
    "no_gpu", "refused", "prometheus_port", "port", "model_type", "weights", "killed", "removed", "exited", "stopped",
    "engine", "probe", "image", "secret", "pod_refused", "evicted",
]  # fmt: skip
OF_THE_PLACE = frozenset({"stopped", "engine", "probe", "image", "secret", "pod_refused", "evicted"})
"""Causes that say nothing about the plan, and are not remembered."""


@dataclass(frozen=True)
class Failure:
    """Why a server did not come up."""

    cause: Cause
    """The kind of failure."""
    message: str
    """What happened, in one sentence."""
    next_steps: tuple[str, ...]
    """What to do about it, most useful first."""
    proof: tuple[str, ...]
    """The lines of the log that say so."""
    exit: Exit
    """The exit code it ends with."""
    out_of_memory: logs.OutOfMemory | None = None
    """PyTorch's figures, where it printed them."""


@dataclass(frozen=True)
class State:
    """A server as its place sees it."""

    running: bool
    """Whether it runs, or is still to start."""
    exit_code: int | None = None
    """What it ended with."""
    oom_killed: bool = False
    """Whether the host's memory ran out."""
    there: bool = True
    """Whether it has not been removed."""
    waiting: Step | None = None
    """What it waits for before it can start."""
    failure: Failure | None = None
    """What the place itself knows to be wrong; its proof and next steps, where the log has no better ones."""


@dataclass(frozen=True)
class Context:
    """What a next step may be computed from."""

    plan: Plan
    """What was planned."""
    container: Container
    """What ran."""
    text: str
    """The log."""
    state: State
    """How the server ended."""
    token_given: bool
    """Whether a Hub token went in."""
    where: Where = "docker"
    """What it ran on."""
    at: str = ""
    """Options with which kubectl asks the namespace it ran in."""


@dataclass(frozen=True)
class _Rule:
    cause: Cause
    exit: Exit
    pattern: re.Pattern[str]
    message: str
    steps: Callable[[Context], tuple[str, ...]]


def diagnose(here: Context) -> Failure:
    """The cause of a failed start; of several the one that explains the others."""
    memory = _out_of_memory(here)
    if memory:
        return memory
    for rule in _RULES:
        if proof := tuple(_proof(here.text, rule.pattern)):
            match = rule.pattern.search(here.text)
            words = {key: value or "" for key, value in match.groupdict().items()} if match else {}
            return Failure(rule.cause, rule.message.format(**words), rule.steps(here), proof, rule.exit)
    return here.state.failure or _by_state(here)


def with_the_engine(failure: Failure, state: State) -> Failure:
    """The failure of a server while whose watch the engine went away and came back: that is why, if nothing else is."""
    if failure.cause not in ("exited", "killed"):
        return failure
    return Failure(
        "engine",
        f"the Docker Engine went away and came back, and the server ended with it (exit code {state.exit_code})",
        ("Launch again: what is downloaded stays.",), failure.proof, Exit.ENGINE,
    )  # fmt: skip


def _out_of_memory(here: Context) -> Failure | None:
    """Out of memory at load or at warm-up; None for anything else."""
    seen = logs.start_up(here.text)
    if seen.phase is logs.Phase.READY:
        return None
    memory = seen.out_of_memory
    proof = tuple(_proof(here.text, _WARMUP_OOM)) + tuple(_proof(here.text, _OOM))
    warming = seen.phase is logs.Phase.WARMUP
    if not proof or not (memory or (warming and _WARMUP_OOM.search(here.text))):
        return None
    figures = f" ({human(memory.tried)} more were asked for" if memory else ""
    if memory and memory.free is not None:
        figures += f", {human(memory.free)} were free"
    figures += ")" if figures else ""
    proof = proof[:PROOF_LINES]
    if warming:
        prefill = here.plan.prediction.limits.max_batch_prefill_tokens
        tokens = f" of {thousands(prefill)} tokens" if prefill else ""
        return Failure(
            "out_of_memory_at_warmup",
            f"out of memory: the GPU does not hold the warm-up prefill{tokens}{figures}",
            ("Lower limits.max_batch_prefill_tokens and max_total_tokens, or raise hardware.headroom and launch again.",
             *_others(here)),
            proof, Exit.OUT_OF_MEMORY, memory,
        )  # fmt: skip
    return Failure(
        "out_of_memory_at_load",
        f"out of memory while loading: the GPU does not hold the weights{figures}",
        ("Use more or larger GPUs, or a quantized checkpoint: no token limit helps while the weights do not fit.",
         *_others(here)),
        proof, Exit.OUT_OF_MEMORY, memory,
    )  # fmt: skip


def _others(here: Context) -> tuple[str, ...]:
    """What to say of other processes on the GPU, when PyTorch's figures show some."""
    memory = logs.out_of_memory(here.text)
    if memory is None or None in (memory.capacity, memory.free, memory.in_use):
        return ()
    elsewhere = (memory.capacity or 0) - (memory.free or 0) - (memory.in_use or 0)
    if elsewhere < GiB:
        return ()
    return (f"Other processes hold {human(elsewhere)} of this GPU: stop them, or say so in hardware.in_use.",)


def _proof(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """The lines that match, each once, cut to a readable width."""
    seen: set[str] = set()
    for line in text.splitlines():
        if pattern.search(line):
            short = line.strip()[:LINE_WIDTH]
            bare = re.sub(r"^\S+Z\s+", "", short)
            if bare not in seen:
                seen.add(bare)
                yield short
                if len(seen) == PROOF_LINES:
                    return


_WARMUP_OOM = re.compile(r"Not enough memory to handle \d{1,20} prefill tokens|UnboundLocalError.{0,300}'num_tokens'")
_OOM = re.compile(r"(?:CUDA|HIP|XPU) out of memory")


def _gated(here: Context) -> tuple[str, ...]:
    model = here.plan.facts.model.id
    caller = next(iter(here.container.secret_env.values()), here.plan.spec.container.token_env)
    if here.where == "kubernetes":
        return (
            f"Put a Hub token, of an account that has accepted the licence at https://huggingface.co/{model}, into the "
            f"Secret: `tgi-advisor emit --format kubernetes` begins with the command ({caller}).",
        )
    if here.token_given:
        return (f"Accept the licence at https://huggingface.co/{model} with the account of the token in {caller}.",)
    return (
        f"Export a Hub token in {caller}, of an account that has accepted the licence at "
        f"https://huggingface.co/{model}.",
    )


def _not_found(here: Context) -> tuple[str, ...]:
    hidden = "" if here.token_given else " A private repository also needs a token."
    return (f"Check model.id and model.revision at https://huggingface.co/{here.plan.facts.model.id}.{hidden}",)


def _disk(here: Context) -> tuple[str, ...]:
    cache = here.container.mounts[0].source
    if here.where == "kubernetes":
        return (
            f"The weights take {human(here.container.weights_bytes)}; enlarge the claim (`kubectl edit pvc "
            f"{here.container.name}-data {here.at}`, where its storage class allows that), or look at the node's "
            "ephemeral storage.",
        )
    return (
        f"The weights take {human(here.container.weights_bytes)}; make room where {cache} lies, or name another "
        "folder in container.cache. What is downloaded stays and is not fetched again.",
    )


def _shm(here: Context) -> tuple[str, ...]:
    now = here.container.shm_size
    more = max(1, 2 * size(now) // GiB)
    return (
        f"Shared memory has {now}: set container.shm_size to {more}g, or tgi.env.NCCL_SHM_DISABLE to '1' (slower).",
    )


def _no_gpu(here: Context) -> tuple[str, ...]:
    return (
        f"Look at `kubectl describe node {here.at}`: the GPU's device plugin must offer what the pod asks for."
        if here.where == "kubernetes"
        else "Look at `docker run --rm --gpus all IMAGE nvidia-smi`: the container must list the GPUs.",
        "A driver older than the image's CUDA must be renewed (TGI 3 needs CUDA 12.4).",
    )


def _say(*steps: str) -> Callable[[Context], tuple[str, ...]]:
    return lambda _: steps


def _rule(cause: Cause, end: Exit, pattern: str, message: str, steps: Callable[[Context], tuple[str, ...]]) -> _Rule:
    return _Rule(cause, end, re.compile(pattern, re.MULTILINE), message, steps)


_RULES = (
    _rule(
        "gated", Exit.ACCESS,
        r"GatedRepoError|Cannot access gated repo|Access to model \S{1,300} is restricted|40[13] Client Error",
        "the Hub does not give out this model: it is gated, or the token is wrong", _gated,
    ),
    _rule(
        "not_found", Exit.ACCESS, r"RepositoryNotFoundError|RevisionNotFoundError|404 Client Error",
        "the Hub does not know this model or revision", _not_found,
    ),
    _rule(
        "disk_full", Exit.FAILED, r"\[Errno 28\]|No space left on device|Not enough free disk space",
        "the disk is full", _disk,
    ),
    _rule(
        "shared_memory", Exit.FAILED, r"shared memory segment /dev/shm/nccl-|failed to extend /dev/shm/nccl-",
        "shared memory is too small for the shards to talk through", _shm,
    ),
    _rule(
        "no_gpu", Exit.FAILED,
        r"Found no NVIDIA driver|No CUDA GPUs are available|CUDA driver version is insufficient|libcuda\.so\.1: cannot"
        r"|no NVIDIA GPU device is present|No HIP GPUs are available|`num_shard` \d{1,9}.{0,300} larger than"
        r"|CUDA error: no CUDA",
        "the server sees no GPU it can use",
        _no_gpu,
    ),
    _rule(
        "nccl", Exit.FAILED, r"DistBackendError|ncclSystemError|ncclUnhandledCudaError|NCCL error",
        "NCCL failed between the shards",
        _say(
            "Set tgi.env.NCCL_DEBUG to INFO and launch again: NCCL then says which link failed.",
            "Without NVLink, tgi.env.NCCL_P2P_DISABLE set to \"1\" often helps.",
        ),
    ),
    _rule(
        "model_type", Exit.REFUSED, r"Unsupported model type(?: (?P<type>\S{1,200}))?",
        "this release of TGI does not know the model's type {type}",
        _say("Use a release that knows it (`tgi-advisor releases`), or another model."),
    ),
    _rule(
        "prometheus_port", Exit.FAILED, r"failed to build prometheus recorder",
        "the router's Prometheus port is taken",
        _say("Set tgi.flags.prometheus-port to a free port, or take the container off the host's network."),
    ),
    _rule(
        "port", Exit.FAILED, r"Address already in use|os error 98",
        "a port the server needs is taken inside its network",
        _say("Give each server of a shared network its own port, prometheus-port and master-port."),
    ),
    _rule(
        "refused", Exit.REFUSED,
        r"^error: (?P<clap>.{0,400})|ArgumentValidation\(\"?(?P<launcher>[^\")]{0,400})"
        r"|^Error: (?P<router>(?:invalid|`max_|`num_shard|`sharded).{0,400})|Validation\((?P<check>[^)]{0,400})\)",
        "TGI refused its arguments: {clap}{launcher}{router}{check}",
        _say("Change or remove the argument; `tgi-advisor flags --release X.Y.Z` lists what the release knows."),
    ),
    _rule(
        "weights", Exit.FAILED,
        r"No \.bin weights found|No safetensors weights found for model .{0,300}offline"
        r"|weight (?P<name>\S{1,300}) does not exist|uninitialized parameters in model",
        "the checkpoint does not hold what the model needs {name}",
        _say("Check model.id, model.revision and model.quantize: the files belong to another architecture or format."),
    ),
)  # fmt: skip
_KILLED = re.compile(r"was signaled to shutdown with signal (?P<signal>\d+)")


def _by_state(here: Context) -> Failure:
    """What the container's end tells, when the log names no cause."""
    last = tuple(line.strip()[:LINE_WIDTH] for line in here.text.splitlines() if line.strip())[-PROOF_LINES:]
    code = here.state.exit_code
    killed = _KILLED.search(here.text)
    if here.state.oom_killed or (killed and killed["signal"] == "9") or code == 137:
        proof = tuple(_proof(here.text, _KILLED)) or last
        who = "for want of host memory" if here.state.oom_killed else "with signal 9; mostly for want of host memory"
        return Failure(
            "killed", f"the host killed the server {who}",
            ("See `dmesg` for `Out of memory`; loading needs host memory for a shard's largest file at a time.",
             "Raise the memory limit of the container or add swap; fewer shards load fewer files at once."),
            proof, Exit.OUT_OF_MEMORY if here.state.oom_killed else Exit.FAILED,
        )  # fmt: skip
    if not here.state.there:
        return Failure("removed", "somebody else removed the container", ("Launch again.",), last, Exit.FAILED)
    failure = logs.start_up(here.text).failure
    reason = f": {failure.splitlines()[0][:LINE_WIDTH]}" if failure else ""
    return Failure(
        "exited", f"the server ended with exit code {code}{reason}",
        ("The last lines say where; `tgi-advisor launch --logs` shows all of them.",), last, Exit.FAILED,
    )  # fmt: skip
