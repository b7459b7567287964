"""Programs that start TGI: environments written as dictionaries, commands as lists or strings, calls of cloud SDKs.

The text (Python, notebooks, Terraform, TypeScript) is read token by token and never run: strings, numbers, names
assigned in the same text, f-strings and lists of those, defaults (`a or "b"`, `os.getenv("A", "b")`, of parameters)
and wrappers such as `json.dumps(...)` have a value; any other expression is unknown. So is what a branch may or may
not set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.facts import clouds
from tgi_advisor.validate.found import Defect, Gpus, Hint, Server, Value, Wait
from tgi_advisor.validate.read import sdk
from tgi_advisor.validate.read.commands import HOLE, as_template, scan_text, server_of
from tgi_advisor.validate.read.guards import order
from tgi_advisor.validate.read.launcher import is_image
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar
from tgi_advisor.validate.read.platform import container_of
from tgi_advisor.validate.read.script import MANIFEST, Scan, with_more, with_variables
from tgi_advisor.validate.read.sdk import Call
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.tokens import Group, Item, Token, is_word, split, tokens, unescaped
from tgi_advisor.validate.read.waits import SAGEMAKER, of_sagemaker
from tgi_advisor.validate.read.words import MAX_VALUE, Found, Variable, interpolate_kubernetes
from tgi_advisor.validate.read.world import World

MAX_TEXT = 100_000
"""Longest string that is put together from others."""
MAX_ITEMS = 5_000
"""Longest list that is put together from others."""
MAX_BLOCKS = 50
"""Branches and functions within each other that are followed."""

_PLAIN_WRAPPERS = frozenset(("str", "int", "float", "tostring", "String"))
_JSON = frozenset(("json.dumps", "dumps", "jsonencode", "JSON.stringify"))
_ENVIRON = frozenset(("os.getenv", "getenv", "os.environ.get", "environ.get", "os.environ.setdefault"))
_TELLS = frozenset(
    (
        "SM_NUM_GPUS", "NUM_SHARD", "MAX_TOTAL_TOKENS", "MAX_INPUT_LENGTH", "MAX_INPUT_TOKENS",
        "MAX_BATCH_PREFILL_TOKENS", "MAX_BATCH_TOTAL_TOKENS",
    )
)  # fmt: skip
"""Environment that only a TGI container has."""
_OTHERS = ("OPTION_", "SERVING_", "SM_VLLM_", "VLLM_", "SM_SGLANG_")
"""How variables of other servers begin: DJL-LMI's, vLLM's, SGLang's."""
_ENDPOINT = re.compile(r"\.deploy\(|create_endpoint_config\(|EndpointConfig(?:\.create)?\(|\bproduction_variants\s*\{")
"""Where an endpoint of SageMaker is set up."""
_INSTANCE = ("instance_type", "InstanceType", "instanceType", "machine_type")
_DEPLOYS = frozenset(("deploy", "ProductionVariant", "production_variant", "ProductionVariantProperty"))
"""What is given the instance type of an endpoint."""
_OF_JOB = re.compile(
    r"Estimator$|^HuggingFace$|^PyTorch$|^TensorFlow$|^SKLearn$|^XGBoost$|Processor$|[Tt]ransformer$|[Tt]uner$|Trainer$"
    r"|^Compute$|[Nn]otebook|(?:[Tt]raining|[Pp]rocessing|[Tt]ransform|[Tt]uning)_?(?:[Jj]ob|Step)|^retrieve$|Step$"
    r"|^Cluster|_cluster$|Benchmark|Recommend|right_size|[Cc]ompil"
)
"""What runs a job, or looks something up for one, and no endpoint."""
_VARIANT = frozenset((
    "VariantName", "InitialInstanceCount", "initial_instance_count", "variant_name", "ModelName", "model_name",
    "initialInstanceCount", "variantName", "endpoint_name",
))  # fmt: skip
"""What stands beside the instance type of an endpoint."""
_RESOURCES = frozenset((
    "VolumeSizeInGB", "volume_size_in_gb", "volume_size", "NotebookInstanceName", "ami", "MaxRuntimeInSeconds",
    "lifecycle_config_name", "platform_identifier", "KeepAlivePeriodInSeconds",
))  # fmt: skip
"""What stands beside the instance type of a job, a notebook or a machine."""
_ANOTHER = re.compile(r"lorax|djl-|\blmi\b|vllm|sglang", re.IGNORECASE)
_OURS = re.compile(r"text.generation.inference|\btgi\b|huggingface.llm", re.IGNORECASE)
_OWN = re.compile(r"[/_-]tgi(?![a-z])", re.IGNORECASE)
"""An image under a name of one's own that says it is TGI's."""
_PARSED = re.compile(r"\b(?:\w*parse(?:_known)?(?:_args)?|get_\w*args)\(")
_SELF = ("self", "cls", "this")
Holder = Callable[[str], Node | None]
"""The value of what stands in a hole of a text."""
_OPENED = ("if", "for", "while", "except", "else", "elif", "case")
"""What begins a branch that may not be taken."""
_WRITTEN = re.compile(r"\.(?:write|writelines|append|extend)\(\s*\[?\s*[fFrRbBuU]{0,2}[\"'`]{1,3}\Z")
"""What puts a string into a file, or a list, piece by piece."""
_LEAVES = ("return", "raise", "continue", "break", "sys.exit", "exit", "quit", "process.exit")
"""What ends a function or a loop."""
_SIGNS = ("==", "!=", "===", "!==", "<", ">", "<=", ">=", "is", "in", "not")
"""What compares a name with what stands behind it."""
_PRINTS = re.compile(
    r"(?<![\w.])(?:print|echo|click\.(?:echo|secho)|console\.(?:log|error|info|warn)|log(?:ger|ging)?\.\w+|parser\.error"
    r"|sys\.exit|sys\.std(?:out|err)\.write|raise \w+)\(\s*[fFrRbBuU]{0,2}[\"'`]{1,3}\Z"
    r"|\b(?:help|description|epilog|usage)\s*=\s*\(?\s*[fFrRbBuU]{0,2}[\"']{1,3}\Z"
)
"""What prints the string behind it."""


_CONVERSION = re.compile(r"%(?:\(\w*\))?[-#0+ ]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[diouxXeEfFgGcrsa%]")
"""A place of `"..." % values`."""


class _Instance(NamedTuple):
    """One mention of a cloud instance type."""

    at: int
    """Where it stands."""
    value: Value
    """It."""
    deploys: bool
    """Whether it is that of an endpoint: given to `deploy`, or in a production variant."""
    of: frozenset[int]
    """The mappings its model is made of; nothing where that cannot be said."""


class Program(NamedTuple):
    """What a program holds."""

    servers: list[Server]
    """TGI servers it starts, those in its strings too."""
    defects: list[Defect]
    """What is wrong with commands in its strings."""
    strings: list[tuple[int, int]]
    """Where its strings stand in the text."""
    variables: dict[str, Variable]
    """Names with a value, as a shell in a notebook sees them."""


class _Block(NamedTuple):
    """A branch or a function that is open."""

    indent: int
    """Column its first word stands in."""
    function: bool
    """Whether it is a function (or class), whose names end with it."""
    of_class: bool
    """Whether it is a class, whose names are attributes."""
    sure: bool
    """Whether it is always run."""
    before: dict[str, Node | None]
    """Names that were assigned in it, as they were before."""
    condition: Sequence[Item]
    """What it is run under; nothing for an `else`."""
    ruled_out: dict[str, Node]
    """Names whose value its condition rules out, with that value."""
    leaves: list[Item]
    """What ends the function or the loop in it."""


def read_python(
    source: Source, world: World, parts: Sequence[tuple[int, int]] = (), environ: Sequence[tuple[str, int, int]] = (),
    apart: bool = False,
) -> Program:  # fmt: skip
    """Every TGI server a program starts; `parts` are the pieces of the text that are program, all of it by default.

    `environ` are variables its notebook sets: name, and where the value stands. `apart`: the pieces may be examples of
    their own, so that of several images or GPUs none is taken because it stands near.
    """
    reader = _Reader(source, world)
    reader.apart = apart
    for name, start, end in environ:
        reader.environ[name] = reader.literal(start, end)
    read = [tokens(source, start, end) for start, end in parts or ((0, len(source.text)),)]
    for items in read:
        reader.note_calls(items)
        if reader.hcl:
            reader.note_defaults(items)
    for items in read:
        reader.statements(items)
    servers, defects = reader.servers()
    return Program(servers, defects, reader.strings, reader.known())


class _Reader:
    """What the text has assigned so far, and the mappings found in it."""

    def __init__(self, source: Source, world: World) -> None:
        self.source = source
        self.world = world
        self.apart = False
        self.variables: dict[str, Node] = {}
        self.environ: dict[str, Scalar] = {}
        self.options: dict[str, Node] = {}
        self.maps: list[Call] = []
        self.lists: dict[int, List] = {}
        self.texts: dict[int, Scalar] = {}
        self.strings: list[tuple[int, int]] = []
        self.instances: list[_Instance] = []
        self.images: list[tuple[int, Value]] = []
        self.gpus: list[tuple[int, Value]] = []
        self.waits: list[tuple[int, str, Value]] = []
        self.counts: dict[Place, int | None] = {}
        self.blocks: list[_Block] = []
        self.conditions: dict[int, list[Sequence[Item]]] = {}
        self.hcl = source.file.name.endswith((".tf", ".hcl", ".nomad"))
        self.given: dict[str, set[str]] = {}
        self.of_class = ""
        self.attributes: dict[str, Node] = {}
        self.changing = _set_twice(source.text)
        self.of_another = bool(_ANOTHER.search(source.text)) and not _OURS.search(source.text)
        self.writes = len(re.findall(r"\.(?:write|writelines|append|extend)\(", source.text))
        devices = re.findall(r"NumberOfAcceleratorDevicesRequired[\"']?\s*[:=]\s*([\w.\[]+)", source.text)
        self.shared = bool(devices)  # several models on one instance (inference components)
        self.each = int(devices[0]) if len(set(devices)) == 1 and re.fullmatch("[1-9]", devices[0]) else None

    def servers(self) -> tuple[list[Server], list[Defect]]:
        """The servers, in the order of the text, and what is wrong with commands among them."""
        made: list[Server] = []
        defects: list[Defect] = []
        self.counts = dict(sdk.gpu_counts(self.maps))
        for command in self.lists.values():
            server, wrong = server_of(command, self.world)
            made += [self._at_home(server)] if server else []
            defects += wrong
        for text in self.texts.values():
            if (manifest := self._manifest(text)) is not None:
                made += manifest.servers
                defects += manifest.defects
                continue
            if _PRINTS.search(self.source.text, max(0, text.start - 100), text.start):
                continue  # for a person to read
            found = scan_text(text, self.world)
            made += map(self._at_home, found.servers)
            defects += found.defects
        used: set[int] = set()
        made += sdk.servers_of(self.maps, used)
        for call in reversed(self.maps):  # calls come after the dictionaries they are given
            server = self._container(call.node, call.name, used)
            made += [server] if server else []
        for call in self.maps:
            told = call.node.entries and any(one.place == call.node.entries[0][0].place for one in made)
            if id(call.node) not in used and not told and self._is_environment(call.node):  # dict(...) is a call too
                used.add(id(call.node))
                made.append(self._from_environment(call.node))
        held = {one.entry.place for one in made if one.form != "launcher" and one.entry is not None}
        return [one for one in made if one.form != "launcher" or one.place not in held], defects

    def _manifest(self, text: Scalar) -> Scan | None:
        """The servers of a manifest or a Compose file that a string holds."""
        if "\n" not in text.text or not MANIFEST.search(text.text) or len(text.text) > MAX_TEXT:
            return None
        from tgi_advisor.validate.read.documents import read_documents

        _, servers, defects = read_documents(as_template(text), self.world)
        if any(one.kind == "yaml-syntax" for one in defects):
            return None
        if _WRITTEN.search(self.source.text, max(0, text.start - 40), text.start) and self.writes > 1:
            servers = [with_more(one, "what else is written to its file") for one in servers]
        return Scan(servers, defects if servers else [])

    def known(self) -> dict[str, Variable]:
        """Names with a text."""
        held = {name: node for name, node in self.variables.items() if isinstance(node, Scalar)}
        return {name: Variable(one.text, one.known, one.missing, one.defaulted) for name, one in held.items()}

    def _at_home(self, server: Server) -> Server:
        """A bare launcher in the image and on the GPU its program names (Modal)."""
        if server.form != "launcher":
            return server
        images = {image.text: image for _, image in self.images}
        gpu = _nearest(self.gpus, self.source.file.offset_of(server.place))
        hints = (sdk.gpu_hint(gpu, self.counts.get(gpu.place, 1)),) if gpu else ()
        count = hints[0].count if hints else None
        gpus = Gpus("count", "platform", gpu, count) if count else server.gpus
        image = next(iter(images.values())) if len(images) == 1 else None
        return replace(server, image=image, hints=hints, gpus=gpus)

    def _is_environment(self, node: Map) -> bool:
        """Whether a dictionary is the environment of a TGI container."""
        names = node.merged.keys()
        if any(name.startswith(_OTHERS) for name in names) or (not self.images and self.of_another):
            return False
        if "HF_MODEL_ID" in names:
            return bool(_TELLS & names) or bool(self.images)
        return "MODEL_ID" in names and len(_TELLS & names) > 1

    def _container(self, node: Map, call: str, used: set[int]) -> Server | None:
        """A mapping that names an image, and perhaps an environment."""
        scalars = [
            item for name, (_, item) in node.merged.items()
            if ("image" in name.lower() or name in ("url", "uri")) and isinstance(item, Scalar) and not item.null
        ]  # fmt: skip
        image = next((item for item in scalars if is_image(item.text)), scalars[0] if scalars else None)
        env = node.get(
            "env", "Environment", "environment", "environment_variables", "serving_container_environment_variables",
            "env_vars",
        )  # fmt: skip
        if image is None or id(node) in used:
            if isinstance(env, Map) and image is None and node.get("transformers_version") is not None:
                used.add(id(env))  # Hugging Face's inference toolkit
            return None
        if isinstance(env, Map):
            if id(env) in used:
                return None
            if not is_image(image.text):
                if _says_which(image) and not (_OWN.search(image.text) and len(_TELLS & env.merged.keys()) > 1):
                    used.add(id(env))  # an image of something else
                    return None
                if not _says_which(image):
                    return None
            used.add(id(env))
            if node.get("model_data") is not None and not {"HF_MODEL_ID", "MODEL_ID"} & env.merged.keys():
                return None  # the model comes with the container, whatever serves it
        elif not is_image(image.text) or len(node.merged) < 2 or call.endswith((*sdk.IMAGE_CALLS, "Model")):
            return None
        used.add(id(node))
        given = sdk.with_its_model(node) if call.endswith("ModelBuilder") else sdk.as_container(node)
        server = container_of(given, image.value("image"), self.world)
        server = _with_its_environment(server) if self.hcl else server
        return self._finished(server, env if isinstance(env, Map) else node)

    def _from_environment(self, node: Map) -> Server:
        """An environment whose container is not written as one mapping."""
        image = self._near(self.images, node.start)
        holder = Map([(Scalar("env", self.source, node.start, node.start), node)], self.source, node.start)
        server = container_of(holder, image, self.world)
        return self._finished(replace(server, image=image), node)

    def _finished(self, server: Server, node: Map) -> Server:
        """With its place, and the instance it runs on."""
        place = node.entries[0][0].place if node.entries else node.place
        instance = self._instance_of(server, node)
        cloud = clouds.find(server.image.text) if server.image is not None else None
        elsewhere = cloud is not None and cloud.name != "sagemaker"
        if not elsewhere and ("HF_MODEL_ID" in server.env or (instance and instance.text.startswith("ml."))):
            gpus = Gpus("all", "platform", instance) if instance else Gpus("unknown", "platform")
            if instance and self.each:
                gpus = Gpus("count", "platform", instance, self.each)
            hints = (Hint("instance", instance),) if instance else ()
            own = instance is not None and instance.text.startswith("ml.") and not self.shared
            waits = self._waits(node.start) if own else ()
            return replace(server, form="sagemaker", place=place, gpus=gpus, hints=hints, waits=waits)
        if not server.hints and (gpu := self._near(self.gpus, node.start)):
            hint = sdk.gpu_hint(gpu, self.counts.get(gpu.place))
            count = Gpus("count", "platform", gpu, hint.count) if hint.count else server.gpus
            server = replace(server, hints=(hint,), gpus=count if server.gpus.asked == "unknown" else server.gpus)
        return replace(server, place=place)

    def _near(self, found: Sequence[tuple[int, Value]], at: int) -> Value | None:
        """The nearest of what is named in the text, where that can be meant."""
        several = self.apart and len({value.text for _, value in found}) > 1
        return None if several else _nearest(found, at)

    def _waits(self, start: int) -> tuple[Wait, ...]:
        """How long SageMaker waits for a model that is described at this place, and deployed after it."""
        later = [(name, value) for at, name, value in self.waits if self.hcl or at > start]
        return of_sagemaker(later, len(_ENDPOINT.findall(self.source.text))) if len(later) == len(self.waits) else ()

    def _instance_of(self, server: Server, node: Map) -> Value | None:
        """The instance type a server runs on: beside it, of the call that deploys it, else the only one it can be."""
        if self.shared and self.each is None:
            return None
        own = next((hint.value for hint in server.hints if hint.kind == "instance"), None)
        if own is not None:
            return own
        deploys = [one for one in self.instances if one.deploys]
        found = [one for one in deploys if id(node) in one.of]
        if not found:
            found = [one for one in deploys if not one.of] if deploys else self.instances
        if "HF_MODEL_ID" in server.env:
            found = [one for one in found if one.value.text.startswith("ml.") or not one.value.known]
        if len({one.value.text for one in found}) != 1 or not found[0].value.known:
            return None
        return _nearest([(one.at, one.value) for one in found], node.start)

    # -- statements

    def note_calls(self, items: Sequence[Item]) -> None:
        """What every call in the text gives: names and positions of arguments, `*` where that cannot be said."""
        for at, item in enumerate(items):
            if not isinstance(item, Group):
                continue
            self.note_calls(item.items)
            name = items[at - 1] if at else None
            if item.opened != "(" or not isinstance(name, Token) or name.kind != "name":
                continue
            if at > 1 and is_word(items[at - 2], "def", "class"):
                continue
            given = self.given.setdefault(name.text.rpartition(".")[2], set())
            for number, part in enumerate(split(item.items, (",",))):
                first = part[0]
                if is_word(first, "*", "**"):
                    given.add("*")
                elif isinstance(first, Token) and len(part) > 1 and is_word(part[1], "="):
                    given.add(first.text)
                else:
                    given.add(str(number))

    def note_defaults(self, items: Sequence[Item]) -> None:
        """Terraform's variables with a literal for a default, and its locals that are literals."""
        for at, item in enumerate(items):
            group = next((one for one in items[at + 1 : at + 3] if isinstance(one, Group)), None)
            if group is None or not is_word(item, "variable", "locals"):
                continue
            named = items[at + 1]
            for part in split(group.items, (",",), newlines=True):
                if len(part) != 3 or not is_word(part[1], "=") or not isinstance(part[0], Token):
                    continue
                held = part[2]
                if not isinstance(held, Token) or held.kind not in ("string", "number"):
                    continue
                value = self._single(held)
                name = f"local.{part[0].text}" if is_word(item, "locals") else ""
                if part[0].text == "default" and isinstance(named, Token) and named.kind == "string":
                    name = f"var.{self._string(named).text}"
                if name and isinstance(value, Scalar) and value.text:  # an empty default is there to be replaced
                    self.variables[name] = value

    def statements(self, items: Sequence[Item]) -> None:
        """Assignments and expressions, line by line."""
        line: list[Item] = []
        for item in [*items, Token("newline", "\n", 0, 0)]:
            if isinstance(item, Token) and (item.kind == "newline" or item.text == ";"):
                if line:
                    self._statement(line)
                line = []
            else:
                line.append(item)
        while self.blocks:
            self._close(self.blocks.pop())

    def _statement(self, line: list[Item]) -> None:
        """One line: what it opens, sets or calls."""
        first = line[0]
        indent = first.start - self.source.text.rfind("\n", 0, first.start) - 1
        while self.blocks and indent <= self.blocks[-1].indent:
            self._close(self.blocks.pop())
        if self.blocks and is_word(first, *_LEAVES):
            self.blocks[-1].leaves.append(first)
        if is_word(first, "async", "@") and len(line) > 1:
            line, first = line[1:], line[1]
        if is_word(first, "def", "class", "with", "try", "finally", *_OPENED) and is_word(line[-1], ":"):
            self._open(indent, line)
        elif is_word(first, "return", "await", "yield", "raise", "assert", "export", "const", "let", "var", "del"):
            self._assign(line[1:]) if is_word(first, "export", "const", "let", "var") else self._expression(line[1:])
        else:
            self._assign(line)

    def _open(self, indent: int, line: list[Item]) -> None:
        """A branch, a loop, a function or a class."""
        first, head = line[0], line[1:-1]
        function = is_word(first, "def", "class")
        sure = not is_word(first, *_OPENED) or any(is_word(item, "__name__") for item in head)
        if len(self.blocks) < MAX_BLOCKS:
            self.blocks.append(_Block(indent, function, is_word(first, "class"), sure, {}, head, {}, []))
            if is_word(first, "if", "elif", "else", "while"):
                self._rule_out(self.blocks[-1], first, head)
        if is_word(first, "def"):
            parameters = next((item for item in head if isinstance(item, Group)), None)
            name = head[0].text if head and isinstance(head[0], Token) else ""
            self._parameters(name, parameters.items if parameters else [])
            return
        if is_word(first, "for"):
            inside = next((at for at, item in enumerate(head) if is_word(item, "in")), len(head))
            for item in head[:inside]:
                if isinstance(item, Token) and item.kind == "name":
                    self._set(item.text, None)
            head = head[inside + 1 :]
        elif is_word(first, "class"):
            self.of_class = head[0].text if head and isinstance(head[0], Token) else ""
            return
        self._expression(head)

    def _rule_out(self, block: _Block, first: Item, head: Sequence[Item]) -> None:
        """Makes the names unknown in a branch whose values its condition, or those before it, rule out."""
        earlier = self.conditions.get(block.indent, []) if is_word(first, "elif", "else") else []
        names = {name for one in earlier for name in self._excluded(one, wanted=False)}
        names |= self._excluded(head, wanted=True)
        self.conditions[block.indent] = [*earlier, head] if head else []
        for name in names:
            block.ruled_out[name] = self.variables[name]
        self._hide(names)

    def _hide(self, names: Iterable[str]) -> None:
        """Makes names unknown."""
        for name in names:
            held = self.variables.get(name)
            self._put(
                name, held.copied(known=False, missing=(*held.missing, name)) if isinstance(held, Scalar) else None
            )

    def _excluded(self, condition: Sequence[Item], *, wanted: bool) -> set[str]:
        """The names whose value a condition rules out: with that it does not hold (or does, where it must not)."""
        names: set[str] = set()
        for part in split(condition, ("and", "or")):
            turned = 0
            while part and is_word(part[0], "not"):
                part, turned = part[1:], turned + 1
            first = part[0] if part else None
            if isinstance(first, Group) and len(part) == 1 and first.opened == "(":
                names |= self._excluded(first.items, wanted=wanted is not bool(turned % 2))
            elif isinstance(first, Token) and first.kind == "name":
                name = re.sub(r"\.(?:lower|upper|strip|casefold)$", "", first.text)
                held = self.variables.get(name)
                if not isinstance(held, Scalar) or not held.known:
                    continue
                if name != first.text and len(part) > 1 and isinstance(part[1], Group):  # q.lower() != "none"
                    part = [first, *part[2:]]
                elif len(part) > 1 and not is_word(part[1], *_SIGNS):
                    continue
                holds = self._holds(held, part[1:])
                if holds is None or (holds is not bool(turned % 2)) is not wanted:
                    names.add(name)
        return names

    def _holds(self, held: Scalar, rest: Sequence[Item]) -> bool | None:
        """Whether a value is what stands behind it in a condition; None where that cannot be said."""
        empty = not held.text or (not held.style and held.text in ("0", "False", "false", "null"))
        if not rest:
            return not empty
        turned = is_word(rest[0], "!=", "!==") or any(is_word(item, "not") for item in rest[:2])
        words = [item for item in rest if not is_word(item, "not")]
        if len(words) != 2 or not is_word(words[0], "==", "!=", "===", "!==", "is", "in", "<", ">", "<=", ">="):
            return None
        other = self._expression([words[1]])
        if is_word(words[0], "in"):
            if not isinstance(other, List):
                return None
            members = [one.text for one in other.items if isinstance(one, Scalar) and one.known]
            if held.text not in members and len(members) < len(other.items):
                return None
            return (held.text in members) is not turned
        if not isinstance(other, Scalar) or not other.known:
            return None
        if is_word(words[0], "<", ">", "<=", ">="):
            return order(held.text, words[0].text, other.text)  # type: ignore[union-attr]
        return (held.text == other.text and bool(held.style) == bool(other.style)) is not turned

    def _parameters(self, function: str, items: Sequence[Item]) -> None:
        """Parameters: their defaults, where no call in the text gives something else."""
        given = self.given.get(self.of_class if function == "__init__" else function, set())
        number = 0
        for part in split(items, (",",)):
            name = next((item for item in part if isinstance(item, Token) and item.kind == "name"), None)
            if name is None:
                continue
            at = next((at for at, item in enumerate(part) if is_word(item, "=")), None)
            value = self._expression(part[at + 1 :]) if at is not None else None
            if isinstance(value, Scalar):
                value = value.copied(defaulted=(name.text,))
                if not value.null:
                    self._note(name.text, value)
            self._set(name.text, None if given & {name.text, str(number), "*"} else value)
            number += name.text not in ("self", "cls")

    def _close(self, block: _Block) -> None:
        """The end of a branch: what it may have set is unknown after it; of a function the names are gone."""
        for name, held in block.ruled_out.items():
            if name not in block.before:
                self._put(name, held)
        for name, before in block.before.items():
            if block.function:
                self._put(name, before)
            elif before is not None and not block.sure:
                now = self.variables.get(name)
                same = isinstance(before, Scalar) and isinstance(now, Scalar) and before.text == now.text
                if now is not before and not same:
                    self._put(
                        name, now.copied(known=False, missing=(*now.missing, name)) if isinstance(now, Scalar) else None
                    )
        if block.leaves and not block.function and block.condition:
            for name in self._excluded(block.condition, wanted=False):
                for around in self.blocks:
                    around.before.setdefault(name, self.variables.get(name))
                self._hide((name,))

    def _set(self, name: str, value: Node | None) -> None:
        """Gives a name a value, or makes it unknown."""
        for block in self.blocks:
            block.before.setdefault(name, self.variables.get(name))
        self._put(name, value)

    def _put(self, name: str, value: Node | None) -> None:
        if value is None:
            self.variables.pop(name, None)
        else:
            self.variables[name] = value

    @property
    def _sure(self) -> bool:
        """Whether the statement at hand is always run when its function is."""
        return all(block.sure for block in self.blocks)

    def _assign(self, line: list[Item]) -> None:
        """`NAME = expression`, `NAME["KEY"] = expression`, `NAME += expression`, or an expression."""
        equals = next((at for at, item in enumerate(line[:8]) if is_word(item, "=", "+=", "|=")), None)
        if equals is None:
            self._expression(line)
            return
        value = self._expression(line[equals + 1 :])
        target = line[0]
        if isinstance(target, Token) and _PARSED.search(self.source.text, line[equals].end, line[-1].end):
            for option, default in self.options.items():
                self._set(f"{target.text}.{option}", default)
        if not isinstance(target, Token) or target.kind != "name":
            return
        if any(is_word(item, ",", "-", "*", "/", "%", "**") for item in line[:equals]):  # a, b = ...; a -= ...
            for item in line[:equals]:
                if isinstance(item, Token) and item.kind == "name":
                    self._set(item.text, None)
            return
        key = line[1] if equals == 2 else None
        if isinstance(key, Group) and key.opened == "[":
            name = self._expression(key.items)
            if target.text in ("os.environ", "environ") and isinstance(name, Scalar) and isinstance(value, Scalar):
                self.environ[name.text] = (
                    value if self._sure else value.copied(known=False, missing=(*value.missing, name.text))
                )
            held = self.variables.get(target.text)
            if isinstance(held, Map) and isinstance(name, Scalar) and value is not None:
                self._add(held, [(name, value)])
        elif is_word(line[equals], "+=", "|="):
            self._extend(target.text, value)
        elif value is not None and (equals == 1 or is_word(line[1], ":")):
            self._note(target.text.rpartition(".")[2], value)
            owner, _, last = target.text.rpartition(".")
            if owner in _SELF or (self.blocks and self.blocks[-1].of_class):
                self.attributes[last] = value
            if owner not in _SELF:
                self._set(target.text, value)

    def _add(self, held: Map, entries: Sequence[tuple[Scalar, Node]]) -> None:
        """Entries a dictionary is given later; unknown where that depends."""
        for name, value in entries:
            open_ = isinstance(value, Scalar) and not self._sure
            held.entries.append((name, value.copied(known=False, missing=value.missing) if open_ else value))  # type: ignore[union-attr]
        held.__dict__.pop("merged", None)

    def _extend(self, name: str, more: Node | None) -> None:
        """`NAME += more`, `NAME.extend(more)`, `NAME.update(more)`."""
        held = self.variables.get(name)
        if isinstance(held, Map) and isinstance(more, Map):
            self._add(held, more.entries)
        elif isinstance(held, List):
            items: list[Node] = more.items if isinstance(more, List) else [more] if more is not None else []
            self.lists.pop(id(more), None)
            if items and (not self._sure or not isinstance(more, List)):  # perhaps these words, perhaps others
                items = self._perhaps(items, held)
            if len(held.items) + len(items) <= MAX_ITEMS:
                held.items += items
        elif isinstance(held, Scalar) and isinstance(more, Scalar):
            joined = self._joined([held, more], more.start, more.end)
            self._set(name, joined if self._sure else joined.copied(known=False, missing=(*joined.missing, name)))
        elif held is not None:
            self._set(name, None)

    def _perhaps(self, items: Sequence[Node], held: List) -> list[Node]:
        """Words that a branch adds: the flags are there or not, and their values are not known.

        A flag that is there already was added by another branch, or is not added twice.
        """
        scalars = [item for item in items if isinstance(item, Scalar)]
        if len(scalars) < len(items) or scalars[-1].text.startswith("-"):  # its value may follow, or it is a switch
            return [self._unknown(items[0].start, items[0].start)]
        there = {one.text for one in held.items if isinstance(one, Scalar) and one.text.startswith("-")}
        made: list[Node] = []
        again = False
        for one in scalars:
            flag = one.text.startswith("-")
            again = one.text in there if flag else again
            made += [] if again else [one if flag else one.copied(known=False, missing=one.missing)]
        return made

    def _note(self, name: str, value: Node) -> None:
        """Remembers instance types, GPUs and images by where they stand, and how long SageMaker waits."""
        if not isinstance(value, Scalar):
            return
        if name in SAGEMAKER:
            self.waits.append((value.start, name, value.value("file")))
        if name in _INSTANCE and value.known:
            self._note_instance(value)
        named = name in sdk.GPU_NAMES and (name not in _INSTANCE or _is_card(value))
        if named and value.known and re.fullmatch(r"[A-Za-z][\w-]*\d.*", value.text):
            self.gpus.append((self.source.offset(value.start), value.value("file")))
        elif is_image(value.text):
            self.images.append((value.start, value.value("image")))

    def _note_instance(self, value: Scalar, deploys: bool = False, owner: Node | None = None) -> None:
        """Remembers an instance type, one of an endpoint even if it is not known."""
        if (value.known or deploys) and not _is_card(value):
            held = (
                (owner, *(item for _, item in owner.entries if isinstance(item, Map))) if isinstance(owner, Map) else ()
            )
            self.instances.append(_Instance(value.start, value.value("file"), deploys, frozenset(map(id, held))))

    def _note_instances(self, made: Map, call: str) -> None:
        """Remembers the instance type that a call, or a mapping, gives an endpoint; a job's is none of a server's."""
        owner, _, short = call.rpartition(".")
        value = next((found for name in _INSTANCE if (found := made.scalar(name)) is not None), None)
        if value is None or _OF_JOB.search(short) or _RESOURCES & made.merged.keys():
            return
        beside = not call and bool(_VARIANT & made.merged.keys())
        self._note_instance(
            value, short in _DEPLOYS or beside, self.variables.get(owner) if short == "deploy" else None
        )

    # -- expressions

    def _expression(self, items: Sequence[Item]) -> Node | None:
        """What an expression is, as far as it is known; None for nothing."""
        items = [item for item in items if not (isinstance(item, Token) and item.kind == "newline")]
        if not items:
            return None
        start, end = items[0].start, items[-1].end
        if is_word(items[0], "-") and len(items) == 2 and isinstance(items[1], Token) and items[1].kind == "number":
            return self.literal(start, end)
        words = {item.text for item in items if isinstance(item, Token) and item.kind in ("name", "operator")}
        if "if" in words and "else" in words and not is_word(items[0], "if"):
            return self._choice(items)
        for sign in ("or", "||", "??"):
            if sign in words:
                return self._first_of([self._expression(part) for part in split(items, (sign,))], start, end)
        if words & {"and", "not", "in", "is", "==", "!=", "<", ">", "<=", ">=", "lambda", "for", "?"}:
            signs = ("and", "not", "in", "is", "==", "!=", "<", ">", "<=", ">=", "for", "if", "?", ":", "lambda")
            for part in split(items, signs):
                self._expression(part)
            return self._unknown(start, end)
        if "|" in words or "+" in words:
            return self._sum([self._expression(part) for part in split(items, ("+", "|"))], start, end)
        if words & {"%", "-", "*", "/", "//", "**", ">>", "&"}:
            nodes = [self._expression(part) for part in split(items, ("%", "-", "*", "/", "**", "&"))]
            template = nodes[0] if "%" in words and nodes else None
            return self._percent(template, start, end)
        return self._chain(items)

    def _choice(self, items: Sequence[Item]) -> Node | None:
        """`a if b else c`: known where both are the same."""
        at = next(at for at, item in enumerate(items) if is_word(item, "if"))
        otherwise = next((n for n, item in enumerate(items) if n > at and is_word(item, "else")), len(items))
        condition = items[at + 1 : otherwise]
        self._expression(condition)
        one = self._behind(condition, items[:at], wanted=True)
        other = self._behind(condition, items[otherwise + 1 :], wanted=False)
        start, end = items[0].start, items[-1].end
        if not isinstance(one, Scalar) or not isinstance(other, Scalar):
            return self._unknown(start, end)
        if one.text == other.text:
            return one
        images = [node for node in (one, other) if is_image(node.text)]
        if images:  # it is TGI's, or may be; which release depends
            name = re.split(r"[:@]", images[0].text.rpartition("/")[2])[0]
            head = images[0].text.rpartition("/")[0]
            text = f"{head}/{name}:{{tag}}" if head else f"{name}:{{tag}}"
            return images[0].copied(text=text, known=False, missing=("tag",))
        return self._unknown(start, end)

    def _behind(self, condition: Sequence[Item], items: Sequence[Item], *, wanted: bool) -> Node | None:
        """What an expression is behind a condition."""
        held = {name: self.variables[name] for name in self._excluded(condition, wanted=wanted)}
        self._hide(held)
        node = self._expression(items)
        self.variables.update(held)
        return node

    def _first_of(self, nodes: Sequence[Node | None], start: int, end: int) -> Node | None:
        """`a or b`: the first that is known to be something; the last where the others may be nothing."""
        missing: tuple[str, ...] = ()
        for node in nodes:
            if not isinstance(node, Scalar):
                if node is not None:
                    return node
            elif node.known and (node.style or not node.null) and node.text:
                return node.copied(defaulted=missing) if missing else node
            else:
                missing += node.missing or (node.text,)
        return self._unknown(start, end)

    def _sum(self, nodes: Sequence[Node | None], start: int, end: int) -> Node | None:
        """Strings, lists or dictionaries put together."""
        if nodes and all(isinstance(node, Map) for node in nodes):
            made = Map([entry for node in nodes if isinstance(node, Map) for entry in node.entries], self.source, start)
            self.maps.append(Call(made))
            return made
        if any(isinstance(node, List) for node in nodes):
            items: list[Node] = []
            for node in nodes:
                self.lists.pop(id(node), None)
                items += node.items if isinstance(node, List) else [node] if isinstance(node, Scalar) else []
            return self._listed(items, start)
        scalars = [node for node in nodes if isinstance(node, Scalar)]
        if len(scalars) == len(nodes) and any(node.style for node in scalars):
            return self._joined(scalars, start, end)
        return self._unknown(start, end)

    def _joined(self, parts: Sequence[Scalar], start: int, end: int) -> Scalar:
        """Strings put together; what is not known stands in braces, as in an f-string."""
        if sum(len(part.text) for part in parts) > MAX_TEXT:
            return self._unknown(start, end)
        text, offsets, missing = "", list[int](), list[str]()
        for part in parts:
            self.texts.pop(id(part), None)
            bare = not part.known and (not part.style or "{" not in part.text)
            name = part.text if re.fullmatch(r"[\w.()\[\]\"']*", part.text) else "..."
            words = f"{{{name}}}" if bare else part.text
            missing += [name] if bare else ()
            missing += part.missing
            text += words
            offsets += (
                [part.source.offset(0)] * len(words) if bare else [part.source.offset(at) for at in range(len(words))]
            )
        defaulted = tuple(name for part in parts for name in part.defaulted)
        made = Source(self.source.file, text, offsets)
        known = all(part.known for part in parts)
        return self._told(Scalar(text, self.source, start, end, '"', known, tuple(missing), made, defaulted))

    def _listed(self, items: list[Node], start: int) -> List:
        """A list, remembered in case it is a command."""
        made = List(items[:MAX_ITEMS], self.source, start)
        self.lists[id(made)] = made
        return made

    def _told(self, text: Scalar) -> Scalar:
        """A string, remembered in case it holds a command."""
        self.texts[id(text)] = text
        return text

    def _unknown(self, start: int, end: int) -> Scalar:
        """An expression whose value is not known, as written."""
        text = self.source.text[start:end]
        name = (text,) if re.fullmatch(r"[A-Za-z_][\w.]*", text) else ()
        return Scalar(text, self.source, start, end, "", False, name, self.source.part(start, end))

    def literal(self, start: int, end: int, style: str = "") -> Scalar:
        """A value as it is written."""
        text = self.source.text[start:end]
        return Scalar(text, self.source, start, end, style, True, (), self.source.part(start, end))

    def _chain(self, items: Sequence[Item]) -> Node | None:
        """A name or value with what is called on it, or strings beside each other."""
        first, end = items[0], items[-1].end
        strings = [item for item in items if isinstance(item, Token) and item.kind == "string"]
        if len(strings) == len(items) > 1:
            return self._joined([self._string(item) for item in strings], first.start, end)
        at = 1
        called = items[1] if len(items) > 1 else None
        if isinstance(first, Token) and first.kind == "name" and isinstance(called, Group) and called.opened == "(":
            node = self._call(first, called)
            at = 2
        else:
            node = self._single(first)
        while at < len(items):
            item = items[at]
            method = items[at + 1] if is_word(item, ".") and at + 1 < len(items) else None
            if isinstance(item, Group) and item.opened == "[":
                node = self._indexed(node, item)
            elif isinstance(method, Token) and at + 2 < len(items) and isinstance(items[at + 2], Group):
                node = self._method(node, method.text, items[at + 2], first.start)  # type: ignore[arg-type]
                at += 2
            else:
                if isinstance(item, Group):
                    self._arguments(item, "") if item.opened == "(" else self._group(item)
                node = None
            at += 1
        return node if node is not None else self._unknown(first.start, end)

    def _indexed(self, node: Node | None, group: Group) -> Node | None:
        """`node[key]`."""
        key = self._expression(group.items)
        if not isinstance(key, Scalar) or not key.known:
            return None
        if isinstance(node, Map):
            return node.get(key.text)
        if isinstance(node, List) and key.text.isdigit() and len(key.text) < 6:
            return node.items[int(key.text)] if int(key.text) < len(node.items) else None
        if isinstance(node, Scalar) and node.text in ("os.environ", "environ", "process.env"):
            return self._environ(key.text, None, group)
        return None

    def _environ(self, name: str, default: Node | None, group: Group) -> Scalar:
        """A variable of the environment: as the program sets it, else the default."""
        held = self.environ.get(name)
        if held is not None:
            return held
        if isinstance(default, Scalar) and default.known and not default.null:
            return default.copied(defaulted=(name,))
        return Scalar(name, self.source, group.start, group.end, '"', False, (name,), None)

    def _method(self, node: Node | None, name: str, group: Group, start: int) -> Node | None:
        """`node.name(...)`: what is known of strings, lists and dictionaries."""
        positional, named = self._arguments(group, name)
        if name in ("copy", "strip", "model_dump", "dict") and not positional:
            if isinstance(node, Map):
                return Map(list(node.entries), self.source, start)
            return node
        if isinstance(node, Scalar) and name in ("lower", "upper") and node.known:
            return node.copied(text=node.text.lower() if name == "lower" else node.text.upper())
        if isinstance(node, Scalar) and name == "format" and node.style:
            return self._formatted(node, positional, named)
        if isinstance(node, Scalar) and name == "join" and positional and isinstance(positional[0], List):
            return self._put_together(node, positional[0])
        if isinstance(node, Map) and name == "get" and positional and isinstance(positional[0], Scalar):
            return node.get(positional[0].text) or (positional[1] if len(positional) > 1 else None)
        return None

    def _put_together(self, between: Scalar, words: List) -> Node | None:
        """`" ".join(words)`."""
        self.lists.pop(id(words), None)
        scalars = [item for item in words.items if isinstance(item, Scalar)]
        if not scalars or len(scalars) < len(words.items):
            return None
        parts = [part for item in scalars for part in (item, between.copied(text=between.text))][:-1]
        return self._joined(parts, words.start, scalars[-1].end)

    def _formatted(self, template: Scalar, positional: Sequence[Node], named: Map) -> Scalar:
        """`"...{}...".format(a)`."""
        count = iter(range(len(positional)))

        def held(hole: str) -> Node | None:
            if hole.isdigit():
                return positional[int(hole)] if len(hole) < 4 and int(hole) < len(positional) else None
            at = None if hole else next(count, None)
            return named.get(hole) if hole else positional[at] if at is not None else None

        self.texts.pop(id(template), None)
        text, places = template.text, [template.source.offset(at) for at in range(len(template.text))]
        return self._filled(template, text, places, held)

    def _percent(self, template: Node | None, start: int, end: int) -> Scalar:
        """`"...%s..." % values`: the values are not looked up. Other arithmetic is unknown."""
        if not isinstance(template, Scalar) or not template.style:
            return self._unknown(start, end)
        self.texts.pop(id(template), None)
        text, offsets, at = "", list[int](), 0
        for found in _CONVERSION.finditer(template.text):
            piece = template.text[at : found.start()] + ("%" if found[0] == "%%" else "{...}")
            offsets += [template.source.offset(min(at + step, found.start())) for step in range(len(piece))]
            text, at = text + piece, found.end()
        offsets += [template.source.offset(step) for step in range(at, len(template.text))]
        text += template.text[at:]
        missing = (*template.missing, "...")
        return self._told(template.copied(
            text=text, known=False, missing=missing, source=Source(self.source.file, text, offsets)
        ))  # fmt: skip

    def _single(self, item: Item) -> Node | None:
        """One token or group."""
        if isinstance(item, Group):
            return self._group(item)
        if item.kind == "string":
            return self._told(self._string(item))
        if item.kind == "number" or item.text in ("True", "False", "true", "false", "None", "null", "undefined"):
            made = self.literal(item.start, item.end)
            return made.copied(text="null") if item.text in ("None", "undefined") else made
        if item.kind == "name":
            owner, _, last = item.text.rpartition(".")
            held = self.variables.get(item.text)
            if held is None and (owner in _SELF or owner[:1].isupper()) and last not in self.changing:
                held = self.attributes.get(last)
            if held is None and owner == "process.env":
                return self.environ.get(last) or self._unknown(item.start, item.end)
            if isinstance(held, Scalar):
                made_of = Source(self.source.file, held.text, [self.source.offset(item.start)] * len(held.text))
                return Scalar(
                    held.text, self.source, item.start, item.end, held.style, held.known, held.missing, made_of,
                    held.defaulted,
                )  # fmt: skip
            return held if held is not None else self._unknown(item.start, item.end)
        return None

    def _string(self, item: Token) -> Scalar:
        """A string; of an f-string the names in it."""
        match = re.match(r"([fFrRbBuU]*)(\"\"\"|'''|\"|')", item.text)
        assert match
        self.strings.append((self.source.offset(item.start), self.source.offset(item.end - 1)))
        start, end = item.start + match.end(), item.end - len(match[2])
        raw, prefix = self.source.text[start:end], match[1].lower()
        text, offsets = unescaped(raw, "r" in prefix)
        places = [self.source.offset(start + at) for at in offsets]
        if start == end:
            start, end = item.start, item.end
        made = Scalar(text, self.source, start, end, '"', True, (), Source(self.source.file, text, places))
        if "f" not in prefix or "{" not in text or len(text) > MAX_TEXT:
            return made

        def held(hole: str) -> Node | None:
            if match := re.fullmatch(r"\s*os\.(?:getenv|environ\.get|environ)[(\[]\s*[\"'](\w+)[\"']\s*[)\]]\s*", hole):
                return self.environ.get(match[1])
            return self.variables.get(hole.strip())

        return self._filled(made, text, places, held)

    def _filled(self, made: Scalar, text: str, places: list[int], held: Holder) -> Scalar:
        """A text with its holes (`{name}`) filled; those of no known value stay, and it is unknown then."""
        parts: list[str] = []
        offsets: list[int] = []
        missing: list[str] = []
        defaulted: list[str] = []
        at = 0
        for hole in HOLE.finditer(text):
            parts.append(text[at : hole.start()])
            offsets += places[at : hole.start()]
            node, value = held(hole[1]), hole[0]
            if isinstance(node, Scalar) and node.known and len(node.text) <= MAX_VALUE:
                value = node.text
                defaulted += node.defaulted
            else:
                missing.append(hole[1].strip())
            parts.append(value)
            offsets += [places[hole.start()]] * len(value)
            at = hole.end()
        text, offsets = "".join([*parts, text[at:]]), [*offsets, *places[at:]]
        return self._told(
            made.copied(
                text=text, known=not missing, missing=tuple(missing), defaulted=tuple(defaulted),
                source=Source(self.source.file, text, offsets),
            )
        )  # fmt: skip

    def _call(self, name: Token, group: Group) -> Node | None:
        """A call: wrappers have the value of what they wrap, an SDK's lookup names an image."""
        owner, _, short = name.text.rpartition(".")
        positional, named = self._arguments(group, name.text)
        first = positional[0] if positional else None
        if short in sdk.LOOKUPS or name.text.endswith("image_uris.retrieve"):
            return self._looked_up(name, positional, named)
        if short == "add_argument":
            self._option([one.text for one in positional if isinstance(one, Scalar)], named)
        if gpu := sdk.modal_gpu(name.text, named):
            return self.literal(name.start, group.end).copied(text=gpu, style='"')
        if name.text == "dict":
            entries = [entry for node in positional if isinstance(node, Map) for entry in node.entries]
            made = Map([*entries, *named.entries], self.source, group.start)
            self.maps.append(Call(made))
            return made
        if name.text in ("list", "tuple"):
            return first
        if name.text in _ENVIRON and isinstance(first, Scalar):
            default = positional[1] if len(positional) > 1 else named.get("default")
            return self._environ(first.text, default, group)
        if (name.text in _JSON or short == "dumps") and isinstance(first, Scalar):
            return self._as_json(first, name.start, group.end)
        if name.text in _PLAIN_WRAPPERS and isinstance(first, Scalar):
            style = "" if name.text in ("int", "float") else '"'
            if first.null:
                return self._unknown(name.start, group.end)
            return first.copied(style=style) if first.known else first
        held = self.variables.get(owner)
        if isinstance(held, List) and short in ("append", "extend", "insert") and positional:
            more = List([positional[-1]], self.source, group.start) if short != "extend" else first
            self._extend(owner, more)
            return None
        if isinstance(held, Map) and short in ("update", "setdefault"):
            entries = [*(first.entries if isinstance(first, Map) else []), *named.entries]
            if short == "setdefault" and isinstance(first, Scalar) and len(positional) > 1:
                entries = [] if held.get(first.text) is not None else [(first, positional[1])]
            self._add(held, entries)
            return None
        if held is not None and owner:
            known = self._method_of(held, short, positional, named, name.start)
            return known if known is not None else self._unknown(name.start, group.end)
        if isinstance(first, Scalar) and is_image(first.text):
            self._note("image", first)
        if isinstance(first, Scalar) and is_image(first.text) and owner.endswith("ContainerImage"):  # AWS CDK
            return first
        made_of = sdk.built(short, named)
        return made_of if made_of is not None else self._unknown(name.start, group.end)

    def _option(self, words: Sequence[str], named: Map) -> None:
        """An option of the program (argparse): its default, where it has one."""
        dest, default = named.scalar("dest"), named.get("default")
        long = next((word for word in words if word.startswith("--")), words[0] if words else "")
        name = dest.text if dest is not None else long.lstrip("-").replace("-", "_")
        if name and isinstance(default, Scalar) and default.known:
            self.options[name] = default.copied(defaulted=(name,))

    def _looked_up(self, name: Token, positional: Sequence[Node], named: Map) -> Scalar:
        """`get_huggingface_llm_image_uri("huggingface", version="2.0.2")`: the image of that version."""
        at = named.scalar("version")
        if at is None and len(positional) > 3 and isinstance(positional[3], Scalar):
            at = positional[3]
        backend = positional[0] if positional else named.get("backend", "framework")
        text = sdk.looked_up(backend, at, by_framework=name.text.endswith("image_uris.retrieve"))
        start, end = (at.start, at.end) if at else (name.start, name.end)
        known = at is not None and at.known
        made = Source(self.source.file, text, [self.source.offset(start)] * len(text))
        node = Scalar(text, self.source, start, end, '"', known, () if known else ("version",), made)
        if is_image(text):
            self.images.append((start, node.value("SageMaker SDK")))
        return node

    def _as_json(self, node: Scalar, start: int, end: int) -> Scalar:
        """What `json.dumps` makes of a value: `true` of True, quotes around a string."""
        if not node.known:
            return node
        if node.style:
            return Scalar(f'"{node.text}"', self.source, start, end, '"', True, (), None, node.defaulted)
        text = {"True": "true", "False": "false"}.get(node.text, node.text)
        return node.copied(text=text, style='"')

    def _method_of(self, held: Node, name: str, positional: Sequence[Node], named: Map, start: int) -> Node | None:
        """A method of a variable."""
        if isinstance(held, Scalar) and held.style and name == "format":
            return self._formatted(held, positional, named)
        if isinstance(held, Scalar) and name in ("strip", "lower", "upper") and held.known:
            return held.copied(text=getattr(held.text, name)())
        if isinstance(held, Map) and name == "copy":
            return Map(list(held.entries), self.source, start)
        if isinstance(held, List) and name == "copy":
            return List(list(held.items), self.source, start)
        if isinstance(held, Map) and name == "get" and positional and isinstance(positional[0], Scalar):
            return held.get(positional[0].text)
        return None

    def _arguments(self, group: Group, call: str) -> tuple[list[Node], Map]:
        """The arguments of a call: those without a name, and the others as a mapping."""
        entries: list[tuple[Scalar, Node]] = []
        positional: list[Node] = []
        open_ = False
        for part in split(group.items, (",",)):
            if len(part) > 2 and isinstance(part[0], Token) and is_word(part[1], "="):
                value = self._expression(part[2:])
                if value is not None:
                    key = part[0]
                    name = Scalar(key.text, self.source, key.start, key.end)
                    if key.text not in _INSTANCE or _is_card(value):
                        self._note(key.text, value)
                    entries.append((name, value))
            elif is_word(part[0], "**", "*"):
                held = self._expression(part[1:])
                entries += held.entries if isinstance(held, Map) else []
                positional += held.items if isinstance(held, List) else []
                open_ = open_ or not isinstance(held, (List, Map))
            elif (value := self._expression(part)) is not None:
                positional.append(value)
        made = Map(entries, self.source, group.start)
        self._note_instances(made, call)
        if entries or call.endswith("containers.run"):
            self.maps.append(Call(made, call or "()", positional, open_))
        return positional, made

    def _group(self, group: Group) -> Node | None:
        """A dictionary, a list, or an expression in brackets."""
        if group.opened == "(" and not any(is_word(item, ",") for item in group.items):
            return self._expression(group.items)
        if group.opened in "([":
            return self._listed(self._members(group), group.start)
        colons = any(is_word(item, ":") for item in group.items)
        signs = (":",) if colons else ("=",)
        entries: list[tuple[Scalar, Node]] = []
        for part in split(group.items, (",",), newlines=not colons):
            at = next((at for at, item in enumerate(part) if is_word(item, *signs)), None)
            if is_word(part[0], "**") or (at is None and len(part) > 3 and all(is_word(one, ".") for one in part[:3])):
                held = self._expression(part[1:] if is_word(part[0], "**") else part[3:])
                entries += held.entries if isinstance(held, Map) else []
                continue
            if at is None and self.hcl and (block := self._block(part)) is not None:
                entries.append(block)
                continue
            if at is None or at == 0:
                self._expression(part)
                continue
            key = part[0]
            if not isinstance(key, Token) or key.kind not in ("string", "name", "number"):
                continue
            name = self._string(key) if key.kind == "string" else Scalar(key.text, self.source, key.start, key.end)
            value = self._expression(part[at + 1 :])
            if value is not None:
                if name.text not in _INSTANCE or _is_card(value):
                    self._note(name.text, value)
                entries.append((name, value))
        made = Map(_gathered(entries) if self.hcl else entries, self.source, group.start)
        self._note_instances(made, "")
        if self.hcl:
            _on_nodes(made)
        if entries:
            self.maps.append(Call(made))
        return made

    def _block(self, part: list[Item]) -> tuple[Scalar, Node] | None:
        """A block of Terraform, `env { name = ... }`."""
        key, group = part[0], part[-1]
        if len(part) < 2 or not isinstance(key, Token) or key.kind != "name" or not isinstance(group, Group):
            return None
        if group.opened != "{" or not all(isinstance(one, Token) and one.kind == "string" for one in part[1:-1]):
            return None
        held = self._group(group)
        return (Scalar(key.text, self.source, key.start, key.end), held) if held is not None else None

    def _members(self, group: Group) -> list[Node]:
        """What stands in a list."""
        if any(is_word(item, "for") for item in group.items):
            self._expression(group.items)
            return [self._unknown(group.start, group.end)]
        made: list[Node] = []
        for part in split(group.items, (",",)):
            if is_word(part[0], "*"):
                held = self._expression(part[1:])
                self.lists.pop(id(held), None)
                made += held.items if isinstance(held, List) else [self._unknown(part[0].start, part[-1].end)]
            elif (node := self._expression(part)) is not None:
                made.append(node)
        return made


_BLOCKS = {"volume_mount": "volumeMounts", "volume_mounts": "volumeMounts"}
"""Blocks of Terraform whose name in a manifest is another."""


def _gathered(entries: list[tuple[Scalar, Node]]) -> list[tuple[Scalar, Node]]:
    """Blocks of one name as a list of them."""
    named: dict[str, list[tuple[Scalar, Node]]] = {}
    for key, node in entries:
        named.setdefault(key.text, []).append((key, node))
    made: list[tuple[Scalar, Node]] = []
    for name, held in named.items():
        key, node = held[-1]
        if all(isinstance(one, Map) for _, one in held) and (len(held) > 1 or name in ("env", *_BLOCKS)):
            first = held[0][1]
            of_blocks = name != "env" or all(isinstance(one, Map) and one.get("name") is not None for _, one in held)
            if of_blocks and isinstance(first, Map):
                node = List([one for _, one in held], first.raw, first.start)
        made.append((Scalar(_BLOCKS[name], key.raw, key.start, key.end) if name in _BLOCKS else key, node))
    return made


def _on_nodes(block: Map) -> None:
    """Gives the containers of a block the node they are put on, where it is said beside them."""
    key, selector = block.key("node_selector"), block.get("node_selector")
    if key is None or selector is None:
        return
    held = block.get("container", "containers")
    for one in held.items if isinstance(held, List) else [held]:
        if isinstance(one, Map):
            one.entries.append((key.copied(text="nodeSelector"), selector))
            one.__dict__.pop("merged", None)


def _with_its_environment(server: Server) -> Server:
    """The server with `$(NAME)` in its arguments replaced, as Kubernetes does."""
    variables = with_variables(server.env)

    def filled(word: Value) -> Value:
        found = Found()
        text = interpolate_kubernetes(word.text, variables, found) if "$(" in word.text else word.text
        return replace(word, text=text, known=word.known and found.known, missing=(*word.missing, *found.missing))

    return replace(server, args=tuple(map(filled, server.args)))


def _set_twice(text: str) -> frozenset[str]:
    """Attributes that a program sets at more than one place."""
    plain = re.findall(r"\b(?:self|cls|this)\.(\w+)[ \t]*(?:[-+*/|]?=(?!=)|:[^=\n]+=)", text)
    several = re.findall(r"^[ \t]*((?:[\w.]+[ \t]*,[ \t]*)+[\w.]+)[ \t]*=", text, re.MULTILINE)
    every = [*plain, *(name for names in several for name in re.findall(r"(?:self|cls|this)\.(\w+)", names) * 2)]
    return frozenset(name for name, count in Counter(every).items() if count > 1)


def _says_which(image: Scalar) -> bool:
    """Whether the name of an image is there, whatever its registry and its tag are."""
    name = re.split(r"[:@]", image.text.rpartition("/")[2])[0]
    whole = image.known and ("." in image.text or ":" in image.text)
    return whole or (bool(re.search("[/:]", image.text)) and bool(re.fullmatch(r"[\w.-]+", name)))


def _is_card(value: Node) -> bool:
    """Whether an instance type names a card, as those of Inference Endpoints do (`nvidia-a10g`)."""
    return isinstance(value, Scalar) and value.text.startswith(("nvidia-", "amd-"))


def _nearest(found: Sequence[tuple[int, Value]], at: int) -> Value | None:
    """The first one after a place, or the last one before it."""
    after = [value for start, value in found if start > at]
    before = [value for start, value in found if start <= at]
    return after[0] if after else before[-1] if before else None
