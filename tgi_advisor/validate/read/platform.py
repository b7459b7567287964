"""Containers of other platforms: any YAML or JSON that names a TGI image, or holds a command that starts one.

SkyPilot, dstack, Helm values, Vertex AI, SageMaker's own resources, Salad, RunPod, CI jobs: they
differ in their keys, not in what they say. A mapping with a TGI image is a container; commands are
found in any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import clouds
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.platforms import all_platforms
from tgi_advisor.marks import references
from tgi_advisor.validate.found import (
    ALL_VARIABLES,
    UNSAID,
    Defect,
    Gpus,
    Hint,
    Mount,
    Port,
    Server,
    Value,
    whole_number,
)
from tgi_advisor.validate.read.compose import folded_backslash
from tgi_advisor.validate.read.docker import asked, mount_of, published, tail
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.kubernetes import gpus_of, label_hint, resources_of, vendor_of
from tgi_advisor.validate.read.launcher import LAUNCHER, is_image, is_launcher
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar, compose, plain, walk
from tgi_advisor.validate.read.script import MAX_SERVERS, scan
from tgi_advisor.validate.read.waits import waits_of
from tgi_advisor.validate.read.words import PLAIN, Found, Variable, interpolate_kubernetes, lex
from tgi_advisor.validate.read.world import World

_IMAGE_KEY = re.compile(r"image|^uri$|^repository$|^container$|^docker$|^from$", re.IGNORECASE)
_ARGS = (
    "args",
    "extraArgs",
    "containerArgs",
    "container_args",
    "arguments",
    "docker_args",
    "dockerArgs",
    "command_args",
)
_COMMANDS = (
    "command",
    "cmd",
    "commands",
    "entrypoint",
    "docker_start_cmd",
    "dockerStartCmd",
    "start_command",
    "startCommand",
    "container_command",
    "containerCommand",
)
_ENVS = (
    "env", "envs", "environment", "environmentVariables", "environment_variables", "envVars", "env_vars", "extraEnv",
    "extraEnvVars", "Environment", "variables", "containerEnv", "container_env", "environment_vars",
    "serving_container_environment_variables",
)  # fmt: skip
_INSTANCES = ("instanceType", "instance_type", "InstanceType", "machineType", "machine_type", "vmSize", "instance-type")
_GPU_NAMES = (
    "acceleratorType", "accelerator_type", "gpu_type_id", "gpuTypeId", "gpu_type", "gpuType", "gpuTypes", "gpu_name",
)  # fmt: skip
_GPU_COUNTS = ("gpu_count", "gpuCount", "acceleratorCount", "accelerator_count", "gpus", "num_gpus", "numGpus", "gpu")
_TAGS = ("version", "imageTag", "image_tag", "imageVersion", "image_version", "dockerTag")
"""Keys that hold the tag of the image beside them (llmaz's BackendRuntime: `version`)."""
_PORTS = ("port", "ports", "containerPort", "containerPorts", "container_port", "targetPort")
_SHM = ("shmSize", "shm_size", "shm", "sharedMemory")
_ASIDE = frozenset(("initContainers", "ephemeralContainers"))
_AT_REST = ("dev-environment", "fleet", "volume", "gateway")
"""Configurations of dstack that start no server, whatever their image."""


def read_platform(root: Map, world: World, form: str = "") -> tuple[list[Server], list[Defect]]:
    """Every TGI server in a document of no form with a reader of its own."""
    form = form or _form(root)
    if form == "dstack" and (type_ := root.scalar("type")) and type_.text in _AT_REST:
        return [], []
    servers: list[Server] = []
    defects: list[Defect] = []
    images: list[tuple[Value, Map, tuple[Map, ...]]] = []
    scripts: list[Scalar] = []
    started = _started_by(root)
    sdk = root.get("HuggingFaceModel") if root.get("CreateModel") is not None else None  # says the same once more
    for key, node, above in walk(root):
        if sdk is not None and (node is sdk or sdk in above):
            continue
        if started is not None and not _is_started(node, above, started):
            if isinstance(node, Scalar) and key == "run":
                scripts.append(node)
        elif isinstance(node, Map):
            if "image" in key.lower() and (url := node.scalar("url")) and is_image(url.text):
                images.append((url.value("image"), node, above))  # Inference Endpoints: custom_image.url
            elif key == "custom" and len(above) > 1 and (url := node.scalar("url")) and is_image(url.text):
                images.append((url.value("image"), above[-2], above[:-2]))  # and their API: model.image.custom.url
            elif key == "services" and (of_job := node.scalar("name")) and is_image(of_job.text):
                images.append((of_job.value("image"), node, above))  # a service of a GitLab job
            elif key not in _ASIDE and (image := _split_image(node)):
                images.append((image, above[-1] if above and key.lower().endswith("image") else node, above))
        elif isinstance(node, Scalar) and key == "values" and node.style == "|":  # a chart's, in a text (Argo CD)
            for inner in compose(node.source)[0]:
                more, wrong = read_platform(inner, world, "helm") if isinstance(inner, Map) else ([], [])
                servers += more
                defects += wrong
        elif isinstance(node, Scalar) and node.text:
            if key == "repository" and not re.match(r"[^/]*[.:][^/]*/", node.text) and not _is_split(above[-1]):
                continue  # a repository of sources
            if above and _names_image(key, node, above):
                images.append((_on_registry(node.value("image"), above[-1]), above[-1], above[:-1]))
            elif (LAUNCHER in node.text and len(node.text) > len(LAUNCHER)) or " run " in node.text:
                scripts.append(node)
    variables = _variables(root)
    around = tuple(_hints(root, ())) if scripts else ()
    named = root.value("image", origin="image")
    cloud = named if named is not None and clouds.find(named.text) is not None else None
    for node in scripts[:MAX_SERVERS]:
        found = scan(node.source, world, dict(variables))
        if found.servers:
            defects += found.defects
            defects += folded_backslash(node)
        for server in found.servers:
            if server.form == "launcher" and len(images) == 1:
                continue  # the command of the one container: read with it
            environment = _environment(root, (), None) if server.form == "launcher" else None
            servers.append(
                replace(
                    server, form=form if form in ("sky", "dstack") else server.form, hints=around,
                    image=server.image or cloud,
                    replicas=root.value("service", "replicas") if form == "sky" else server.replicas,
                    **({} if environment is None else environment.fields()),
                )
            )  # fmt: skip
    for image, node, above in images[:MAX_SERVERS]:
        of_chart = form == "platform" and _is_of_chart(node)
        kind = "helm" if of_chart else form
        servers.append(_server(image, node, above, root, kind, variables if len(images) == 1 else {}, defects, world))
    return servers, defects


def _names_image(key: str, node: Scalar, above: tuple[Map, ...]) -> bool:
    """Whether a text is the image of the mapping it stands in, and none of a list (what is built or mirrored) or of a
    catalogue (SageMaker JumpStart's variants, by kind of instance).
    """
    if not _IMAGE_KEY.search(key) or key.lower().endswith("images") or not is_image(node.text) or _is_split(above[-1]):
        return False
    return len(above[-1].merged) > 1 or not any(name.lower() == "variants" for one in above for name in one.merged)


_REPORT = (
    "bomFormat",
    "spdxVersion",
    "SchemaVersion",
    "ArtifactName",
    "vulnerabilities",
    "matches",
    "violations",
    "policyName",
)
"""Keys at the root of what a scanner, a policy or a bill of materials says of images that run elsewhere."""


def _started_by(root: Map) -> frozenset[int] | None:
    """The mappings of a file that start their images, where few do: jobs and services of a workflow, none of a report.

    None for a file in which every image is a server's.
    """
    if _is_devcontainer(root):
        return frozenset()
    if any(key in root.merged for key in _REPORT) or ((kind := root.value("kind")) and kind.text.endswith("Report")):
        return frozenset()
    if not isinstance(root.get("jobs"), Map) or not {"on", "true", "True"} & root.merged.keys():
        return None
    started = []
    for _, job in root.map("jobs").merged.values():
        if isinstance(job, Map):
            started += [one for _, one in job.map("services").merged.values()]
    return frozenset(map(id, started))


def _is_devcontainer(root: Map) -> bool:
    """Whether a file describes a development container, whose own command is replaced by one that waits.

    https://containers.dev/implementors/json_reference/ (overrideCommand)
    """
    name = root.raw.file.name.replace("\\", "/").rpartition("/")[2]
    kept = root.scalar("overrideCommand")
    return name.endswith("devcontainer.json") and not (kept is not None and kept.text == "false")


def _is_started(node: Node, above: tuple[Map, ...], started: frozenset[int]) -> bool:
    return id(node) in started or any(id(one) in started for one in above)


def _form(root: Map) -> str:
    """What kind of file it is."""
    if root.get("run") is not None and (root.get("resources") is not None or root.get("envs") is not None):
        return "sky"
    if root.get("type") is not None and (root.get("commands") is not None or root.get("resources") is not None):
        return "dstack"
    if root.get("compute") is not None and root.get("model") is not None:  # Inference Endpoints
        return "platform"
    if any(isinstance(node, Map) and node.get("repository") is not None for _, node in root.merged.values()):
        return "helm"
    return "platform"


def _named(node: Map) -> Scalar | None:
    """What a mapping is called."""
    names = ("name", "id", "ModelName", "displayName")
    return next((found for name in names if (found := node.scalar(name))), None) or node.scalar("metadata", "name")


def _is_of_chart(node: Map) -> bool:
    """Whether the image of a container is written as Helm's values have it, however deep."""
    held = [node, *(inner for _, inner in node.merged.values() if isinstance(inner, Map))]
    return any(one.get("repository") is not None and "tag" in one.merged for one in held)


def _on_registry(image: Value, node: Map) -> Value:
    """An image with the registry that is named beside it (Helm's values, NVIDIA AI Workbench's `base`)."""
    registry = node.scalar("registry")
    if registry is None or not registry.text or image.text.startswith(registry.text):
        return image
    return replace(image, text=f"{registry.text}/{image.text}")


def _is_split(node: Map) -> bool:
    return _split_image(node) is not None


def _split_image(node: Map) -> Value | None:
    """An image written as `repository` and `tag` (Helm)."""
    repository = node.scalar("repository") or node.scalar("name") or node.scalar("image")
    tag, digest = node.scalar("tag"), node.scalar("digest")
    if repository is None or ("tag" not in node.merged and digest is None):
        repository = node.scalar("image") or node.scalar("imageName") or node.scalar("image_name")
        tag = next((held for name in _TAGS if (held := node.scalar(name)) is not None and held.text), None)
        if repository is None or tag is None or re.search(r":[^/]*$|@", repository.text):
            return None
    value = repository.value("image")
    value = _on_registry(value, node)
    text = value.text
    if not is_image(text):
        return None
    if digest and digest.text:
        return replace(value, text=f"{text}@{digest.text}", known=value.known and digest.known)
    if tag is None or not tag.text:  # the chart's appVersion, which another file has
        return replace(value, text=text, known=False, missing=("appVersion",))
    return replace(value, text=f"{text}:{tag.text}", known=value.known and tag.known)


def _server(
    image: Value, node: Map, above: tuple[Map, ...], root: Map, form: str,
    variables: Mapping[str, Variable], defects: list[Defect], world: World,
) -> Server:  # fmt: skip
    """The container a TGI image is named in."""
    image = replace(image, text=re.sub(r"^docker:", "", image.text.strip()))
    around = (node, *reversed(above))
    environment = _environment(node, above, root)
    if form == "dstack":
        for name, value in environment.set.items():
            environment.set[name] = dollars(value)
        environment.renamed(root.raw.file.text)
    elif form == "sky":
        _left_open(environment)
    _filled(environment, node)
    _on_the_way(environment, root)
    environment.sources += _left_to_the_chart(node, image, environment) if form == "helm" else _left_to_a_script(node)
    known = {**variables, **environment.variables()}
    entry, args = _launch(node, root, known, environment, defects, world)
    if node.get("imageUri") is not None:
        args = [_single(word) for word in args]
    named = next((s for m in around if (s := _named(m))), None)
    shm = next((v for m in (node, node.map("resources")) if (v := _value(m, _SHM))), None)
    if shm is None:
        shm = next((v for m in (root.map("resources"),) if (v := _value(m, _SHM))), None)
    if shm is None and (megabytes := node.value("sharedMemorySizeMb")):  # Vertex AI
        shm = replace(megabytes, text=f"{megabytes.text}m")
    hints = tuple(_hints(root, around))
    resources = next((m.map("resources") for m in around if m.get("resources") is not None), node)
    return Server(
        form, named.text if named else "", node.entries[0][0].place if node.entries else node.place,
        image=image, entry=entry, args=tuple(args),
        **environment.fields(),
        ports=() if form == "helm" else tuple(_ports(node, root)),  # what a chart makes of its ports, its templates say
        mounts=tuple(_mounts(node, root)),
        gpus=_counted(_gpus(around, resources), hints),
        shm_size=shm,
        memory_limit=resources.map("limits").value("memory"),
        memory_request=resources.map("requests").value("memory"),
        hints=hints,
        replicas=next((v for m in around if (v := m.value("replicas"))), None),
        notes=((ALL_VARIABLES,) if node.get("inference_config") is not None else ()) + _kept(root) + _how_many(root)
        + (_port_of_chart(root) if form == "helm" else ()),
        waits=waits_of(root, around),
    )  # fmt: skip


def _port_of_chart(root: Map) -> tuple[str, ...]:
    """The port of a chart's Service, as a note that `import` reads."""
    port = root.value("service", "port")
    return (f"container {json.dumps({'port': port.number})}",) if port is not None and port.number else ()


OURS = "tgi-advisor"
"""The key under which `emit` keeps in JSON what a platform has no words for."""


def _kept(root: Map) -> tuple[str, ...]:
    """What stands under our key, as notes that `import` reads."""
    return tuple(f"{name} {json.dumps(plain(item))}" for name, (_, item) in root.map(OURS).merged.items()
                 if name in ("container", "kubernetes", "autoscale", "replicas"))  # fmt: skip


def _on_the_way(environment: Environment, root: Map) -> None:
    """Variables that are put into a request on its way, as a key of ours says: the token."""
    for inside, (key, item) in root.map(OURS, "secret_env").merged.items():
        if isinstance(item, Scalar) and re.fullmatch(r"[A-Za-z_]\w*", item.text) and inside not in environment.set:
            value = replace(key.value("the caller's environment"), known=False, missing=(item.text,), key=key.spot)
            environment.refer(inside, value)


def _scaled_between(root: Map) -> Iterator[tuple[Map, str, str]]:
    """Where each platform says between how many servers, with the names it has for them.

    Inference Endpoints, Vertex AI's deployModel, and Application Auto Scaling of SageMaker.
    """
    yield root.map("compute", "scaling"), "minReplica", "maxReplica"
    for deploy in (root.map("DeployModel"), root):
        for path in (("deployedModel", "dedicatedResources"), ("dedicatedResources",)):
            yield deploy.map(*path), "minReplicaCount", "maxReplicaCount"
    for target in (root.map("RegisterScalableTarget"), root):
        yield target, "MinCapacity", "MaxCapacity"


def _how_many(root: Map) -> tuple[str, ...]:
    """How many servers a platform keeps, as notes that `import` reads; none for one."""
    count = 1
    for place, least, greatest in _scaled_between(root):
        fewest, most = (found.number if (found := place.value(name)) else None for name in (least, greatest))
        if fewest and most and fewest < most:
            said: dict[str, object] = {"min": fewest, "max": most}
            pending = place.value("measure", "pendingRequests") or _tracked(root)
            if pending and pending.number:
                said |= {"on": "batch", "target": pending.number}
            return (*_instances(root), f"autoscale {json.dumps(said)}")
        count = fewest if fewest and fewest == most else count
    return (f"replicas {count}",) if count > 1 else _instances(root)


def _instances(root: Map) -> tuple[str, ...]:
    """A number of servers that stays: of Azure ML's deployment, and of the one variant of SageMaker's endpoint."""
    configuration = root.map("CreateEndpointConfig") if root.get("CreateEndpointConfig") is not None else root
    variants = [one for one in configuration.list("ProductionVariants") if isinstance(one, Map)]
    found = variants[0].value("InitialInstanceCount") if len(variants) == 1 else root.value("instance_count")
    return (f"replicas {found.number}",) if found is not None and found.number and found.number > 1 else ()


def _tracked(root: Map) -> Value | None:
    """How many requests at once SageMaker keeps to, where it scales by them."""
    tracking = root.map("PutScalingPolicy", "TargetTrackingScalingPolicyConfiguration")
    measure = tracking.value("PredefinedMetricSpecification", "PredefinedMetricType")
    by_requests = measure is not None and measure.text.startswith("SageMakerVariantConcurrentRequestsPerModel")
    return tracking.value("TargetValue") if by_requests else None


_SCRIPT = re.compile(r"(?:deploy(?:ment)?|launch|start_?up|serving|entry_?point)_?script", re.IGNORECASE)
"""Keys that name a program which starts the container, and may add to its environment."""


def _left_to_a_script(node: Map) -> Iterator[Value]:
    """What a program beside the file may add (FMBench: `deployment_script: jumpstart.py`)."""
    for name in node.merged:
        held = node.value(name) if _SCRIPT.fullmatch(name) else None
        if held is not None and held.text:
            yield replace(held, text=f"what {held.text} adds", known=False)


_CHART_ARGS = re.compile(r"(?!runArgs)(?:\w*_)?args|\w*Args|\w*Arguments|\w*Flags|\w*Opts")
_CHART_SETTING = re.compile(
    r"(?:[A-Z]+_)*(?:MODEL_ID|MODEL|NUM_SHARD|SHARDED|QUANTIZE|DTYPE|MAX_\w+|CUDA_GRAPHS|\w*PORT)"
    r"|model(?:_?[iI]d|_?[nN]ame|Name)?|modelID|num_?[sS]hards?|quantize|dtype|max_?[A-Z_a-z]*(?:[tT]okens|[lL]ength)"
)
"""Keys of a chart's own that its templates make settings of, in a way that only they say."""


def _left_to_the_chart(node: Map, image: Value, environment: Environment) -> Iterator[Value]:
    """Settings beside the image by names of the chart's own: what becomes of them, its templates say."""
    for name, (_, item) in node.merged.items():
        if name in _ARGS or name in _COMMANDS or name in _ENVS or name in environment.set:
            continue
        if _CHART_SETTING.fullmatch(name) or (_CHART_ARGS.fullmatch(name) and not _flags_of(item)):
            filled = not isinstance(item, Scalar) or (item.text and not item.null)
            if filled and not (isinstance(item, (List, Map)) and not _size(item)):
                yield replace(image, text="what the chart's templates make of its values", known=False, origin="chart")
                return


def _size(node: List | Map) -> int:
    return len(node.items) if isinstance(node, List) else len(node.merged)


def _flags_of(node: Node | None) -> list[Scalar]:
    """The words of a list that can only be arguments of the launcher: it begins with a flag of it."""
    items = [item for item in node.items if isinstance(item, Scalar)] if isinstance(node, List) else []
    return items if items and re.match(r"--?[a-z]", items[0].text) else []


def _value(node: Map, names: tuple[str, ...]) -> Value | None:
    found = node.get(*names)
    return found.value("file") if isinstance(found, Scalar) else None


def _launch(
    node: Map,
    root: Map,
    variables: Mapping[str, Variable],
    environment: Environment,
    defects: list[Defect],
    world: World,
) -> tuple[Value | None, list[Value]]:
    """Arguments stated for the container, or the launcher its commands start."""
    if node is root and (words_of_dstack := _entrypoint(root, variables)):
        return words_of_dstack
    words: list[Value] = []
    program = False
    for place in (node, root) if node is not root else (node,):
        for name in (*_COMMANDS, "run", *_ARGS):
            found = place.get(name)
            if place is root and place is not node and name not in ("run", "commands", "args", "extraArgs"):
                continue
            for item in found.items if isinstance(found, List) else [found]:
                if not isinstance(item, Scalar) or item.null:
                    continue
                if LAUNCHER in item.text and not is_launcher(item.text.strip()):
                    scanned = scan(item.source, world, dict(variables))
                    defects += scanned.defects
                    if scanned.servers:
                        defects += folded_backslash(item)
                        for name, value in scanned.servers[0].env.items():
                            environment.add(name, value)
                        stated = scanned.servers[0].secret_env.items()
                        environment.assigned((name, value) for name, value in stated if value.key is not None)
                        return scanned.servers[0].entry, list(scanned.servers[0].args)
                if name == "run":
                    continue
                program = program or (not words and name in _COMMANDS)
                if isinstance(found, Scalar) or (name == "commands"):
                    words += [word.as_value(item.source) for word in lex(item.source, 0, variables, PLAIN).words]
                    if not item.known:
                        words = [replace(word, known=word.known and "{" not in word.text) for word in words]
                else:
                    words.append(item.value())
        if words:
            break
        for name, (_, item) in place.merged.items():  # by a chart's own name: `extraCmdArgs`
            if _CHART_ARGS.fullmatch(name) and name not in _ARGS:
                words += [one.value() for one in _flags_of(item)]
        if words:
            break
    at = next((at for at, word in enumerate(words) if is_launcher(word.text)), None)
    if at is not None:
        return words[at], words[at + 1 :]
    if words and program and not words[0].text.startswith("-"):  # a script, which may start it
        words = [replace(words[0], known=False)]
    return None, words


def _entrypoint(root: Map, variables: Mapping[str, Variable]) -> tuple[Value, list[Value]] | None:
    """The launcher as dstack's `entrypoint`, with `commands` as its words, as Docker has them: no shell reads these."""
    entry, commands = root.scalar("entrypoint"), root.get("commands")
    if entry is None or _form(root) != "dstack":
        return None
    program = [one.as_value(entry.source) for one in lex(entry.source, 0, variables, PLAIN).words]
    if len(program) != 1 or not is_launcher(program[0].text):
        return None
    words = commands.items if isinstance(commands, List) else []
    return program[0], [dollars(one.value()) for one in words if isinstance(one, Scalar)]


_CREDENTIAL = re.compile(r"\$\{\{azureml://connections/([^/{}]+)/credentials/([^/{}]+)\}\}")


def _filled(environment: Environment, node: Map) -> None:
    """Variables with what Azure ML and Vertex AI put into them."""
    for name, value in list(environment.set.items()):
        if found := _CREDENTIAL.fullmatch(value.text):
            missing = (f"{found[1]}/{found[2]}",)
            environment.refer(name, replace(value, known=False, missing=missing, origin=f"connection {found[1]}"))
        elif "$" in value.text and node.get("imageUri") is not None:
            environment.set[name] = _single(value)


def _single(value: Value) -> Value:
    """A word as Vertex AI makes it, where `$$` is a dollar."""
    return replace(value, text=interpolate_kubernetes(value.text, {}, Found()))


def dollars(value: Value) -> Value:
    """A word with `$$` as dstack makes `$` of it; unknown where dstack fills something in."""
    known = value.known and re.search(r"(?<!\$)(?:\$\$)*\$\{\{", value.text) is None
    return replace(value, text=value.text.replace("$$", "$"), known=known)


def _environment(node: Map, above: tuple[Map, ...], root: Map | None) -> Environment:
    """Environment of the container; when it has none, that of the mappings around it."""
    environment = Environment()
    for place in (node, *reversed(above), *((root,) if root is not None else ())):
        held = [found for name in _ENVS if (found := place.get(name)) is not None and _is_environment(found)]
        for found in held:
            _entries(environment, found)
        if held:
            break
    return environment


def _is_environment(node: Node) -> bool:
    """Whether a node may hold variables; what Azure ML calls an environment is an image."""
    return not isinstance(node, Scalar) and not (isinstance(node, Map) and node.get("image") is not None)


def _entries(environment: Environment, node: Node) -> None:
    """A map, a list of NAME=value, or a list of name and value."""
    if isinstance(node, Map):
        for name, (key, item) in node.merged.items():
            if isinstance(item, Scalar) and (not item.null or item.style):
                environment.add(name, replace(item.value("environment"), key=key.spot))
            elif isinstance(item, Scalar):
                value = replace(key.value("the caller's environment"), known=False, missing=(name,), key=key.spot)
                environment.refer(name, value)
            elif isinstance(item, Map) and (inner := item.scalar("value")):
                environment.add(name, replace(inner.value("environment"), key=key.spot))
            elif isinstance(item, Map):
                environment.refer(name, replace(key.value("Secret"), known=False, missing=(name,), key=key.spot))
        return
    for item in node.items if isinstance(node, List) else []:
        if isinstance(item, Map):
            named = item.scalar("name") or item.scalar("key") or item.scalar("Name")
            stated = item.scalar("value") or item.scalar("Value")
            if named and stated:
                environment.add(named.text, replace(stated.value("environment"), key=named.spot))
            elif named:
                secret = item.map("valueFrom", "secretKeyRef")
                owner, field = secret.scalar("name"), secret.scalar("key")
                missing = f"{owner.text}/{field.text}" if owner and field else named.text
                environment.refer(named.text, replace(named.value("Secret"), known=False, missing=(missing,)))
        elif isinstance(item, Scalar):
            whole = item.value("environment")
            name, equals, _ = whole.text.partition("=")
            if equals:
                held = tail(whole.bare, len(name) + 1)
                environment.add(name.strip(), replace(held, key=whole.spot))
            elif re.fullmatch(r"[A-Za-z_]\w*", name):
                origin = "the caller's environment"
                environment.refer(name, replace(whole, known=False, missing=(name,), origin=origin, key=whole.place))


def _variables(root: Map) -> dict[str, Variable]:
    """Environment at the root of a task, which its commands see."""
    environment = _environment(root, (), None)
    _left_open(environment)
    return dict(environment.variables())


def _left_open(environment: Environment) -> None:
    """Variables of SkyPilot's that name others: it fills in none, so that something before it does."""
    for name, value in environment.set.items():
        if named := references(value.text):
            environment.set[name] = replace(value, known=False, missing=tuple(one.name for one in named))


def _ports(node: Map, root: Map) -> Iterator[Port]:
    """Ports the platform reaches the container by."""
    for place in (node, root) if node is not root else (node,):
        for name in _PORTS:
            found = place.get(name)
            for item in found.items if isinstance(found, List) else [found]:
                if isinstance(item, Map):
                    port = item.value("containerPort") or item.value("targetPort") or item.value("port")
                    if port:
                        yield Port("platform", port)
                elif isinstance(item, Scalar) and not item.null:
                    for part in re.finditer(r"[^,\s]+", item.text):
                        value = item.source.value(part.start(), part.end(), "file")
                        yield published(replace(value, known=item.known), "platform")
    probe = root.map("readinessProbe", "http").value("port") or node.map("modelInvocationPort").value("containerPort")
    if probe:
        yield Port("platform", probe)


def _mounts(node: Map, root: Map) -> Iterator[Mount]:
    """Storage of the container."""
    of_dstack = _form(root) == "dstack"
    for place in (node, root) if node is not root else (node,):
        for name in ("volumeMounts", "modelVolumeMount", "volumes", "mounts", "volume_mount_path", "volumeMountPath"):
            found = place.get(name)
            for item in found.items if isinstance(found, List) else [found]:
                if isinstance(item, Map):
                    target = item.value("mountPath") or item.value("path") or item.value("mount_path")
                    if target and (folder := item.value("instance_path")):
                        yield Mount("bind", target, folder)
                    elif target:
                        yield Mount("volume" if of_dstack else "platform", target, item.value("name"))
                elif isinstance(item, Scalar) and not item.null:
                    whole = item.value("file")
                    if ":" in whole.text:
                        yield replace(mount_of(whole), kind="platform")
                    elif whole.text.startswith("/"):
                        yield Mount("platform", whole)
        for key, item in place.map("file_mounts").merged.values():
            yield Mount("platform", key.value("file"), item.value("file") if isinstance(item, Scalar) else None)


def _gpus(around: tuple[Map, ...], resources: Map) -> Gpus:
    """GPUs asked for."""
    limits, requests = resources_of(resources)
    if limits or requests:
        return gpus_of(resources)
    for place in (*around, resources, resources.map("limits")):
        for name, (_, node) in place.merged.items():
            if name not in _GPU_COUNTS and not vendor_of(name):
                continue
            if isinstance(node, Scalar) and not node.null:
                value = node.value("file")
                counted = asked(value)
                if counted.asked in ("count", "all", "none"):
                    return replace(counted, how="platform")
            elif isinstance(node, Map) and (count := node.value("count")) and count.number is not None:
                return Gpus("count", "platform", count, count.number)
    for place in (*around, resources):
        named = place.get("accelerators", "gpu", "gpuClasses", *_GPU_NAMES)
        if named is not None and not (isinstance(named, Scalar) and named.text in ("0", "none")):
            first = named.items[0] if isinstance(named, List) and named.items else named
            if isinstance(first, Scalar):
                value = first.value("file")
                stated = value.text.partition(":")[2]
                number = whole_number(stated)
                return Gpus("count" if number else "unknown", "platform", value, number)
            return Gpus("unknown", "platform")
    return UNSAID


def _counted(gpus: Gpus, hints: tuple[Hint, ...]) -> Gpus:
    """The GPUs, counted by what else names them where the request itself does not say."""
    counted = next((hint for hint in hints if hint.count is not None), None)
    if gpus.asked != "unknown" or counted is None:
        return gpus
    return Gpus("count", "platform", counted.value, counted.count)


def _hints(root: Map, around: tuple[Map, ...]) -> Iterator[Hint]:
    """Hardware named anywhere around the container."""
    seen: set[int] = set()
    for place in (*around, root, root.map("resources"), root.map("spec"), *_specs(root)):
        if id(place) in seen:
            continue
        seen.add(id(place))
        for name in _INSTANCES:
            if value := place.value(name):
                size = place.value("instanceSize")  # Inference Endpoints: `nvidia-l4`, `x4`
                many = whole_number(size.text.removeprefix("x")) if size and size.text.startswith("x") else None
                yield Hint("instance", value) if many is None else Hint("gpu", value, many)
        count = next(
            (
                v.number
                for n in ("acceleratorCount", "accelerator_count", "gpu_count", "gpuCount")
                if (v := place.value(n))
            ),
            None,
        )
        for name in _GPU_NAMES:
            if value := place.value(name):
                yield Hint("gpu", value, count)
        yield from _accelerators(place.get("accelerators"))
        gpu = place.get("gpu")
        if isinstance(gpu, Map):
            number = gpu.value("count")
            for name_of in gpu.list("name"):
                if isinstance(name_of, Scalar):
                    yield Hint("gpu", name_of.value("file"), number.number if number else None)
            if value := gpu.value("memory"):
                yield Hint("memory", value, number.number if number else None)
        elif isinstance(gpu, Scalar) and not gpu.null and not gpu.text.isdigit():
            yield _dstack_gpu(gpu.value("file"))
        for label, (_, node) in place.map("nodeSelector").merged.items():
            if isinstance(node, Scalar):
                yield from label_hint(label, node)


_MACHINES = ("machineSpec", "machine_spec", "hardware", "compute", "ProductionVariants")


def _specs(root: Map) -> Iterator[Map]:
    """Mappings that describe a machine, wherever they stand."""
    for key, node, _above in walk(root):
        if isinstance(node, Map) and key in _MACHINES:
            yield node


def _accelerators(node: Node | None) -> Iterator[Hint]:
    """SkyPilot: `L4:4`, `{L4: 4}`, or a list of alternatives."""
    if isinstance(node, Map):
        for key, count in list(node.merged.values())[:1]:
            number = count.value("file").number if isinstance(count, Scalar) else None
            value = key.value("file")
            yield Hint("gpu", replace(value, text=_ours("skypilot", value.text)), number or 1)
        return
    first = node.items[0] if isinstance(node, List) and node.items else node
    if isinstance(first, Scalar) and not first.null:
        value = first.value("file")
        name, colon, stated = value.text.partition(":")
        yield Hint("gpu", replace(value, text=_ours("skypilot", name)), whole_number(stated) if colon else 1)


def _dstack_gpu(value: Value) -> Hint:
    """dstack: `24GB`, `A100:80GB:2`, `L4:2`."""
    parts = value.text.split(":")
    count = next((number for part in parts[1:] if (number := whole_number(part)) is not None), None)
    if re.match(r"\d+\s*GB", parts[0], re.IGNORECASE):
        return Hint("memory", replace(value, text=parts[0]), count)
    size = next((part for part in parts[1:] if re.match(r"\d+\s*GB", part, re.IGNORECASE)), "")
    name = f"{parts[0]}:{size}" if size else parts[0]
    ours = _ours("dstack", name)
    return Hint("gpu", replace(value, text=ours if ours != name else _joined(parts[0], size)), count)


def _joined(name: str, size: str) -> str:
    return f"{name}-{size.lower()}" if size else name


def _ours(platform: str, name: str) -> str:
    """Our name of a GPU where the platform's means several cards elsewhere (`H100`); else the platform's own."""
    try:
        gpus.find(name)
    except FactsError:
        pass
    else:
        return name
    names = all_platforms()[platform].gpus.items()
    return next((ours for ours, theirs in names if theirs.lower() == name.lower()), name)


def container_of(node: Map, image: Value | None, world: World) -> Server:
    """The container a mapping of another notation describes (`python.py`)."""
    empty = Value("", node.place, "image", known=False)
    return _server(image or empty, node, (), node, "platform", {}, [], world)


def environment_of(node: Map) -> Environment:
    """The environment of a container described in another notation."""
    return _environment(node, (), None)
