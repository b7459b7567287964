"""From a spec to the facts it will be judged on: the model, the GPU, the TGI release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tgi_advisor.errors import FactsError, Problem, SpecError, UsageError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import outside
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.adapters import Lora
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.facts.speed import Calibration
from tgi_advisor.gather import unknown
from tgi_advisor.gather.model import Source, load
from tgi_advisor.spec.records import Spec


def gather(
    spec: Spec,
    *,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    model: ModelFacts | None = None,
    speed: Sequence[str] = (),
) -> Facts:
    """Everything true about a spec's deployment; FactsError or SpecError when something is not known.

    The cheap questions come first, so that a misspelt GPU is reported before the Hub is asked. With the facts of its
    `model` the Hub is not asked about it again. `speed` names files that `calibrate` wrote.
    """
    measured = calibrations(speed)
    try:
        gpu, count = hardware(spec)
    except (FactsError, SpecError) as error:
        raise unknown.beside(error, "hardware.gpu", spec) from None
    try:
        release, variant, note = software(spec, gpu)
    except (FactsError, SpecError) as error:
        raise unknown.beside(error, "tgi.image" if spec.tgi.image else "tgi.release", spec) from None
    about_driver = "" if gpu.driver else outside.note(spec.hardware.gpu.name)
    if model is None:
        where = partial(_on_host, spec)
        try:
            model = load(
                spec.model.id, spec.model.revision, source=source, offline=offline, progress=progress, on_host=where
            )
        except FactsError as error:
            raise unknown.beside(error, "model.id", spec) from None
    loras, about_adapters = _adapters(spec, source, offline)
    mirror, about_hub = _hub(spec, model, release) if model.fetched else ("", ())
    notes = tuple(filter(None, (note, about_driver, model.assumed, *about_hub, *about_adapters)))
    return Facts(model, gpu, count, release, variant, notes, mirror, loras, measured)


MOST_SPEED = 1 << 20
"""Bytes of a file of calibrations that are read."""


def calibrations(paths: Sequence[str]) -> tuple[Calibration, ...]:
    """What the files hold that `calibrate` wrote; UsageError or FactsError for one that cannot be read or is none."""
    return tuple(one for path in paths for one in _calibrations(path))


def _calibrations(path: str) -> tuple[Calibration, ...]:
    import yaml

    from tgi_advisor.facts import speed, tables
    from tgi_advisor.reading import read_named
    from tgi_advisor.spec.tree import compose

    try:
        data = read_named(path, MOST_SPEED)
        compose(data.decode(), path)  # says where it is no YAML
        return speed.read(tables.parse(data, path), path)
    except SpecError as error:
        raise FactsError(f"{path} holds no measurements of a server", speed.FORM, error.problems) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FactsError(f"{path} holds no measurements of a server: {reason}", speed.FORM) from None


def _on_host(spec: Spec, path: str) -> str:
    """Where a path of the container lies on the host, through the spec's mounts."""
    from tgi_advisor.gather import mounts

    return str(mounts.on_this_machine(spec, path))


MIRRORS_SINCE = (3, 2, 1)
"""First release whose launcher and router read HF_ENDPOINT (launcher/src/main.rs@v3.2.1:100, hf-hub 0.4.2's from_env);
huggingface_hub, which downloads the weights, reads it in every release."""


def _adapters(spec: Spec, source: Source, offline: bool) -> tuple[Mapping[str, Lora], tuple[str, ...]]:
    """The LoRA adapters of a spec, and what had to be assumed of them."""
    if "lora-adapters" not in spec.tgi.flags and "LORA_ADAPTERS" not in spec.tgi.env:
        return {}, ()
    from tgi_advisor.gather import adapters, environment

    return adapters.gather(spec, network=source in ("auto", "hub") and not (offline or environment.offline()))


def _hub(spec: Spec, model: ModelFacts, release: TgiRelease) -> tuple[str, tuple[str, ...]]:
    """The mirror the container has to ask, as it may be written down, and what to know about reaching the Hub."""
    from tgi_advisor.gather import environment

    notes: list[str] = []
    url = environment.mirror()
    stated = "HF_ENDPOINT" in spec.tgi.env
    if url is not None and not stated:
        shown = environment.public(url)
        if shown != url:
            notes.append(
                f"HF_ENDPOINT ({shown}) holds a secret and is not written down: give it to the container yourself"
            )
            url = None
        elif environment.is_own(url):
            way_out = "set tgi.env.HF_ENDPOINT to an address of the mirror that it reaches"
            notes.append(f"HF_ENDPOINT is {shown}, which inside a container is the container itself: {way_out}")
            url = None
    if (url is not None or stated) and release.version < MIRRORS_SINCE:
        half = f"TGI {release} downloads weights from HF_ENDPOINT, but its launcher and router ask huggingface.co"
        notes.append(f"{half}; 3.2.1 and newer ask the mirror for everything")
    if environment.proxy() and model.source.startswith("Hub"):
        way_out = "set HTTPS_PROXY in tgi.env, or in Docker's own settings (https://docs.docker.com/engine/cli/proxy/)"
        notes.append(f"the Hub is asked through a proxy here, and the container does not get it: {way_out}")
    return (url or "") if not stated else "", tuple(notes)


def hardware(spec: Spec) -> tuple[GpuFacts, int]:
    """The GPU in its machine, and how many the container sees; FactsError or SpecError when they are not known."""
    found, count = _gpus(spec)
    asked = spec.hardware
    for field, value in (("driver", asked.driver), ("link", asked.link)):
        if value is not None and found.system != "cuda":
            problem = Problem(f"{found.name} is no NVIDIA GPU", f"leave {field} out", spec.place(f"hardware.{field}"))
            raise SpecError(f"hardware.{field} is about NVIDIA GPUs", problems=[problem])
    return gpus.on_machine(found, asked.driver, asked.link), count


def _gpus(spec: Spec) -> tuple[GpuFacts, int]:
    """The GPU and how many the container sees: table name, instance type, this machine, or stated by hand.

    Devices that are named in container.gpus are as many GPUs.
    """
    asked, named = spec.hardware.gpu, spec.container.gpus
    count = spec.hardware.count or (None if isinstance(named, str) else len(named))
    if asked.name == "auto":
        from tgi_advisor.gather import host

        found, there = host.this_machine()
        return found, count or there
    if asked.stated:
        return gpus.stated(asked), count or 1
    instance = gpus.instance(asked.name)
    if instance is None:
        return gpus.find(asked.name), count or 1
    found, there = instance
    field = "hardware.count" if spec.hardware.count else "container.gpus"
    if count is not None and count > there:
        raise SpecError(
            f"{asked.name} has {there} GPU{'s' if there > 1 else ''}, but {field} asks for {count}",
            f"Lower {field}, leave it out, or name a larger instance type.",
        )
    return found, count or there


def software(spec: Spec, gpu: GpuFacts) -> tuple[TgiRelease, str, str]:
    """(release, image variant, note about what had to be assumed)."""
    stated = releases.find(spec.tgi.release) if spec.tgi.release else None
    needed = releases.VARIANTS[gpu.system]
    if spec.tgi.image is None:
        return stated or releases.latest(), needed, ""
    tag = releases.from_image(spec.tgi.image, stated)
    official = spec.tgi.image.startswith("ghcr.io/huggingface/text-generation-inference")
    if tag.variant != needed and (official or tag.variant):
        runs = {variant: system for system, variant in releases.VARIANTS.items()}[tag.variant]
        raise SpecError(
            f"image {spec.tgi.image!r} runs on {runs}, but {gpu.name} needs the {needed or 'CUDA'} image",
            f"Write tgi.image: {releases.image_for(tag.release, needed)}",
        )
    return tag.release, needed, tag.note
