"""The readers, one file per form: `read` finds out what a text is and has it read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tgi_advisor.bounds import MAX_CHARACTERS
from tgi_advisor.validate.found import Document
from tgi_advisor.validate.read.launcher import IMAGE_WORDS, LAUNCHER, MISTAKEN, STATED
from tgi_advisor.validate.read.stated import SIGN, name_of, stated_images

_SIGNS = (
    *IMAGE_WORDS,
    *MISTAKEN,
    LAUNCHER,
    SIGN,
    "HF_MODEL_ID",
    "SM_NUM_GPUS",
    "get_huggingface_llm_image_uri",
    "--max-total-tokens",
    "--max-input-tokens",
    "--max-input-length",
    "--max-batch-prefill-tokens",
)
"""One of these stands in every file that starts a TGI server, but for environment files and our own specs."""


_OF_TOOLS = re.compile(
    r"\.git(?!(?:hub|lab|ea)\b|lab-ci)[\w.-]*|\.[\w-]*ignore|codeowners|owners(?:_aliases)?|\.mailmap"
    r"|\.editorconfig|\.(?:flake8|pylintrc|clang-(?:format|tidy)|coveragerc|npmrc|nvmrc|python-version|tool-versions)"
    r"|\.(?:pre-commit|yamllint|hadolint|markdownlint|codespell|cspell|prettier|eslint|stylelint|shellcheck|trivy|gitleaks"
    r"|lycheeignore|licenserc|commitlint|lintstaged|sourcery|codeclimate|codecov)[\w.-]*"
    r"|\.?(?:renovate|dependabot|cspell|codecov|mkdocs|typos|_typos|mypy|ruff|poetry|cargo)"
    r"\.(?:ya?ml|json5?|toml|cfg|ini)|(?:requirements|constraints)[\w.-]*\.(?:txt|in)|package-lock\.json"
    r"|(?:[\w.-]+\.)?lock|\.secrets\.baseline|license(?:\.\w+)?|notice(?:\.\w+)?|authors|manifest\.in|vale\.ini"
)
"""Files that git, a linter, an editor or a package manager reads: they name files and programs and start none."""


def is_of_a_tool(file: str) -> bool:
    """Whether a file is one that git, a linter, an editor or a package manager reads."""
    return _OF_TOOLS.fullmatch(file.replace("\\", "/").rpartition("/")[2].lower()) is not None


def read(
    text: str,
    file: str,
    env: Mapping[str, str] | None = None,
    lookup: Callable[[str], str | None] | None = None,
    images: Mapping[str, str] | None = None,
    listed: Callable[[], Sequence[str]] | None = None,
) -> Document:
    """Every TGI server in a text.

    `env` holds variables whose values are known; `lookup` gives the text of a file that is named in
    this one (`env_file`, `.env`), by the name it has there, and `listed` the names of the manifests around it.
    `images` are images under other names that hold TGI, each with the tag that its own would have.
    Never raises, whatever the text is.
    """
    signs = (*_SIGNS, *map(name_of, images or {}))
    if is_of_a_tool(file) or not (
        any(sign in text for sign in signs) or _may_be_ours(text, file) or _has_parts(text, file)
    ):
        return Document(file, text, "none")
    from tgi_advisor.validate.read.forms import dispatch
    from tgi_advisor.validate.read.world import World

    world = World(env or {}, lookup) if lookup else World(env or {})
    world = replace(world, listed=listed) if listed else world
    stated = {**(images or {}), **stated_images(text[:MAX_CHARACTERS])}
    before = STATED.set(stated)
    try:
        document = dispatch(text[:MAX_CHARACTERS], file, world)
    finally:
        STATED.reset(before)
    return replace(document, stated=stated) if stated else document


def _has_parts(text: str, file: str) -> bool:
    """Whether it may be a Compose file whose servers are stated in files beside it."""
    if not file.endswith((".yaml", ".yml")):
        return False
    return (".override.y" in file and "services:" in text) or "include:" in text or "extends:" in text


def _may_be_ours(text: str, file: str) -> bool:
    """Whether it may be a deployment spec of tgi-advisor, or an environment file of the launcher."""
    if "```" in text and "MODEL_ID=" in text and "MAX_TOTAL_TOKENS=" in text:  # the environment, on a page
        return bool(re.search(r"text.generation.inference|\bTGI\b", text, re.IGNORECASE))
    if "\nhardware:" in text or text.startswith("hardware:"):
        return "model:" in text
    return "MODEL_ID" in text and ".env" in file.replace("\\", "/").rpartition("/")[2]
