"""TGI401-TGI409: tokens, and code that is run. A secret is reported by its place and never shown."""

from __future__ import annotations

import re

from tgi_advisor.errors import Place
from tgi_advisor.validate.catalogue import is_gated, is_hub_id, is_path, no_such_size
from tgi_advisor.validate.effective import TOKENS
from tgi_advisor.validate.found import Mount, Value
from tgi_advisor.validate.rules.host import CONTAINERS
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule
from tgi_advisor.validate.rules.storage import elsewhere, keeps_weights, offline

_REAL = re.compile(r"(?<![A-Za-z0-9_])(?:hf_[A-Za-z0-9]{34}|api_org_[A-Za-z0-9]{34})(?![A-Za-z0-9])")
"""The form of the Hub's tokens."""


@rule("TGI401", "warning", "token in clear text")
def cleartext_token(case: Case) -> Hits:
    """A Hub token, or the server's API key, stands in the file: everybody who reads the file has it.

    Revoke it (https://huggingface.co/settings/tokens) and take it from the shell, an env file that is not
    committed, or a Secret. The token itself is never printed.

    Failing::

        HF_TOKEN=hf_{34-letters-and-digits} tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    if case.document.servers and case.server is case.document.servers[0]:
        for number, line in enumerate(case.document.text.splitlines(), 1):
            for found in _REAL.finditer(line):
                at = Value("", Place(case.document.file, number, found.start() + 1), length=len(found[0]))
                yield Hit(
                    at,
                    "a Hub token stands here in clear text",
                    "revoke it, and take it from the environment or a Secret",
                )
    for name in ("api-key", "ngrok-authtoken"):
        given = case.view.get(name)
        if (
            given is not None
            and given.value.known
            and len(given.value.text) >= 8
            and not _placeholder(given.value.text)
        ):
            yield Hit(
                given.value,
                f"the secret of --{name} stands here in clear text",
                "take it from the environment or a Secret",
            )


@rule("TGI402", "warning", "placeholder instead of a token")
def placeholder_token(case: Case) -> Hits:
    """What stands for the token is no token: used as it is, it is sent to the Hub, which answers 401.

    Even models that need no token fail then.

    Failing::

        HF_TOKEN=your_token_here tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    for name in TOKENS:
        value = case.server.env.get(name)
        if value is None or not value.text.strip("\"' ") or _REAL.search(value.text):
            continue
        if value.known or value.text in [f"<{blank}>" for blank in value.missing]:  # but on a page, for its reader
            yield Hit(
                value,
                f"{name} is set to a placeholder: the Hub answers 401 to it",
                f"pass {name} from the shell or a Secret",
            )


def _placeholder(text: str) -> bool:
    return "<" in text or text.lower().startswith(("your", "my", "change", "replace", "xxx", "secret", "token"))


def has_token(case: Case) -> bool:
    """Whether a token reaches the container, or may."""
    if not case.view.complete and case.server.env_sources:
        return True
    for name in (*TOKENS, "HF_TOKEN_PATH"):
        value = case.variable(name)
        if value is not None and (not value.known or value.text.strip()):
            return True
    return any(_brings_token(case, mount) for mount in case.server.mounts)


def _brings_token(case: Case, mount: Mount) -> bool:
    """Whether a mount holds the token file of the Hub's client: a mounted HF_HOME, which 2.3.0 moved to /data."""
    target, source = mount.target.text.rstrip("/"), mount.source.text.rstrip("/") if mount.source else ""
    if target.endswith("token") or not mount.target.known:
        return True
    home = case.view.env.get("HF_HOME")
    folder = home.text.rstrip("/") if home is not None else "/root/.cache/huggingface"
    if case.version is None:
        return ".cache/huggingface" in target
    callers = mount.source is not None and "HF_HOME" in mount.source.missing
    return target == folder and (callers or target.endswith("huggingface") or source.endswith("huggingface"))


def gated(case: Case) -> bool:
    """Whether the model's files need an accepted licence, for certain."""
    model = case.view.model
    if not model or is_path(model) or not is_hub_id(model) or (case.facts is None and no_such_size(model)):
        return False
    return case.facts.gated if case.facts is not None else is_gated(model)


@rule("TGI403", "warning", "gated model without a token")
def gated_without_token(case: Case) -> Hits:
    """The Hub gives this model's files only to those who accepted its licence, and no token is passed.

    The download stops with `Cannot access gated repo` (401). Where no volume could hold the weights
    already, and the owner gates every model, that is certain, and an error, but of an image of one's own, which may
    hold a token or the model. With HF_HUB_OFFLINE nothing is downloaded, and no token is missed (TGI324); another hub
    (HF_ENDPOINT) may not ask for one.

    Failing::

        tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct
    """
    word = case.at("model-id")
    if (
        word is None
        or not gated(case)
        or has_token(case)
        or offline(case) is not False
        or case.view.image.other
        or elsewhere(case)
        or case.server.form in ("launcher", "env", "spec", "systemd")
    ):
        return
    name = case.release.token_env if case.release else "HF_TOKEN"
    surely = is_gated(case.view.model or "") and not keeps_weights(case) and case.server.form in CONTAINERS
    surely = surely and not case.view.image.guessed
    message = f"{case.view.model} is gated, and no token is passed: its download is refused"
    yield Hit(word, message, f"pass {name} from the shell or a Secret", "error" if surely else None)


@rule("TGI404", "warning", "old name of the token")
def legacy_token_name(case: Case) -> Hits:
    """From 2.2.0 on the launcher reads a gated model's config.json with HF_TOKEN only.

    With HUGGING_FACE_HUB_TOKEN alone the weights are downloaded, but the launcher picks limits and
    attention without the configuration (launcher/src/main.rs@v2.2.0, get_config).

    Failing::

        HUGGING_FACE_HUB_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct
    """
    old, new = case.variable("HUGGING_FACE_HUB_TOKEN"), case.variable("HF_TOKEN")
    if old is None or new is not None or case.version is None or case.version < (2, 2, 0) or not gated(case):
        return
    at = Value("HUGGING_FACE_HUB_TOKEN", old.key or old.place, length=22 if old.key else 0)
    message = f"TGI {case.release} reads the configuration of a gated model with HF_TOKEN only"
    yield Hit(at, message, "name the variable HF_TOKEN")


@rule("TGI405", "warning", "name of the token that is too new")
def token_name_too_new(case: Case) -> Hits:
    """Up to 2.0.4 TGI reads HUGGING_FACE_HUB_TOKEN only; HF_TOKEN alone leaves it without a token.

    The Python half finds HF_TOKEN by itself, the router does not (router/src/main.rs@v2.0.4,
    authorization_token), and gated models are read by both.

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:2.0.4 --model-id mistralai/Mistral-7B-Instruct-v0.2

    Fixed::

        HUGGING_FACE_HUB_TOKEN=$HF_TOKEN tgi:2.0.4 --model-id mistralai/Mistral-7B-Instruct-v0.2
    """
    new = case.variable("HF_TOKEN")
    others = [name for name in TOKENS if name != "HF_TOKEN" and case.variable(name) is not None]
    if new is None or others or case.version is None or case.version > (2, 0, 4):
        return
    if case.view.image.server:
        return  # tgi-gaudi's model server leaves the token to huggingface_hub (server/requirements.txt@v2.0.5: 0.24.6)
    at = Value("HF_TOKEN", new.key or new.place, length=8 if new.key else 0)
    yield Hit(
        at,
        f"TGI {case.release} does not read HF_TOKEN, only HUGGING_FACE_HUB_TOKEN",
        "name the variable HUGGING_FACE_HUB_TOKEN",
    )


@rule("TGI406", "warning", "code of the Hub without a revision")
def unpinned_code(case: Case) -> Hits:
    """`--trust-remote-code` runs the repository's code, and without `--revision` whatever it is tomorrow.

    Info where the configuration of the model is known and names no code.

    Failing::

        tgi:3.3.7 --model-id tiiuae/falcon-7b-instruct --trust-remote-code

    Fixed::

        tgi:3.3.7 --model-id tiiuae/falcon-7b-instruct --trust-remote-code --revision a09a35458c702b33eeac
    """
    given = case.view.get("trust-remote-code")
    if given is None or given.typed is not True or "revision" in case.view.flags or not case.view.complete:
        return
    if not case.view.model or is_path(case.view.model):
        return
    if case.facts is not None and "auto_map" not in case.facts.config:
        message = "the model's config.json names no code of its own, and what it names tomorrow is run"
        yield Hit(
            given.name,
            message,
            "leave the flag out if its tokenizer needs no code either, or pass --revision",
            severity="info",
            once="file",
        )
    else:
        message = "the code that the model's repository holds at the next start is run, if it holds any"
        yield Hit(given.name, message, "pass --revision with the commit you looked at", once="file")
