"""TGI170-TGI179: environment variables nothing reads, and values that are not what they seem."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tgi_advisor import refusals
from tgi_advisor.estimate import defaults
from tgi_advisor.facts.clouds import SAGEMAKER, port_of
from tgi_advisor.refusals.surprises import OF_MODEL
from tgi_advisor.validate.effective import variable_releases
from tgi_advisor.validate.finding import Fix
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.arguments import one_edit
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

OF_OTHERS: Mapping[str, str] = {
    "MODEL": "MODEL_ID", "MODEL_NAME": "MODEL_ID", "MODEL_PATH": "MODEL_ID", "HF_MODEL": "MODEL_ID",
    "NUM_GPUS": "NUM_SHARD", "NUM_GPU": "NUM_SHARD", "TENSOR_PARALLEL_SIZE": "NUM_SHARD",
    "MAX_NEW_TOKENS": "MAX_TOTAL_TOKENS", "MAX_TOKENS": "MAX_TOTAL_TOKENS", "MAX_MODEL_LEN": "MAX_TOTAL_TOKENS",
    "MAX_SEQUENCE_LENGTH": "MAX_TOTAL_TOKENS",
    "MAX_LENGTH": "MAX_TOTAL_TOKENS", "MAX_SEQ_LEN": "MAX_TOTAL_TOKENS", "MAX_BATCH_TOKENS": "MAX_BATCH_TOTAL_TOKENS",
    "GPU_MEMORY_UTILIZATION": "CUDA_MEMORY_FRACTION", "GPU_MEMORY_FRACTION": "CUDA_MEMORY_FRACTION",
    "QUANTIZATION": "QUANTIZE", "HUGGINGFACE_TOKEN": "HF_TOKEN", "HUGGING_FACE_TOKEN": "HF_TOKEN",
    "HF_HUB_TOKEN": "HF_TOKEN", "HF_ACCESS_TOKEN": "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN": "HF_TOKEN",
    "HUGGINGFACE_API_TOKEN": "HF_TOKEN", "HUGGINGFACE_API_KEY": "HF_TOKEN",
    "FLASH_ATTENTION": "USE_FLASH_ATTENTION",
}  # fmt: skip
"""Names people set that no release reads, and what they may have meant."""


@rule("TGI170", "warning", "variable nothing reads")
def unknown_variable(case: Case) -> Hits:
    """Nothing in the image reads this variable, though it looks as if something should.

    Names of other servers (`MAX_MODEL_LEN`), names of SageMaker's entry point outside SageMaker
    (`SM_NUM_GPUS`), and names only another release reads: what they are meant to set has its default.
    Variables of other programs are left alone.

    Failing::

        SM_NUM_GPUS=2 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1

    Fixed::

        NUM_SHARD=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    known = case.view.known_variables
    for name, value in {} if case.view.image.server else _stated(case).items():
        if name in known:
            continue
        at = Value(name, value.key or value.place, length=len(name) if value.key else 0)
        read = variable_releases(name)
        if read is not None and case.release is not None:
            since, until = read
            if until is not None and case.release.version > _number(until):
                instead = _renamed(name)
                step = f"write {instead}" if instead else "leave it out"
                yield Hit(at, f"TGI {case.release} does not read {name}: {until} was the last release that did", step)
            elif name not in ("HF_TOKEN", "HF_HOME"):
                yield Hit(
                    at,
                    f"TGI {case.release} does not read {name}: it came with {since}",
                    f"use release {since} or newer",
                )
        elif name in SAGEMAKER and case.view.image.entry != "sagemaker" and _official(case):
            yield Hit(at, f"only SageMaker's image reads {name}", f"set {SAGEMAKER[name]}")
        elif _official(case) and not _used(case, name) and (meant := _meant(case, name, known)) is not None:
            yield Hit(at, f"nothing in TGI reads {name}", f"did you mean {meant}?" if meant else "leave it out")


def _meant(case: Case, name: str, known: frozenset[str]) -> str | None:
    """What a name of another server may have meant; empty when that is open, None for names of other programs."""
    if name in OF_OTHERS:
        return case.release.token_env if OF_OTHERS[name] == "HF_TOKEN" and case.release else OF_OTHERS[name]
    if name.startswith("TGI_") and name[4:] in known:
        return name[4:]
    close = any(one_edit(name, one) for one in known)  # TGI171 says these
    return "" if name.startswith("MAX_") and not close else None


_OLD_NAMES = {"USE_PREFIX_CACHING": "PREFIX_CACHING"}


def _renamed(name: str) -> str | None:
    return _OLD_NAMES.get(name)


def _number(release: str) -> tuple[int, int, int]:
    from tgi_advisor.facts.release import version

    return version(release)


def _official(case: Case) -> bool:
    """Whether TGI's own entry point runs, so that nothing else reads the variables."""
    server = case.server
    if server.form == "dockerfile" and server.entry is None and server.env_sources:  # a program of its own starts
        return False
    return case.view.image.variant is not None and server.form not in ("env", "launcher")


def _used(case: Case, name: str) -> bool:
    """Whether an argument refers to the variable, or a mounted path needs it."""
    return any(name in word.missing or f"${name}" in word.text or f"({name})" in word.text for word in case.server.args)


def _stated(case: Case) -> dict[str, Value]:
    """Variables the file states, secrets of other sources included."""
    return {**case.server.secret_env, **case.server.env}


@rule("TGI171", "warning", "misspelt variable")
def misspelt_variable(case: Case) -> Hits:
    """The name is one letter away from a variable the launcher reads, and nothing reads it as it stands.

    Failing::

        NUM_SHARDS=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        NUM_SHARD=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    known = case.view.known_variables
    for name, value in {} if case.view.image.guessed else _stated(case).items():
        if name in known or name in OF_OTHERS or name in SAGEMAKER or len(name) < 6 or variable_releases(name):
            continue
        near = [one for one in sorted(known) if len(one) >= 6 and one_edit(name.upper(), one)]
        if len(near) == 1:
            at = Value(name, value.key or value.place, length=len(name) if value.key else 0)
            fix = Fix(value.key, name, near[0]) if value.key and near[0] not in case.view.env else None
            yield Hit(at, f"nothing reads {name}", f"did you mean {near[0]}?", fix=fix)


@rule("TGI172", "info", "variable an argument overrides")
def overridden_variable(case: Case) -> Hits:
    """The command line wins over the environment, so the variable has no effect.

    Failing::

        MODEL_ID=Qwen/Qwen2.5-3B-Instruct tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    for hidden in case.view.hidden:
        winner = case.view.flags[hidden.flag.name]
        name, text = hidden.name.text, winner.value.text
        if name in winner.value.missing or text in (f"${name}", f"${{{name}}}", f"$({name})"):
            continue  # the argument is the same by intent: TGI176 (of a Dockerfile TGI131) says more
        if hidden.value.key is None and not hidden.value.known:
            continue  # a script only names it: whether the launcher is given it is not known
        if hidden.by == "environment" and winner.value.text != hidden.value.text and not hidden.flag.secret:
            message = f"{hidden.name.text} has no effect: --{hidden.flag.name} {winner.shown} on the command line wins"
            yield Hit(hidden.name, message, "leave one of them out")


@rule("TGI173", "info", "accepted, but not as one may expect")
def surprise(case: Case) -> Hits:
    """TGI takes the setting and does something else with it than its name says.

    The best known: max_batch_total_tokens does nothing for a model served with flash attention, because
    the server measures its budget; it can only make the launcher refuse. What a model does however it is
    started (`advise` and `predict` say it) is not repeated here.

    Failing, --gpu nvidia-l4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1 --max-batch-total-tokens 320000

    Fixed, --gpu nvidia-l4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    if case.setting is None or case.prediction is None or case.prediction.outcome == "refused":
        return
    asked = defaults.launcher_limits(case.setting, case.limits)
    for sentence, flag in refusals.warnings(case.setting, asked, case.limits):
        word = case.at(flag or "model-id")
        said = flag in ("lora-adapters", OF_MODEL) or (flag and word is None)  # TGI137 says it of adapters
        slow = flag == "quantize" and word is not None and word.text == "bitsandbytes"  # TGI108 says that
        if not said and not slow:
            yield Hit(word or case.home, sentence.rstrip("."), once="file")


@rule("TGI174", "warning", "quotes that belong to the value")
def literal_quotes(case: Case) -> Hits:
    """The quotes are part of the value: what the server gets begins and ends with them.

    In the list form of a Compose `environment` everything behind the `=` is the value.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: --model-id Qwen/Qwen2.5-7B-Instruct
            environment:
              - LOG_LEVEL="debug"

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: --model-id Qwen/Qwen2.5-7B-Instruct
            environment:
              - LOG_LEVEL=debug
    """
    for name, value in case.server.env.items():
        text = value.text
        if value.known and len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
            inner = text[1:-1]
            step = f"write {name}={inner}" if inner else f"leave {name} out"
            fix = Fix(value.spot, text, inner) if re.fullmatch(r"[\w./-]+", inner) else None
            yield Hit(value, f"the quotes are part of {name}'s value", step, fix=fix)


@rule("TGI175", "warning", "variable given twice")
def given_twice(case: Case) -> Hits:
    """The same variable is set twice with different values; the last one wins without a word.

    Failing::

        LOG_LEVEL=info LOG_LEVEL=debug tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        LOG_LEVEL=debug tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    for name, earlier in case.server.overridden:
        last = case.server.env.get(name)
        if last is not None and last.text != earlier.text:
            yield Hit(
                last, f"{name} is given twice with different values, and the last one wins", "leave one of them out"
            )


@rule("TGI176", "warning", "variable of the container in the host's hands")
def host_interpolation(case: Case) -> Hits:
    """`$NAME` in a command is replaced before the container exists, not from its `environment`.

    Compose takes it from the shell or the .env file of the host, a shell from its own variables; unset
    there, it is empty, and the launcher gets a flag without its value. Leave the argument out: the
    launcher reads the variable itself.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: --model-id $MODEL_ID
            environment:
              MODEL_ID: Qwen/Qwen2.5-7B-Instruct

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            environment:
              MODEL_ID: Qwen/Qwen2.5-7B-Instruct
    """
    if case.server.form not in ("compose", "docker-run"):
        return
    seen = set()
    for word in case.server.args:
        for name in word.missing:
            held = case.server.env.get(name)
            if held is not None and name not in held.missing and word.place.line not in seen:
                seen.add(word.place.line)
                message = f"${name} is taken from the host, not from the container's environment"
                yield Hit(word, message, "leave the argument out: the launcher reads the variable itself")


@rule("TGI177", "error", "what SageMaker's image does not read")
def sagemaker_entry(case: Case) -> Hits:
    """The entry point of SageMaker's image takes the model from HF_MODEL_ID, and stops where it is not set or empty.

    It passes no argument on to the launcher, so what stands there has no effect (a warning): each flag has a variable
    that does. So does Google's image of TGI 2.0.0 (sagemaker-entrypoint.sh@v3.3.7, and `clouds.yaml`).

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:8080 -v tgi-data:/data \\
            7.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311 \\
            --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:8080 -v tgi-data:/data -e HF_MODEL_ID=Qwen/Qwen2.5-7B-Instruct \\
            7.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311
    """
    image, server = case.view.image, case.server
    if not image.cloud or not image.deaf or server.entry is not None or server.form in _WITHOUT_ENTRY:
        return
    model = case.view.env.get("HF_MODEL_ID")
    stated = bool(server.env) or server.form in ("docker-run", "compose", "kubernetes")
    if image.entry == "sagemaker" and case.view.complete and stated:
        if model is None:
            other = case.variable("MODEL_ID")
            named = Value("MODEL_ID", other.key, length=8) if other is not None and other.key else None
            message = "HF_MODEL_ID is not set: SageMaker's image stops with 'HF_MODEL_ID must be set'"
            yield Hit(named or case.home, message, "set HF_MODEL_ID to the model")
        elif model.known and not model.text and not model.defaulted:
            yield Hit(model, "HF_MODEL_ID is empty: SageMaker's image stops with 'HF_MODEL_ID must be set'")
    unread = [word for word in server.args if word.text.startswith("-") and word.known and word.text != "--json-output"]
    if unread:
        names = ", ".join(dict.fromkeys(word.text.partition("=")[0] for word in unread[:3]))
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        whose = "SageMaker's image" if image.entry == "sagemaker" else f"the image of TGI {case.release}"
        message = f"the entry point of {whose} passes no argument on: {names}{more} has no effect"
        yield Hit(unread[0], message, "set the variables that the launcher reads instead", "warning")


@rule("TGI178", "warning", "AIP_HTTP_PORT that is no port")
def no_port(case: Case) -> Hits:
    """The router of Google's images takes its port from AIP_HTTP_PORT, before --port and PORT, and passes over what is
    no number from 1 to 65535 without a word (router/src/server.rs@v3.3.7:1898).

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:8080 -v tgi-data:/tmp -e AIP_HTTP_PORT=http \\
            us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-gpu.3.0.1 \\
            --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:8080 -v tgi-data:/tmp -e AIP_HTTP_PORT=8080 \\
            us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-gpu.3.0.1 \\
            --model-id Qwen/Qwen2.5-7B-Instruct
    """
    name = case.view.image.port_env
    value = case.variable(name) if name else None
    if value is None or not value.known or value.defaulted or value.number == 0:  # 0: whichever is free
        return
    if port_of(value.text) is None:
        message = f"{name}={value.text} is no port, so it is passed over"
        instead = f" and the server listens on {case.view.port}" if case.view.port else ""
        yield Hit(value, message + instead, "write a number from 1 to 65535")


_WITHOUT_ENTRY = ("launcher", "systemd", "spec", "env", "dockerfile", "helm")
"""Forms that do not say everything a container of the image is given."""
