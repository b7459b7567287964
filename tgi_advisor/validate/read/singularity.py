"""Images that Singularity or Apptainer runs on a cluster: those of a registry, and files made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tgi_advisor.validate.found import UNSAID, Server, Value
from tgi_advisor.validate.read.docker import tail
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.launcher import is_image, is_ours
from tgi_advisor.validate.read.words import TEMPLATE

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
_RELEASE = re.compile(r"(?:^|[_+.-])v?(?P<tag>\d+\.\d+(?:\.\d+)?(?:-\w+)*)$")


def of_file(name: str) -> str | None:
    """The TGI image that a file of a container engine was made of, by its name; without a tag where none is in it.

    `apptainer pull` writes NAME_TAG.sif, `enroot import` OWNER+NAME+TAG.sqsh.
    """
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    release = _RELEASE.search(found["rest"])
    return f"text-generation-inference:{release['tag']}" if release else "text-generation-inference"


def _names_image(word: str) -> bool:
    return word.startswith("docker://") or of_file(word) is not None


def read_run(words: Sequence[Value], environment: Environment, instance: bool = False) -> Server | None:
    """The server that `singularity run` starts; `words` begin after `run`, `environment` is what it is started in.

    `instance` is for `instance run`, which names the instance behind the image. The image's own program is run: the
    words behind it are the launcher's.
    """
    last = max((at for at, word in enumerate(words) if _names_image(word.text)), default=0)
    at = 0
    while at < len(words) and (words[at].text.startswith("-") or (at < last and TEMPLATE.fullmatch(words[at].text))):
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
    environment.sources += [replace(word, known=False) for word in words[:at] if word.text.startswith("--env")]
    return Server("platform", "", image.place, image=held, args=tuple(args), gpus=UNSAID, **environment.fields())
