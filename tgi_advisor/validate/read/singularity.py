"""Images that Singularity or Apptainer runs on a cluster: those of a registry, and files made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tgi_advisor.marks import templates
from tgi_advisor.validate.found import UNSAID, Server, Value
from tgi_advisor.validate.read.docker import tail
from tgi_advisor.validate.read.environment import Environment, env_file
from tgi_advisor.validate.read.launcher import is_image, is_ours
from tgi_advisor.validate.read.world import World

ENGINES = ("singularity", "apptainer")
"""Programs that start containers on clusters."""
_VALUED = frozenset(
    (
        "-B", "--bind", "--mount", "--env", "--env-file", "-H", "--home", "--pwd", "--cwd", "-W", "--workdir", "-o",
        "--overlay", "-S", "--scratch", "--app", "--network", "--network-args", "--hostname", "--dns", "--security",
        "--apply-cgroups", "--add-caps", "--drop-caps", "--fusemount", "--pid-file", "--cpus", "--memory",
    )
)  # fmt: skip
"""Options whose value is the next word: https://apptainer.org/docs/user/main/cli/apptainer_run.html."""
_FILE = re.compile(
    r"(?:.*/)?(?:[^/]*[_+.-])?(?:text-generation-inference|tgi)(?P<rest>(?:[_+.-][^/]*)?)\.(?:sif|simg|sqsh|img)"
)
_OWN = "ghcr.io/huggingface/text-generation-inference"
_RELEASE = re.compile(r"(?:^|[_+.-])v?(?P<tag>\d+\.\d+(?:\.\d+)?(?:-\w+)*)$")

_CLEAN = re.compile(r"--(?:cleanenv|containall)|-[a-zA-Z]*[eC][a-zA-Z]*")
"""Options that keep the caller's environment out."""
_NAMES = re.compile(r"(?:APPTAINER|SINGULARITY)ENV_(\w+)")
"""Variables of the caller's that are handed in under the rest of their name, whatever the options say."""


def of_file(name: str) -> str | None:
    """The TGI image that a file of a container engine was made of, by its name; without a tag where none is in it.

    `apptainer pull` writes NAME_TAG.sif, `enroot import` OWNER+NAME+TAG.sqsh.
    """
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    release = _RELEASE.search(found["rest"])
    return f"{_OWN}:{release['tag']}" if release else _OWN


def _names_image(word: str) -> bool:
    return word.startswith("docker://") or of_file(word) is not None


def parted(word: Value) -> list[Value]:
    """A word, or the words of a command that a variable holds and that are not all known."""
    if word.text.partition(" ")[0] not in ENGINES:
        return [word]
    return [
        replace(word, text=part, known="$" not in part, length=0)
        for part in re.findall(r"(?:\$\([^()]*\)|\S)+", word.text)
    ]


def read_run(
    words: Sequence[Value],
    environment: Environment,
    instance: bool = False,
    before: Sequence[tuple[str, Value]] = (),
    world: World | None = None,
) -> Server | None:
    """The server that `singularity run` starts; `words` begin after `run`, `environment` is what it is started in.

    `before` are variables that are set for the command or exported, among them those handed in by their name.
    `instance` is for `instance run`, which names the instance behind the image. The image's own program is run: the
    words behind it are the launcher's.
    """
    last = max((at for at, word in enumerate(words) if _names_image(word.text)), default=0)
    at = 0
    while at < len(words) and (words[at].text.startswith("-") or (at < last and templates().fullmatch(words[at].text))):
        at += 2 if words[at].text in _VALUED else 1
    if at >= len(words):
        return None
    image = words[at]
    args = words[at + 2 if instance else at + 1 :]
    made_of = of_file(image.text)
    held: Value | None = None
    if image.text.startswith("docker://"):
        held = tail(image.bare, len("docker://"))
        if not is_image(held.text):
            return None
    elif made_of is not None:
        held = replace(image, text=made_of, known=True, missing=(), length=0) if ":" in made_of else None
    elif image.known or not is_ours(image, [word.text for word in args]):
        return None
    environment = _within(words[:at], environment, before, world)
    return Server("platform", "", image.place, image=held, args=tuple(args), gpus=UNSAID, **environment.fields())


def _within(
    words: Sequence[Value], caller: Environment, before: Iterable[tuple[str, Value]], world: World | None
) -> Environment:
    """The environment in the image: the caller's, unless it is kept out, what is handed in by its name, and options.

    https://apptainer.org/docs/user/latest/environment_and_metadata.html
    """
    environment = Environment() if any(_CLEAN.fullmatch(word.text) for word in words) else caller
    for name, value in before:
        if named := _NAMES.fullmatch(name):
            environment.add(named[1], value)
    for option, value in _options(words):
        if option == "--env-file":
            entries = env_file(world, value.text, f"env_file {value.text}") if value.known and world else None
            environment.sources += [replace(value, known=False)] if entries is None else []
            for name, entry in entries or ():
                environment.add(name, entry)
            continue
        at = 0
        for part in re.split(r",(?=[A-Za-z_]\w*=)", value.text):
            name, equals, text = part.partition("=")
            if equals:
                held = tail(value.bare, at + len(name) + 1)
                environment.add(name, replace(held, text=text, origin="environment", key=value.spot, length=0))
            else:
                environment.sources.append(replace(value, known=False))
            at += len(part) + 1
    return environment


def _options(words: Sequence[Value]) -> Iterator[tuple[str, Value]]:
    """`--env` and `--env-file`, with their values."""
    for word, following in zip(words, (*words[1:], None), strict=False):
        option = re.match(r"--env(?:-file)?(?==|$)", word.text)
        if option is None:
            continue
        if word.text != option[0]:
            yield option[0], tail(word, len(option[0]) + 1)
        elif following is not None:
            yield option[0], following
