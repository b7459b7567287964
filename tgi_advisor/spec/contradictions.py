"""What a spec says twice and differently. Each rule looks at values that were given, never at defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tgi_advisor.errors import Problem
from tgi_advisor.spec.records import Spec

Contradiction = tuple[tuple[str, ...], Problem]
"""The paths it is about, and what is wrong."""


def contradictions(spec: Spec) -> Iterator[Contradiction]:
    """Every contradiction, with the fields it is about."""
    for rule in RULES:
        yield from rule(spec)


def _problem(spec: Spec, paths: tuple[str, ...], message: str, hint: str) -> Contradiction:
    return paths, Problem(message, hint, spec.place(paths[0]))


def _ranges(spec: Spec) -> Iterator[Contradiction]:
    """min is at most max."""
    for name in ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens"):
        bound = getattr(spec.limits, name)
        if bound.low is not None and bound.high is not None and bound.low > bound.high:
            message = f"limits.{name}: min {bound.low} is above max {bound.high}"
            yield _problem(spec, (f"limits.{name}",), message, f"write {{min: {bound.high}, max: {bound.low}}}")


def _input_below_total(spec: Spec) -> Iterator[Contradiction]:
    """A prompt leaves room for at least one new token."""
    low, high = spec.limits.max_input_tokens.low, spec.limits.max_total_tokens.high
    if low is not None and high is not None and low >= high:
        message = (
            f"limits.max_input_tokens {low} must be below limits.max_total_tokens {high}, which counts the answer too"
        )
        hint = f"write max_input_tokens below {high}, or max_total_tokens above {low}"
        yield _problem(spec, ("limits.max_input_tokens", "limits.max_total_tokens"), message, hint)


def _room_for_output(spec: Spec) -> Iterator[Contradiction]:
    """The room asked for the answer is there, when both limits are pinned."""
    given, total = spec.limits.max_input_tokens.low, spec.limits.max_total_tokens.high
    wanted = spec.workload.max_new_tokens
    if wanted is None or total is None:
        return
    room = total - (given or 1)
    if (given or 1) < total and room < wanted:
        paths = ("workload.max_new_tokens", "limits.max_input_tokens", "limits.max_total_tokens")
        beside = f"{given} of input" if given else "a prompt"
        message = (
            f"workload.max_new_tokens {wanted} does not fit: max_total_tokens {total} leaves {room} beside {beside}"
        )
        yield _problem(spec, paths, message, f"write max_new_tokens {room} or less, or raise max_total_tokens")


def _release_and_image(spec: Spec) -> Iterator[Contradiction]:
    """The release is the one the image's tag tells."""
    told = image_release(spec.tgi.image) if spec.tgi.image else None
    given = spec.tgi.release
    if told is None or given is None:
        return
    wanted = given.removeprefix("v").split(".")
    if any(a != b for a, b in zip(wanted, told.split("."), strict=False)):
        message = f"tgi.release {given} is not the release of tgi.image, whose tag tells {told}"
        yield _problem(spec, ("tgi.release", "tgi.image"), message, "keep one of them; the image's tag is enough")


def image_release(image: str) -> str | None:
    """`3.3.7` of `ghcr.io/.../text-generation-inference:3.3.7-rocm`; None when the tag does not tell.

    AWS's tags begin with PyTorch's version and carry TGI's as `tgi3.3.4`.
    """
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    version = r"(\d+\.\d+(?:\.\d+)?)"
    match = re.search(rf"tgi{version}\b", tag, re.ASCII) or re.match(rf"v?{version}(?=$|-)", tag, re.ASCII)
    return match[1] if match else None


def _shards(spec: Spec) -> Iterator[Contradiction]:
    """Not more shards than GPUs."""
    shards, devices = spec.tgi.num_shard, spec.container.gpus
    count = spec.hardware.count if spec.hardware.count or devices == "all" else len(devices)
    if shards is not None and count is not None and shards > count:
        paths = ("tgi.num_shard", "hardware.count", "container.gpus")
        message = f"tgi.num_shard {shards} needs {shards} GPUs, but the container sees {count}"
        yield _problem(spec, paths, message, f"write num_shard: {count} or auto, or raise hardware.count")


def _devices(spec: Spec) -> Iterator[Contradiction]:
    """As many device ids as GPUs."""
    count, devices = spec.hardware.count, spec.container.gpus
    if count is not None and devices != "all" and len(devices) != count:
        message = f"container.gpus names {len(devices)} GPUs, but hardware.count is {count}"
        hint = f"write hardware.count: {len(devices)}, or name {count} devices"
        yield _problem(spec, ("container.gpus", "hardware.count"), message, hint)


def _flag_and_env(spec: Spec) -> Iterator[Contradiction]:
    """A flag is given once: as a flag, or as its variable."""
    for flag in spec.tgi.flags:
        name = flag.upper().replace("-", "_")
        if name in spec.tgi.env:
            paths = (f"tgi.env.{name}", f"tgi.flags.{flag}")
            yield _problem(
                spec, paths, f"{name} and --{flag} set the same thing; the launcher takes the flag", f"delete {name}"
            )


def _replicas(spec: Spec) -> Iterator[Contradiction]:
    """Autoscaling has a most that is no less than its fewest, and what it needs to know."""
    auto, replicas = spec.autoscale, spec.container.replicas
    if auto.max is None:
        given = [f"autoscale.{name}" for name in ("min", "target", "prometheus") if getattr(auto, name) is not None]
        if given:
            message = f"{given[0]} is given, but not autoscale.max: nothing scales"
            yield _problem(spec, (given[0],), message, "write autoscale.max, or leave autoscale out")
        return
    fewest = replicas if auto.min is None else auto.min
    if fewest > auto.max:
        name = "container.replicas" if auto.min is None else "autoscale.min"
        message = f"{name} {fewest} is above autoscale.max {auto.max}"
        yield _problem(spec, ("autoscale.max", name), message, f"write autoscale.max {fewest} or more")
    if auto.by == "keda" and auto.prometheus is None:
        message = "autoscale.by keda asks a Prometheus, and autoscale.prometheus does not say which"
        hint = "write its address, such as http://prometheus-operated.monitoring:9090"
        yield _problem(spec, ("autoscale.by", "autoscale.prometheus"), message, hint)
    if auto.on == "gpu-cache" and auto.target is not None and auto.target > 100:
        message = f"autoscale.target {auto.target}: of the KV cache it is a share in per cent"
        yield _problem(spec, ("autoscale.target", "autoscale.on"), message, "write 100 or less")


def _storage(spec: Spec) -> Iterator[Contradiction]:
    """A claim of one node does not serve replicas on several."""
    most = max(spec.container.replicas, spec.autoscale.max or 1)
    if spec.kubernetes.storage == "one" and most > 1:
        message = f"kubernetes.storage one: a claim of one node leaves the other {most - 1} of {most} replicas pending"
        hint = "write `shared`, for a StorageClass that gives ReadWriteMany, or `node`"
        yield _problem(spec, ("kubernetes.storage", "container.replicas", "autoscale.max"), message, hint)
    if spec.kubernetes.storage == "node" and spec.kubernetes.storage_class is not None:
        message = "kubernetes.storage_class is for a claim, and kubernetes.storage node makes none"
        yield _problem(spec, ("kubernetes.storage_class", "kubernetes.storage"), message, "leave one of them out")


RULES = (
    _ranges, _input_below_total, _room_for_output, _release_and_image, _shards, _devices, _flag_and_env, _replicas,
    _storage,
)  # fmt: skip
"""Every rule."""
