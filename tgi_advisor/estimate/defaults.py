"""What TGI makes of a spec by itself: the launcher's and the server's defaults, release by release.

`resolve` gives everything but the token limits; `launcher_limits` and `server_limits` fill those in
where each half of TGI does. Sources are paths of
https://github.com/huggingface/text-generation-inference at a tag.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tgi_advisor.errors import FactsError, Problem, SpecError
from tgi_advisor.estimate import launcher
from tgi_advisor.estimate.launcher import LauncherConfig
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families, flags, heads
from tgi_advisor.facts.families import Family
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease, image_env
from tgi_advisor.limits import Limits
from tgi_advisor.once import remembered
from tgi_advisor.spec.records import ModelSpec, Spec, TgiSpec

CHUNKING_ATTENTION = ("flashinfer", "flashdecoding", "flashdecoding-ipex")
HALF_ONLY = ("awq", "exl2", "gptq", "marlin")
"""Quantizers that only work with float16 activations."""
GROUPED = ("gptq", "awq")
"""Quantizers that store one scale per group of input rows."""
_BITSANDBYTES = ("bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
_BLOCK_SIZES = {"flashdecoding": 256, "flashinfer": 1, "flashdecoding-ipex": 64}
LIMIT_FLAGS = (
    "max-input-tokens", "max-input-length", "max-total-tokens", "max-batch-prefill-tokens", "max-batch-total-tokens",
)  # fmt: skip
"""Launcher flags that are token limits."""
_U32 = 1 << 32
_U64 = 1 << 64


@remembered
def resolve(spec: Spec, facts: Facts, num_shard: int | None = None, *, counted: bool = False) -> Setting:
    """The launch of a spec on its facts as TGI resolves it.

    `num_shard` overrides the spec's; when neither says, it is the largest legal count of the GPUs there are.
    `counted`: the launcher is not told and has counted its devices; what we emit always tells it.
    FactsError when the model's family is unknown, SpecError for a flag whose value no command line can hold.
    """
    release, model, gpu = facts.release, facts.model, facts.gpu
    env = _environment(release, facts.variant, spec.tgi)
    given = _flags_in_force(spec, env, release)
    flash = flash_attention(gpu, release, env)
    family = families.find(
        model, release, facts.variant, flash=flash, trust_remote_code=given.get("trust-remote-code") is True
    )
    config = launcher.read_config(model, release)
    asked = _text(given.get("quantize"))
    from_config = config.quantize if config is not None else None
    forwarded = asked or from_config
    quantize = forwarded or stored_quantize(model, release)
    shards = num_shard or _integer(given.get("num-shard"))
    if not shards:
        gpus = 1 if given.get("sharded") is False else facts.gpu_count
        shards = legal_shards(model, family, gpus, quantize)[-1]
    if not counted:
        given.setdefault("num-shard", shards)
    lora = tuple(_text(given["lora-adapters"]).split(",")) if "lora-adapters" in given else ()
    attention, prefix_caching = resolve_attention(config, release, gpu, env, bool(lora))
    speculate = heads.speculated(model.heads, release.version, _integer(given.get("speculate")))
    fraction = _number(given.get("cuda-memory-fraction"), 1.0)
    dtype = _dtype(_text(given.get("dtype")), quantize, family, facts)
    return Setting(
        spec=spec,
        facts=facts,
        family=family,
        num_shard=shards,
        dtype=dtype,
        quantize=quantize,
        kv_dtype=_kv_dtype(_text(given.get("kv-cache-dtype")), dtype, quantize, family, facts, attention),
        attention=attention,
        block_size=128 if gpu.system == "gaudi" else _BLOCK_SIZES.get(attention, 16),
        prefix_caching=prefix_caching,
        chunking=_chunks(family, release, env, speculate, attention),
        speculate=speculate,
        memory_fraction=fraction,
        wiggle=_wiggle(release, env),
        max_batch_size=_integer(given.get("max-batch-size")),
        graph_sizes=_graph_sizes(given, release, forwarded, asked, speculate, family, gpu),
        prefill_logprobs=_prefill_logprobs(given, release, env),
        lora_adapters=lora,
        flags=given,
        env=env,
        flash=flash,
        forwarded_quantize=forwarded,
        launcher_context=config.context if config is not None else None,
        launcher_prefill=_launcher_prefill(config, release, gpu, shards, fraction, env),
    )


# ---- token limits ----


def given_limits(setting: Setting) -> Limits:
    """The limits the launcher is given: pinned in the spec, else by flag or environment."""
    limits, held = setting.spec.limits, setting.flags
    length = _integer(held.get("max-input-tokens"))
    return Limits(
        _either(limits.max_input_tokens.fixed, length, _integer(held.get("max-input-length"))),
        _either(limits.max_total_tokens.fixed, _integer(held.get("max-total-tokens"))),
        _either(limits.max_batch_prefill_tokens.fixed, _integer(held.get("max-batch-prefill-tokens"))),
        _integer(held.get("max-batch-total-tokens")),
    )


def launcher_limits(setting: Setting, given: Limits) -> Limits:
    """The limits with the launcher's own defaults filled in; None is left to the server (2.4.1 on).

    1.x: static. 2.0.0-2.4.0: from the context, at most 4096. launcher/src/main.rs@v2.4.0:1700-1745,
    @v3.3.7:2097-2154.
    """
    release = setting.facts.release
    longest, total, prefill = given.max_input_tokens, given.max_total_tokens, given.max_batch_prefill_tokens
    if longest is not None and total is not None and prefill is not None:
        return given
    if release.limits_default == "1024_2048":
        longest, total = _either(longest, 1024), _either(total, 2048)
    elif release.limits_default == "context_4096":
        context = min(_either(setting.launcher_context, 4096) or 0, 4096)
        longest, total = _either(longest, (context - 1) % _U64), _either(total, context)
    if prefill is None:
        prefill = setting.launcher_prefill
    if prefill is None:  # 2.0.0-2.4.0
        prefill = setting.max_batch_size * (longest or 0) if setting.max_batch_size is not None else (longest or 0) + 50
        prefill %= _U32
    return Limits(longest, total, prefill, given.max_batch_total_tokens)


def server_limits(setting: Setting, limits: Limits, num_blocks: int, warmup_tokens: int) -> Limits:
    """The limits of the started server: `limits` (from `launcher_limits`) with what the shards fill in.

    `warmup_tokens` are the tokens of the warm-up batch. max_batch_total_tokens becomes the inferred
    budget, or the router's fallback for families that infer none. 2.4.1 leaves max_input_tokens open when
    only max_total_tokens is given, and then fails.
    server/text_generation_server/models/flash_causal_lm.py@v2.4.1:1559-1576, @v3.3.7:1566-1580;
    models/model.py@v3.3.7:132-142; models/mamba.py@v3.3.7:494-498.
    """
    release = setting.facts.release
    longest, total = limits.max_input_tokens, limits.max_total_tokens
    prefill = limits.max_batch_prefill_tokens or 0
    if release.warmup_limits_optional:
        if release.limits_default == "warmup_2.4.1" and setting.family.paged:
            longest, total = _server_limits_2_4_1(setting, longest, total, num_blocks, warmup_tokens)
        else:
            if total is None:
                total = _server_total(setting, num_blocks, warmup_tokens)
            longest = total - 1 if longest is None else longest
    if setting.family.paged:
        budget: int | None = num_blocks * setting.block_size
    else:
        budget = _either(limits.max_batch_total_tokens, max(16000, total or 0, prefill))
    return Limits(longest, total, limits.max_batch_prefill_tokens, budget)


def _server_limits_2_4_1(
    setting: Setting, longest: int | None, total: int | None, num_blocks: int, warmup_tokens: int
) -> tuple[int | None, int | None]:
    if total is not None:
        return longest, total
    if not setting.chunking:
        return _either(longest, warmup_tokens - 1), warmup_tokens
    most = num_blocks * setting.block_size
    longest = _either(longest, _smallest(most - 1, setting.facts.model.model_max_length))
    return longest, most


def _server_total(setting: Setting, num_blocks: int, warmup_tokens: int) -> int:
    """max_total_tokens a shard settles on (3.0.0 on, and padded families of 2.4.1)."""
    model = setting.facts.model
    if setting.family.served_by == "mamba":
        return _smallest(4096, model.model_max_length)
    if not setting.chunking:
        return warmup_tokens
    context = None if setting.facts.release.limits_default == "warmup_3.0.0" else families.context_length_server(model)
    return _smallest(num_blocks * setting.block_size, model.model_max_length, context)


def _launcher_prefill(
    config: LauncherConfig | None,
    release: TgiRelease,
    gpu: GpuFacts,
    shards: int,
    fraction: float,
    env: Mapping[str, str],
) -> int | None:
    """The prefill default where it depends on no other limit; None in 2.0.0-2.4.0."""
    if release.prefill_default == "4096":
        return 4096
    if release.prefill_default == "max_input_plus_50":
        return None
    if release.prefill_default == "context_4096":
        return min(4096, config.context) if config is not None and config.context is not None else 4096
    return launcher.prefill_default(config, release, gpu, shards, fraction, flags.f32(env.get("TGI_WIGGLE_ROOM", "")))


# ---- shards ----


class ShardFault(NamedTuple):
    """Why a shard count does not work: a code and the size that does not divide."""

    code: str
    """`unsharded`, `heads`, `kv_heads`, `kv_heads_lost`, `groups`, `intermediate` or `scales`."""
    size: int
    """The number the shards do not divide; 0 where there is none."""


@remembered
def legal_shards(model: ModelFacts, family: Family, count: int, quantize: str | None = None) -> tuple[int, ...]:
    """The shard counts up to `count` that split the model evenly, ascending; 1 is always among them."""
    if quantize == "exl2":
        return (1,)
    return tuple(shards for shards in range(1, count + 1) if shard_fault(model, family, shards, quantize) is None)


def shard_fault(model: ModelFacts, family: Family, shards: int, quantize: str | None = None) -> ShardFault | None:
    """What keeps a model from running on `shards` shards, in the order TGI meets it; None when nothing does."""
    if shards == 1:
        return None
    if not family.shards:
        return ShardFault("unsharded", 0)
    heads, kv = families.heads(model), families.kv_heads(model)
    if model.config.get("new_decoder_architecture") or family.model_type == "RefinedWeb":
        return ShardFault("groups", kv) if kv % shards else _width_fault(model, shards, quantize)
    if family.kv != "replicated":
        if heads % shards:
            return ShardFault("heads", heads)
        if family.kv_heads_must_divide and kv % shards:
            return ShardFault("kv_heads", kv)
        if family.paged and kv > 1 and kv % shards:
            return ShardFault("kv_heads_lost", kv)
    return _width_fault(model, shards, quantize)


def _width_fault(model: ModelFacts, shards: int, quantize: str | None) -> ShardFault | None:
    wide = families.intermediate(model)
    if wide % shards:
        return ShardFault("intermediate", wide)
    stored = model.config.get("quantization_config")
    if quantize in GROUPED and isinstance(stored, Mapping) and not stored.get("desc_act"):
        size = stored.get("group_size", stored.get("q_group_size"))
        if isinstance(size, int) and size > 0 and wide % size == 0 and wide // size % shards:
            return ShardFault("scales", wide // size)
    return None


# ---- attention ----


def flash_attention(gpu: GpuFacts, release: TgiRelease, env: Mapping[str, str]) -> bool:
    """Whether the flash attention classes can be imported.

    CUDA: capability 7.5 or 8.0 and newer, until 2.0.4 not newer than 9.0. 2.1.0-2.2.0 do not look, and fail later.
    server/text_generation_server/utils/flash_attn.py@v2.0.4:13-56, layers/attention/cuda.py@v2.2.0:174-177,
    @v3.3.7:189-219.
    """
    if env.get("USE_FLASH_ATTENTION", "").lower() == "false":
        return False
    if gpu.system != "cuda" or (2, 1, 0) <= release.version <= (2, 2, 0):
        return True
    capability = _capability(gpu)
    return capability == (7, 5) or (capability >= (8, 0) and (release.version > (2, 0, 4) or capability <= (9, 0)))


def resolve_attention(
    config: LauncherConfig | None, release: TgiRelease, gpu: GpuFacts, env: Mapping[str, str], lora: bool
) -> tuple[str, bool]:
    """Attention back end and prefix caching (launcher/src/main.rs@v3.3.7:131-201, 2.3.0 on).

    A variable that is set to nothing is set: the shards get the empty text.

    Before: paged, or block size 256 with FLASH_DECODING (server/.../models/globals.py@v2.1.1:8), which
    2.2.0 switches on for Gemma 2 by itself (launcher/src/main.rs@v2.2.0:1434).
    """
    version = release.version
    if version < (2, 3, 0):
        gemma2 = version == (2, 2, 0) and config is not None and config.model_type == "gemma2"
        flash_decoding = version >= (2, 1, 1) and (gemma2 or env.get("FLASH_DECODING") in ("1", "true", "True"))
        return ("flashdecoding" if flash_decoding else "paged"), False
    attention = env.get("ATTENTION")
    prefix = env.get("PREFIX_CACHING" if version >= (2, 4, 0) else "USE_PREFIX_CACHING")
    if config is not None:
        attention, prefix = _by_config(config, version, gpu, attention, prefix, lora)
    if attention == "paged" and prefix is None and version >= (2, 4, 0):
        prefix = "0"
    attention = "flashinfer" if attention is None else attention
    return attention, prefix is None or prefix.lower() in ("1", "true")


def _by_config(
    config: LauncherConfig,
    version: tuple[int, int, int],
    gpu: GpuFacts,
    attention: str | None,
    prefix: str | None,
    lora: bool,
) -> tuple[str | None, str | None]:
    """The part of `resolve_attention` that looks at the model."""
    fallback = _fallback_attention(gpu, version)
    served = config.head_dim in (64, 128, 256)
    avoided = ("falcon", "deepseek_v2", "gemma2") if version < (2, 4, 0) else ("falcon", "deepseek_v2")
    forced = not served or config.model_type in avoided
    if prefix is None and (
        config.vision or config.encoder_decoder or not served or lora or (forced and fallback == "paged")
    ):
        prefix = "0"
    return (fallback if attention is None and forced else attention), prefix


def _fallback_attention(gpu: GpuFacts, version: tuple[int, int, int]) -> str:
    """The back end for models flashinfer does not serve, by what torch.cuda says of the device."""
    if version < (2, 3, 1):
        return "flashdecoding"
    if gpu.system == "cuda":
        return "paged" if _capability(gpu) < (8, 0) else "flashdecoding"
    known = gpu.system == "rocm"  # torch reports gfx90a and newer as 9.x
    return "flashdecoding" if known or version < (3, 0, 2) else "paged"


def _capability(gpu: GpuFacts) -> tuple[int, int]:
    if gpu.compute_capability is None:
        raise FactsError(
            f"The compute capability of {gpu.name} is not known, and TGI picks its attention back end by it.",
            "State it: hardware.gpu.compute_capability, e.g. 8.9 (https://developer.nvidia.com/cuda-gpus).",
        )
    return gpu.compute_capability


def _chunks(family: Family, release: TgiRelease, env: Mapping[str, str], speculate: int, attention: str) -> bool:
    """Prefill chunking in effect (server/text_generation_server/models/model.py@v3.3.7:73-95)."""
    if release.chunking == "none" or not family.chunks or speculate:
        return False
    wanted = env.get("PREFILL_CHUNKING", "1" if release.chunking == "on" else "0").lower() in ("1", "true")
    return wanted and attention in CHUNKING_ATTENTION


# ---- dtypes and quantization ----


def stored_quantize(model: ModelFacts, release: TgiRelease) -> str | None:
    """Quantization a shard that is told none reads from the checkpoint (models/__init__.py@v3.3.7:446-470).

    Releases before 2.0.0 read none; 2.0.0 knows gptq and awq (models/__init__.py@v2.0.0:193), 2.1.0 exl2.
    """
    version = release.version
    if version < (2, 0, 0):
        return None
    stored, compression = model.launched.get("quantization_config"), model.launched.get("compression_config")
    if stored is None and version >= (3, 0, 0):
        stored = compression
    if not isinstance(stored, Mapping):
        if not isinstance(compression, Mapping) or version < (2, 3, 1):
            return None
        return "compressed-tensors" if version >= (2, 4, 1) else float8_groups(compression)
    method = stored.get("quant_method")
    if method in ("gptq", "awq") or (method == "exl2" and version >= (2, 1, 0)):
        return str(method)
    if version < (2, 2, 0):
        return None
    if method == "fbgemm_fp8" or (method == "fp8" and version >= (2, 4, 0)):
        return "fp8"
    if method == "compressed-tensors" and version >= (2, 4, 1):
        return "compressed-tensors"
    return float8_groups(stored) if version == (2, 4, 0) else None


def float8_groups(stored: Mapping[str, Any]) -> str | None:
    """2.3.1-2.4.0 read a compressed checkpoint as fp8 when one group of weights is 8-bit float."""
    groups = stored.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and weights.get("type") == "float" and weights.get("num_bits") == 8:
            return "fp8"
    return None


def _dtype(asked: str, quantize: str | None, family: Family, facts: Facts) -> str:
    """dtype of weights and activations (models/__init__.py@v3.3.7:472-489); the checkpoint's own is never consulted."""
    version, system = facts.release.version, facts.gpu.system
    if family.model_type == "llama4":
        return "bfloat16"
    if asked:
        return asked
    if system == "gaudi":  # whatever the model and its quantization: backends/gaudi/server/.../cli.py@v3.3.7:100
        return "bfloat16"
    if quantize in HALF_ONLY and version >= (2, 1, 0):
        return "bfloat16" if system == "cpu" and version >= (2, 4, 0) else "float16"
    if quantize == "fp8" and (2, 2, 0) <= version <= (2, 3, 1) and facts.gpu.at_least >= (8, 0):
        return "bfloat16"  # the fbgemm kernels give bfloat16
    if system == "cpu":
        return "float32" if family.served_by == "padded" and family.automodel else "bfloat16"
    since = family.dtype_since
    return family.dtype if since is None or facts.release.version >= since else "float16"


def _kv_dtype(asked: str, dtype: str, quantize: str | None, family: Family, facts: Facts, attention: str) -> str:
    """dtype of the KV cache (models/__init__.py@v3.3.7:493-516); classes that are not passed it keep the model's."""
    if not family.kv_cache_dtype or facts.release.version < (2, 4, 0):
        return dtype
    if asked:
        return asked
    float8 = quantize == "compressed-tensors" and facts.release.version >= (3, 0, 0) and _float8_scheme(facts.model)
    return "fp8_e4m3fn" if float8 and facts.gpu.system == "cuda" and attention == "flashinfer" else dtype


def _float8_scheme(model: ModelFacts) -> bool:
    stored = model.launched.get("quantization_config", model.launched.get("compression_config"))
    scheme = stored.get("kv_cache_scheme") if isinstance(stored, Mapping) else None
    return isinstance(scheme, Mapping) and scheme.get("type") == "float" and scheme.get("num_bits") == 8


# ---- the rest of the server's environment ----


def _wiggle(release: TgiRelease, env: Mapping[str, str]) -> float:
    """TGI_WIGGLE_ROOM where the release reads it; a value it refuses is left to the refusals."""
    value = _float(env.get("TGI_WIGGLE_ROOM")) if release.wiggle_env else None
    return value if value is not None and 0 < value < 1 else release.wiggle


def _prefill_logprobs(given: Mapping[str, object], release: TgiRelease, env: Mapping[str, str]) -> bool:
    if release.prefill_logits != "flag":
        return True
    return given.get("enable-prefill-logprobs") is True or env.get("REQUEST_LOGPROBS", "0").lower() in ("1", "true")


def _graph_sizes(
    given: Mapping[str, object],
    release: TgiRelease,
    forwarded: str | None,
    asked: str,
    speculate: int,
    family: Family,
    gpu: GpuFacts,
) -> tuple[int, ...]:
    """CUDA graph batch sizes that are captured (launcher/src/main.rs@v3.3.7:2170-2190)."""
    if gpu.system not in ("cuda", "rocm") or release.cuda_graphs == "none":
        return ()
    if not family.paged and family.served_by != "mamba":
        return ()
    sizes = release.graph_sizes
    if release.cuda_graphs == "opt_in":
        sizes = sizes if given.get("enable-cuda-graphs") is True else ()
    elif isinstance(stated := given.get("cuda-graphs"), tuple) and (release.version >= (2, 0, 2) or asked):
        sizes = tuple(size for size in stated if isinstance(size, int) and size > 0)
    elif (forwarded if release.version >= (2, 3, 0) else asked) in _without_graphs(release.version):
        sizes = ()
    return tuple(size for size in sizes if size > speculate)


def _without_graphs(version: tuple[int, int, int]) -> tuple[str, ...]:
    """Quantizers the launcher switches CUDA graphs off for."""
    if version < (2, 3, 0):
        return _BITSANDBYTES
    return (*_BITSANDBYTES, "exl2") if version < (3, 0, 2) else ("bitsandbytes", "exl2")


def stated_flags(spec: Spec) -> dict[str, object]:
    """The flags of a spec beside model and limits as written, in the order of the command line: fields, tgi.flags."""
    return _stated(spec.model, spec.tgi, spec.hardware.memory_fraction)


def _stated(model: ModelSpec, tgi: TgiSpec, fraction: float) -> dict[str, object]:
    own = {
        "num-shard": tgi.num_shard,
        "dtype": model.dtype,
        "quantize": model.quantize,
        "kv-cache-dtype": model.kv_cache_dtype,
        "trust-remote-code": model.trust_remote_code or None,
        "cuda-memory-fraction": fraction if fraction != 1.0 else None,
    }
    stated = {name: value for name, value in own.items() if value is not None}
    return stated | {name: value for name, value in tgi.flags.items() if name not in stated}


def _flags_in_force(spec: Spec, env: Mapping[str, str], release: TgiRelease) -> dict[str, object]:
    """Every flag that is given, typed: the command line over the environment.

    A value the launcher cannot parse is left out; the refusals name it. SpecError for one that is no word at all.
    """
    every, wrong = _read(spec.model, spec.tgi, spec.hardware.memory_fraction, env, release)
    if wrong:
        problems = [
            Problem(str(error), f"`tgi-advisor flags {name}` says what it takes", spec.place(f"tgi.flags.{name}"))
            for name, error in wrong.items()
        ]
        raise SpecError(f"TGI {release} has no such values for its flags", problems=problems)
    return dict(every)


@remembered
def _environment(release: TgiRelease, variant: str, tgi: TgiSpec) -> Mapping[str, str]:
    """The environment of the container: the image's own, under the spec's."""
    return MappingProxyType({**image_env(release, variant), **tgi.env})


@remembered
def _read(
    model: ModelSpec, tgi: TgiSpec, fraction: float, env: Mapping[str, str], release: TgiRelease
) -> tuple[Mapping[str, object], Mapping[str, flags.Unreadable]]:
    """(the flags that are given, typed; those whose value is no word at all)."""
    known, stated = flags.flags_of(release), _stated(model, tgi, fraction)
    held = {name: flags.read(known[name], value) if name in known else value for name, value in stated.items()}
    variables = {
        flag.name: flags.read(flag, env[name], env=True)
        for name, flag in flags.env_index(release).items()
        if name in env
    }
    wrong = {name: value for name, value in held.items() if isinstance(value, flags.Unreadable) and not value.printed}
    every = {**variables, **held}
    return {name: value for name, value in every.items() if not isinstance(value, flags.Unreadable)}, wrong


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _either(*values: int | None) -> int | None:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _smallest(first: int, *others: int | None) -> int:
    return min([first, *(value for value in others if value is not None)])
