"""The examples in the rules' docstrings, and the pages made from them.

In a block whose first line does not begin with a command, `tgi:3.3.7 --model-id ...` stands for a
`docker run` with everything a sound one has, `NAME=value` before it for `-e NAME=value`; in YAML
`image: tgi:3.3.7` stands for TGI's own image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tgi_advisor.validate.images import OWN
from tgi_advisor.validate.rules.rule import RULES, Rule

_HEAD = re.compile(r"^(Failing|Fixed)((?:, [^:\n]+)?)::\n", re.MULTILINE)
_SHORT = re.compile(r"^((?:[A-Z_]+=(?:\{[^}]*\}|[^\s{]|\{)*(?:\{[^}]*\})? )*)tgi:(\S+) ?(.*)$", re.MULTILINE)


class Example(NamedTuple):
    """One example of a rule."""

    fixed: bool
    """Whether it is the mended one."""
    file: str
    """Name a file of this form has."""
    options: tuple[str, ...]
    """Options of the command it needs (`--gpu nvidia-t4`)."""
    text: str
    """The file."""


def explanation(rule: Rule) -> str:
    """The docstring without its examples."""
    found = _HEAD.search(rule.doc)
    return rule.doc[: found.start()].strip() if found else rule.doc.strip()


def examples(rule: Rule) -> Iterator[Example]:
    """The failing and the fixed example; none for the few rules that have no short one."""
    from textwrap import dedent

    heads = list(_HEAD.finditer(rule.doc))
    ends = [*(head.start() for head in heads[1:]), len(rule.doc)]
    for head, end in zip(heads, ends, strict=False):
        text = dedent(rule.doc[head.end() : end]).strip("\n") + "\n"
        file, options = "run.sh", []
        for said in filter(None, (part.strip() for part in head[2].split(","))):
            if said.startswith("--"):
                options.append(said)
            else:
                file = said
        yield Example(head[1] == "Fixed", file, tuple(options), _expanded(text))


def page(rule: Rule) -> str:
    """The section of `docs/rules.md` about a rule."""
    parts = [f"## {rule.code}", f"**{rule.title[0].upper()}{rule.title[1:]}** ({rule.severity})", explanation(rule)]
    for example in examples(rule):
        said = "Fixed" if example.fixed else "Failing"
        with_options = f", checked with `{' '.join(example.options)}`" if example.options else ""
        parts.append(f"{said}, `{example.file}`{with_options}:")
        language = {"yml": "yaml", "yaml": "yaml", "py": "python"}.get(example.file.rpartition(".")[2], "sh")
        parts.append(f"```{language}\n{example.text}```")
    return "\n\n".join(parts) + "\n"


def document() -> str:
    """`docs/rules.md`."""
    head = (
        "# Rules of `tgi-advisor validate`\n\n"
        "Made from the rules' docstrings by `scripts/rules_doc.py`; every example here is run by the tests.\n"
        "Codes never change: TGI1xx arguments, 2xx memory, 3xx container and host, 4xx security, 5xx portability "
        "and hygiene.\n"
    )
    rows = [f"| [{rule.code}](#{rule.code.lower()}) | {rule.severity} | {rule.title} |" for rule in RULES.values()]
    table = "\n".join(["| code | severity | |", "|---|---|---|", *rows]) + "\n"
    return "\n".join([head, table, *map(page, RULES.values())])


def _expanded(text: str) -> str:
    text = re.sub(r"image: tgi:", f"image: {OWN}:", text)
    return _SHORT.sub(lambda found: _run(found[1].split(" ")[:-1], found[2], found[3]), text)


def _run(env: list[str], tag: str, args: str) -> str:
    """A sound `docker run` of these arguments."""
    shards = re.search(r"--num-shard (\d+)", args)
    gpus = "all"
    if shards:
        gpus = f"'\"device={','.join(map(str, range(max(1, int(shards[1])))))}\"'"
    lines = [f"docker run --gpus {gpus} --shm-size 1g -p 8080:80 -v tgi-data:/data"]
    lines += [f"    -e {entry}" for entry in env]
    lines.append(f"    {OWN}:{tag}")
    lines += [f"    {words}" for words in re.split(r" (?=--)", args) if words]
    return " \\\n".join(lines)
