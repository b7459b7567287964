"""TGI320-TGI329: where the weights are kept."""

from __future__ import annotations

import posixpath
import re

from tgi_advisor.validate.catalogue import is_path, no_such_size
from tgi_advisor.validate.found import Mount
from tgi_advisor.validate.rules.host import CONTAINERS, SHM
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

KEEPING = ("bind", "volume", "pvc", "platform", "unknown")
"""Kinds of storage that outlive the container."""
FLEETING = ("emptyDir", "ephemeral", "memory", "anonymous")
"""Kinds of storage that are deleted with it."""


def cache(case: Case) -> str | None:
    """The folder the weights of a Hub model are kept in; None when it cannot be known."""
    given = case.view.get("huggingface-hub-cache")
    if given is not None:
        return given.value.text if given.value.known else None
    env = case.view.env
    for name, inner in (("HUGGINGFACE_HUB_CACHE", ""), ("HF_HUB_CACHE", ""), ("HF_HOME", "hub")):
        value = env.get(name)
        if value is not None:
            return posixpath.join(value.text, inner).rstrip("/") if value.known else None
    return None if case.view.image.guessed or case.view.image.cloud else "/data"


_FILES = (".json", ".txt", ".yaml", ".yml", ".pem", ".crt", ".key", ".sh", ".py", ".jinja")


def keeps_weights(case: Case) -> bool:
    """Whether any storage could already hold the weights."""
    return any(mount.kind in KEEPING and not _other(mount) for mount in case.server.mounts)


def mounted_at(case: Case, model: str) -> Mount | None:
    """The mount whose target a relative path means, if it is one."""
    top = model.partition("/")[0]
    for mount in case.server.mounts:
        if mount.target.known and mount.target.text.rstrip("/") == f"/{top}" and top in ("models", "model", "weights"):
            return mount
    return None


WORKDIR = "/usr/src"
"""Where TGI's images start the launcher."""


def path_in_container(case: Case, folder: str) -> str | None:
    """The path a folder given to the launcher means; None where that, or what lies there, cannot be known."""
    container = case.server.form in ("docker-run", "compose")  # a cluster may mount more than a pod says
    known = all(mount.target.known for mount in case.server.mounts) and case.view.image.official
    if not container or not known or case.server.unknown or folder.startswith("~"):
        return None
    stated = case.server.workdir
    workdir = stated.text if stated is not None and stated.text.startswith("/") else WORKDIR
    return posixpath.normpath(posixpath.join(workdir, folder))


_COPIED = re.compile(
    r"\b(?:docker|podman|nerdctl)[ \t]+(?:container[ \t]+)?cp[ \t][^\n;&|]*?[ \t][\"']?[^\s:\"']+:[\"']?(/[^\s\"';&|]*)"
)
"""What is copied into a container that was created before."""


def reaches(case: Case, path: str) -> bool:
    """Whether something is mounted at a path or above it, or copied there."""
    mounted = (mount.target.text for mount in case.server.mounts)
    return any(_below(path, folder) for folder in (*mounted, *_COPIED.findall(case.document.text)))


def _below(path: str, folder: str) -> bool:
    return (path.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


def _used(case: Case, mount: Mount) -> bool:
    """Whether a mount beside the cache holds something an argument names: an adapter, a tokenizer's file."""
    folder, flags = cache(case), case.view.flags
    if folder is not None and _covers(mount, folder):
        return False
    words = [flags[name].value.text for name in flags if name != "huggingface-hub-cache" and flags[name].value.known]
    paths = [part.rpartition("=")[2].partition("@")[0].strip() for text in words for part in text.split(",")]
    return any(path.startswith("/") and _below(path, mount.target.text) for path in paths)


def _covers(mount: Mount, folder: str) -> bool:
    """Whether a mount is the folder, above it, or inside it."""
    target = posixpath.normpath(mount.target.text)
    return target == folder or folder.startswith(target.rstrip("/") + "/") or target.startswith(folder + "/")


def _other(mount: Mount) -> bool:
    """Whether a mount is certainly for something else than weights."""
    target = mount.target.text
    inner = target.rpartition("/")[2]
    return (
        target.rstrip("/") == SHM or mount.kind in ("configMap", "secret") or "token" in inner or inner.endswith(_FILES)
    )


def _from_hub(case: Case) -> bool:
    """Whether the weights come from the Hub, as far as is known."""
    if case.view.get("weights-cache-override") is not None:
        return False
    model = case.view.model
    if model is not None:
        path = path_in_container(case, model) if not is_path(model) else None
        if path is not None and reaches(case, path):
            return False
        exists = bool(model) and (case.facts is not None or no_such_size(model) is None)
        return exists and not is_path(model) and mounted_at(case, model) is None
    return not any(not _other(mount) for mount in case.server.mounts)


def offline(case: Case) -> bool | None:
    """Whether the Hub is not to be asked; None when that is not in the file.

    server/text_generation_server/utils/hub.py@v3.3.7:17; huggingface_hub reads the same words.
    """
    value = case.view.env.get("HF_HUB_OFFLINE")
    if value is None or not value.known:
        elsewhere = case.server.env_sources or "TRANSFORMERS_OFFLINE" in case.view.env
        return False if value is None and not elsewhere else None
    return value.text.lower() in ("1", "true", "yes")


def elsewhere(case: Case) -> bool:
    """Whether another hub than Hugging Face's is asked, a mirror or one of one's own.

    https://github.com/huggingface/huggingface_hub/blob/v0.34.0/src/huggingface_hub/constants.py
    """
    value = case.view.env.get("HF_ENDPOINT")
    return value is not None and not (value.known and re.match(r"https?://(?:www\.)?huggingface\.co/?$", value.text))


def _judged(case: Case) -> bool:
    return _keeps_nothing(case) and _from_hub(case) and not offline(case)


def _keeps_nothing(case: Case) -> bool:
    """Whether the file alone decides what storage there is."""
    form = case.server.form
    container = form in (*CONTAINERS, "dstack") or (form == "systemd" and case.server.image is not None)
    return container and case.view.image.entry != "sagemaker"


@rule("TGI320", "warning", "weights are downloaded again every time")
def no_volume(case: Case) -> Hits:
    """No volume lies on the weight cache (/data in TGI's images): every new container downloads them again.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    if not _judged(case) or case.server.unknown:
        return
    folder = cache(case)
    mounts = [mount for mount in case.server.mounts if not _other(mount) and not _used(case, mount)]
    if folder is None or any(not mount.target.known or _covers(mount, folder) for mount in mounts):
        return
    if any(mount.kind in KEEPING for mount in mounts):
        return  # TGI322 looks at these
    yield Hit(
        case.home,
        f"no volume lies on {folder}, so every new container downloads the weights again",
        f"mount a volume on {_root(folder)}",
        once="file",
    )


def _root(folder: str) -> str:
    """What people mount: the image's /data, and not the hub folder inside it."""
    return folder.removesuffix("/hub") or folder


@rule("TGI321", "warning", "weights on storage that is deleted")
def fleeting(case: Case) -> Hits:
    """The weight cache lies on storage that goes with the pod or container: every new one downloads again.

    emptyDir and generic ephemeral volumes are deleted with the pod. A PersistentVolumeClaim or a folder of
    the node keeps the weights.

    Failing, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, emptyDir: {}}]

    Fixed, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    folder = cache(case)
    if not _judged(case) or folder is None:
        return
    covering = [mount for mount in case.server.mounts if mount.target.known and _covers(mount, folder)]
    if covering and all(mount.kind in FLEETING for mount in covering):
        message = f"the weights lie on {covering[0].kind} storage, which is deleted with the container"
        yield Hit(covering[0].target, message, "keep them on a volume, a claim or a folder of the host")


@rule("TGI322", "warning", "volume beside the weight cache")
def wrong_path(case: Case) -> Hits:
    """A volume is there, but not where this image keeps the weights, so they are downloaded every time.

    TGI's images set HUGGINGFACE_HUB_CACHE=/data until 2.2.0 and HF_HOME=/data from 2.3.0 on; the usual
    /root/.cache/huggingface is not looked at.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v ~/.cache/huggingface:/root/.cache/huggingface \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v ~/.cache/huggingface:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    folder = cache(case)
    if folder is None or not _keeps_nothing(case):
        return
    model = case.view.model
    if model is not None and not _from_hub(case):
        return
    mounts = [mount for mount in case.server.mounts if not _other(mount) and not _used(case, mount)]
    keeping = [mount for mount in mounts if mount.kind in KEEPING]
    if not keeping or any(not mount.target.known or _covers(mount, folder) for mount in mounts):
        return
    if model is None and "huggingface" not in keeping[0].target.text:
        return  # it may hold the model itself
    message = f"the volume lies on {keeping[0].target.text}, but the weights are kept in {folder}"
    yield Hit(
        keeping[0].target,
        message,
        f"mount it on {_root(folder)}, or pass --huggingface-hub-cache {keeping[0].target.text}",
    )


@rule("TGI324", "info", "offline: the cache has to hold the model")
def offline_cache(case: Case) -> Hits:
    """With HF_HUB_OFFLINE nothing is downloaded: the cache has to hold the model at its revision already.

    A token is of no use then. Where no storage is mounted at all, the cache is empty and the start fails, which
    is an error. A folder as model id is read without the Hub in every release.

    Failing::

        HF_HUB_OFFLINE=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        HF_HUB_OFFLINE=1 tgi:3.3.7 --model-id /data/qwen2.5-7b-instruct
    """
    word, folder = case.at("model-id"), cache(case)
    if word is None or folder is None or not offline(case) or not _from_hub(case) or not _keeps_nothing(case):
        return
    if case.server.form in ("docker-run", "compose") and case.view.image.official and not keeps_weights(case):
        message = f"HF_HUB_OFFLINE is set, and no storage is mounted that could hold {case.view.model}"
        yield Hit(word, message, f"mount a filled cache on {_root(folder)}, or take HF_HUB_OFFLINE out", "error")
        return
    revision = case.view.text("revision") or "main"
    yield Hit(word, f"HF_HUB_OFFLINE is set: {folder} has to hold {case.view.model} at {revision} already")


@rule("TGI323", "warning", "volume without a target")
def no_target(case: Case) -> Hits:
    """`-v FOLDER` without `:TARGET` shares nothing: Docker makes an empty volume at that path inside.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v ${PWD}/models -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v ${PWD}/models:/models -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    folder = cache(case) or "/data"
    for mount in case.server.mounts:
        if mount.kind != "anonymous" or (mount.target.known and _covers(mount, folder)):
            continue
        message = f"{mount.target.text} has no target in the container: an empty volume is made, and nothing is shared"
        yield Hit(mount.target, message, f"write {mount.target.text}:{_root(folder)}")
