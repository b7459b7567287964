"""TGI110-TGI129: the token limits against each other, and the other counts. All are TGI's own refusals."""

from __future__ import annotations

from tgi_advisor.facts import families
from tgi_advisor.units import thousands
from tgi_advisor.validate.catalogue import about
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, refused, rule

_INPUT = ("max-input-tokens", "max-input-length")
_LIMITS = (*_INPUT, "max-total-tokens")
_PREFILL = {
    **dict.fromkeys(
        ("prefill-below-input-length", "prefill-below-input-tokens"),
        (*_INPUT, "max-batch-prefill-tokens", "max-batch-size"),
    ),
    "prefill-below-input-unchunked": (*_INPUT, "max-batch-prefill-tokens", "ATTENTION", "PREFILL_CHUNKING"),
}
_NGROK = {"ngrok-incomplete": ("ngrok", "ngrok-authtoken", "ngrok-edge"), "ngrok-dead": ("ngrok",)}


@refused(
    "TGI110", "max_input_tokens is not below max_total_tokens",
    "input-length-not-below-total", "input-tokens-not-below-total", "input-not-below-total",
    "input-not-below-total-resolved", reads=_LIMITS,
)  # fmt: skip
def input_not_below_total(case: Case) -> Value | None:
    """max_total_tokens is the prompt and the answer together, so the prompt must leave room for one token.

    From 2.0.0 to 2.4.0 a limit that is left out counts with its default, which comes from the model and
    not from the other limit: `--max-total-tokens 2048` alone is refused there.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 4096 --max-total-tokens 4096

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3072 --max-total-tokens 4096
    """
    return case.at("max-input-tokens", "max-input-length", "max-total-tokens")


@refused(
    "TGI111", "max_batch_prefill_tokens is below max_input_tokens",
    "prefill-below-input-length", "prefill-below-input-tokens", "prefill-below-input-unchunked",
    reads=_PREFILL,
)  # fmt: skip
def prefill_below_input(case: Case) -> Value | None:
    """Without chunked prefill one prefill must hold the longest prompt.

    Until 2.3.1 the launcher itself refuses, given or default (4096 in 1.x, max_input_tokens + 50 in 2.x).
    From 2.4.0 on the router refuses after the whole load, unless prefills are chunked: they are not with
    paged attention, with speculation, for most vision models and on the transformers fallback.

    Failing::

        tgi:2.3.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3072 --max-total-tokens 4096 --max-batch-prefill-tokens 2048

    Fixed::

        tgi:2.3.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3072 --max-total-tokens 4096 --max-batch-prefill-tokens 3072
    """  # noqa: E501
    return case.at("max-batch-prefill-tokens", *_INPUT)


@refused(
    "TGI112", "max_batch_total_tokens is below max_total_tokens", "total-above-batch-total",
    reads=("max-total-tokens", "max-batch-total-tokens"),
)  # fmt: skip
def batch_total_below_total(case: Case) -> Value | None:
    """A given max_batch_total_tokens must hold one request of full length.

    The launcher checks it even for models whose server ignores it: flash attention models measure the
    budget at warm-up. Leaving it out is always right for them.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3072 --max-total-tokens 4096 --max-batch-total-tokens 2048

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3072 --max-total-tokens 4096
    """  # noqa: E501
    return case.at("max-batch-total-tokens", "max-total-tokens")


@refused(
    "TGI113", "max_batch_total_tokens is below max_batch_prefill_tokens", "prefill-above-batch-total",
    reads=(*_INPUT, "max-batch-prefill-tokens", "max-batch-size", "max-batch-total-tokens"),
)  # fmt: skip
def batch_total_below_prefill(case: Case) -> Value | None:
    """A given max_batch_total_tokens must hold one prefill (until 2.3.1).

    Failing::

        tgi:2.3.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 1024 --max-total-tokens 2048 --max-batch-prefill-tokens 8192 --max-batch-total-tokens 4096

    Fixed::

        tgi:2.3.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 1024 --max-total-tokens 2048 --max-batch-prefill-tokens 4096
    """  # noqa: E501
    return case.at("max-batch-total-tokens", "max-batch-prefill-tokens")


@refused(
    "TGI114", "max_total_tokens without max_input_tokens", "total-without-input", "new-tokens-wrap",
    reads=(*_LIMITS, "max-batch-prefill-tokens", "cuda-memory-fraction"),
)  # fmt: skip
def total_without_input(case: Case) -> Value | None:
    """From 2.4.1 on the warm-up takes the input limit for granted; without one it computes nonsense.

    It builds one request of max_batch_prefill_tokens and gives it max_total_tokens minus that many new
    tokens. Below zero the unsigned number wraps to four billion and the shard fills the host's memory
    until it is killed; 2.4.1 stops with an assertion even before.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 2048 --max-batch-prefill-tokens 4096

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 2048 --max-input-tokens 1024 --max-batch-prefill-tokens 4096
    """  # noqa: E501
    return case.at("max-total-tokens")


@refused("TGI115", "no validation workers", "no-validation-workers", reads=("validation-workers",))
def no_validation_workers(case: Case) -> Value | None:
    """The router needs at least one thread that tokenises requests.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --validation-workers 0

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --validation-workers 2
    """
    return case.at("validation-workers")


@refused("TGI116", "a batch of no requests", "max-batch-size-zero", reads=("max-batch-size",))
def no_batch(case: Case) -> Value | None:
    """A batch holds at least one request; the router refuses 0 once everything is loaded.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-batch-size 0

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-batch-size 16
    """
    return case.at("max-batch-size")


@refused("TGI117", "ngrok", "ngrok-incomplete", "ngrok-dead", reads=_NGROK)
def ngrok(case: Case) -> Value | None:
    """`--ngrok` has not worked since 2.1.0: the router panics when everything else is ready.

    Before that it wants its token and its edge.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --ngrok --ngrok-edge e

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return case.at("ngrok")


@refused(
    "TGI118", "adapter that is not spelt as one", "lora-format", "adapter-empty", "adapter-spelling",
    reads=("lora-adapters",),
)  # fmt: skip
def lora_format(case: Case) -> Value | None:
    """An adapter is written id, id@revision or name=folder; TGI notices only after the download.

    Nothing at all is an adapter too: a last comma, or `LORA_ADAPTERS=`, has TGI download one without a name.

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-2-7b-hf --lora-adapters org/a@main@2

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-2-7b-hf --lora-adapters org/a@main
    """
    return case.at("lora-adapters")


@rule("TGI119", "warning", "longer than the model's context")
def exceeds_context(case: Case) -> Hits:
    """max_total_tokens is above the positions the model was trained for.

    TGI does not check it: the KV cache is reserved for the longer requests, and answers past the
    context are noise, or the kernels fail. `--rope-scaling` with a factor makes a longer context on
    purpose; then this rule is silent.

    Failing::

        tgi:3.3.7 --model-id gpt2 --max-input-tokens 1024 --max-total-tokens 2048

    Fixed::

        tgi:3.3.7 --model-id gpt2 --max-input-tokens 512 --max-total-tokens 1024
    """
    total = case.view.number("max-total-tokens")
    word = case.at("max-total-tokens")
    if total is None or word is None or "rope-scaling" in case.view.flags or "rope-factor" in case.view.flags:
        return
    context = about(case.view.model).get("context") if case.facts is None else families.context_length(case.facts)
    if isinstance(context, int) and total > context:
        message = f"max_total_tokens {thousands(total)} is above the model's context of {thousands(context)} tokens"
        yield Hit(word, message, f"set max_total_tokens to at most {context}")


@refused("TGI120", "too few tokens for an image", "image-truncated", reads=(*_INPUT, "max-batch-prefill-tokens"))
def image_truncated(case: Case) -> Value | None:
    """From 3.3.0 on the warm-up's first request ends with an image, and is cut to max_input_tokens: all positions of
    the image must be left.

    Failing::

        tgi:3.3.7 --model-id llava-hf/llava-v1.6-mistral-7b-hf --max-input-tokens 1024 --max-total-tokens 2048 --max-batch-prefill-tokens 1024

    Fixed::

        tgi:3.3.7 --model-id llava-hf/llava-v1.6-mistral-7b-hf --max-input-tokens 1536 --max-total-tokens 2048 --max-batch-prefill-tokens 1536
    """  # noqa: E501
    return case.at(*_INPUT, "max-batch-prefill-tokens")
