"""What is true of a GPU, and the tables that say so: `gpus.yaml` and `instances.yaml`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, cast

from tgi_advisor import units
from tgi_advisor.errors import FactsError, did_you_mean, listed
from tgi_advisor.facts import tables

System = Literal["cuda", "rocm", "xpu", "cpu", "gaudi"]
TotalFrom = Literal["", "card", "driver", "spec"]
LinkFrom = Literal["card", "instance", "machine"]

REQUIRED = {
    "name", "vendor", "generation", "system", "memory_mib", "cuda_total", "compute_capability", "fp16_tflops",
    "bandwidth_gb_s", "aliases", "source",
}  # fmt: skip
ALLOWED = REQUIRED | {"smi_names", "groups", "accelerators", "note", "host", "link", "mig", "mig_source"}
"""Keys of a row of gpus.yaml; the head of that file says what each means."""
_SLICE = r"(?:mig)?([1-7])g(\d+)gb(?:me)?"
"""The end of a MIG slice's name, without punctuation: `1g.10gb`, `mig-1g.10gb`, `1g.10gb+me`."""

BY_HAND = (
    "A GPU can be stated by hand, on the command line or in a spec's hardware.gpu:\n"
    "--set 'hardware.gpu={name: mine, memory: 24564MiB, compute_capability: 8.9}'"
)
"""On a line of its own, so that it can be pasted."""


class GpuFacts(NamedTuple):
    """One GPU model as TGI meets it."""

    name: str
    """Our table name, e.g. `nvidia-l4`."""
    system: System
    """Which TGI code path serves it."""
    memory_bytes: int
    """Total memory as nvidia-smi prints it (MiB x 2^20); for a CPU, the host's RAM."""
    cuda_total_bytes: int | None
    """Total as the driver tells CUDA (`mem_get_info`), where somebody read it; it is less."""
    compute_capability: tuple[int, int] | None
    """CUDA compute capability; None outside NVIDIA."""
    fp16_tflops: float | None
    """Dense fp16/bf16 tensor throughput in TFLOPS."""
    bandwidth: int | None
    """Memory bandwidth in bytes per second."""
    launcher_name: str
    """What TGI's launcher makes of `nvidia-smi --query-gpu=gpu_name`; empty where there is no nvidia-smi."""
    source: str
    """Where the row's figures come from."""
    generation: str = ""
    """Architecture: turing, ampere, ada, hopper, blackwell, cdna2, ..."""
    mig: str = ""
    """Profile of a MIG slice (`1g.10gb`); empty for a whole card."""
    arm64: bool = False
    """Whether it only exists beside an arm64 CPU."""
    total_from: TotalFrom = ""
    """What `cuda_total_bytes` is known by: the smallest reading of the card, one of its driver, or the spec."""
    link: str = "pcie"
    """How several of them reach each other: nvswitch, nvlink, pcie, or host for no peer access."""
    link_from: LinkFrom = "card"
    """What `link` is known by: only what is usual for the card, the cloud instance type, or the machine itself."""
    driver: str = ""
    """Version of the machine's NVIDIA driver; empty where it is not known."""

    @property
    def driver_major(self) -> int | None:
        """First number of the driver's version; None where it is not known."""
        return int(self.driver.partition(".")[0]) if self.driver else None

    @property
    def at_least(self) -> tuple[int, int]:
        """Compute capability for comparisons; (0, 0) when there is none."""
        return self.compute_capability or (0, 0)


class GpuRow(NamedTuple):
    """One row of the table with everything the `gpus` command shows."""

    name: str
    """Table name."""
    facts: GpuFacts | None
    """Its facts; None where the table has no memory (a CPU), which the spec must state."""
    vendor: str
    """NVIDIA, AMD or Intel."""
    smi_names: tuple[str, ...]
    """Names the vendor's tool prints."""
    aliases: tuple[str, ...]
    """Short names of this row."""
    groups: tuple[str, ...]
    """Names it shares with other rows."""
    instances: tuple[tuple[str, int], ...]
    """Cloud instance types that carry it, with the number of GPUs."""
    note: str
    """What surprises people; may be empty."""
    sources: tuple[str, ...]
    """Where the figures come from."""


class Stated(Protocol):
    """A GPU as a spec states it (`spec.records.GpuSpec`): a name, and any figures that override the table's."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def memory(self) -> int | None: ...  # noqa: D102
    @property
    def cuda_total(self) -> int | None: ...  # noqa: D102
    @property
    def compute_capability(self) -> float | None: ...  # noqa: D102
    @property
    def fp16_tflops(self) -> float | None: ...  # noqa: D102
    @property
    def bandwidth(self) -> int | None: ...  # noqa: D102
    @property
    def system(self) -> str | None: ...  # noqa: D102


def find(name: str) -> GpuFacts:
    """The GPU of this table name, alias or nvidia-smi name; FactsError when it is unknown or names several."""
    rows = _candidates(name)
    if not rows:
        raise _unknown(name)
    if rows[0]["memory_mib"] is None:
        raise FactsError(
            f"how much memory {rows[0]['name']} has does not follow from its name",
            f"State it: --set 'hardware.gpu={{name: {rows[0]['name']}, memory: 64GiB}}'",
        )
    return _with_others(_facts(rows[0]), name, rows)


_ARM64 = r"[a-z]+\d+g[a-z]*\.|(?:t2a|c4a|n4a|a4x)-|nd\w*_gb[23]00|p6e-gb[23]00"
"""AWS's families with a g behind their generation have Graviton CPUs (https://docs.aws.amazon.com/ec2/latest/
instancetypes/instance-type-names.html), Google's T2A, C4A, N4A and A4X Arm ones."""


def is_arm64(instance: str) -> bool:
    """Whether an instance type has an arm64 CPU, by its name."""
    return re.match(_ARM64, _instance_key(instance), re.IGNORECASE) is not None


def without_gpu(instance: str) -> bool:
    """Whether an instance type is of a family that has no GPU (cpu_instances.yaml)."""
    key = _instance_key(instance)
    return any(
        key.partition(row["mark"])[0] in row["families"] for row in tables.load("cpu_instances") if row["mark"] in key
    )


def is_cpu(name: str) -> bool:
    """Whether a name means a CPU, of which the table knows no memory."""
    rows = _matches(name)
    return bool(rows) and rows[0]["memory_mib"] is None


def instance(name: str) -> tuple[GpuFacts, int] | None:
    """GPU and number of GPUs of a cloud instance type (`g6.xlarge`, `ml.g5.2xlarge`); None when it is none we know."""
    wanted = _instance_key(name)
    for cloud, gpu, source, kind, count, link in _instances():
        if _instance_key(kind) == wanted:
            facts = find(gpu)
            facts = facts._replace(source=f"{cloud} {kind} ({source}); {facts.source}")
            return facts._replace(link=link, link_from="instance") if link else facts, count
    return None


def instance_type(name: str) -> str | None:
    """A cloud instance type as its cloud spells it; None when it is none we know."""
    wanted = _instance_key(name)
    return next((kind for _, _, kind, _ in machines() if _instance_key(kind) == wanted), None)


def stated(spec: Stated) -> GpuFacts:
    """The GPU of a spec's block: the table's row with the stated figures over it, or figures alone.

    FactsError when the name is unknown and memory, or what tells the CUDA generation, is missing.
    """
    capability = None
    if spec.compute_capability is not None:
        capability = divmod(round(spec.compute_capability * 10), 10)
    rows = _candidates(spec.name, spec.memory)
    if rows and rows[0]["memory_mib"] is None and spec.memory is None:
        base = find(spec.name)  # raises: says what is missing
    elif rows:
        base = _with_others(_facts(rows[0], spec.memory), spec.name, rows)
    else:
        system = spec.system or ("cuda" if capability else None)
        missing = [] if spec.memory else ["memory (as nvidia-smi prints it, e.g. 24564MiB)"]
        if system is None or (system == "cuda" and not capability):
            missing.append("compute_capability (e.g. 8.9), or system for a GPU that is not NVIDIA's")
        if missing:
            near = _near(spec.name)
            raise FactsError(
                f"GPU {spec.name!r} is not in the table, so the spec must state its {' and its '.join(missing)}",
                f"{near}\n{BY_HAND}" if near else BY_HAND,
            )
        base = GpuFacts(
            name=spec.name, system=cast(System, system), memory_bytes=spec.memory or 0, cuda_total_bytes=None,
            compute_capability=None, fp16_tflops=None, bandwidth=None,
            launcher_name=_launcher_name(spec.name) if system == "cuda" else "", source="",
        )  # fmt: skip
    overrides: dict[str, Any] = {
        "memory_bytes": spec.memory,
        "cuda_total_bytes": spec.cuda_total,
        "total_from": "spec" if spec.cuda_total is not None else None,
        "compute_capability": capability,
        "fp16_tflops": spec.fp16_tflops,
        "bandwidth": spec.bandwidth,
        "system": spec.system,
    }
    given = {field: value for field, value in overrides.items() if value is not None}
    facts = base._replace(**given, source="the spec" + (f"; the rest: {base.source}" if base.source else ""))
    if facts.cuda_total_bytes and facts.cuda_total_bytes > facts.memory_bytes:
        raise FactsError(
            f"GPU {spec.name!r}: CUDA cannot report more memory ({units.human(facts.cuda_total_bytes)}) "
            f"than nvidia-smi ({units.human(facts.memory_bytes)})",
            "leave cuda_total out, or correct memory",
        )
    return facts


def measured(
    name: str, system: System, memory_bytes: int, capability: tuple[int, int] | None, source: str
) -> GpuFacts | None:
    """The row this printed name belongs to, with the memory that was measured; the bare measurement for an unknown one.

    None when a CUDA GPU is neither in the table nor says its compute capability.
    """
    launcher = _launcher_name(name) if system == "cuda" else ""
    rows = _candidates(name, memory_bytes)
    if rows:
        base = _with_others(_facts(rows[0], memory_bytes), name, rows)
        source = f"{source} on this machine; the rest: {base.source}"
        capability = capability or base.compute_capability
        return base._replace(compute_capability=capability, launcher_name=launcher, source=source)
    if system == "cuda" and capability is None:
        return None
    source = f"{source} on this machine; not in the table, so throughput and bandwidth are unknown"
    return GpuFacts(name, system, memory_bytes, None, capability, None, None, launcher, source)


TOTALS_KEYS = {"gpu", "drivers", "total", "source"}


def on_machine(gpu: GpuFacts, driver: str | None, link: str | None) -> GpuFacts:
    """The GPU in a machine whose NVIDIA driver and link are known; None leaves what there is.

    The driver decides what CUDA reports as the total, where a reading says so and the spec does not.
    """
    gpu = gpu._replace(driver=driver or gpu.driver)
    if link is not None:
        gpu = gpu._replace(link=link, link_from="machine")
    if gpu.total_from == "spec":
        return gpu
    for row in tables.load("cuda_totals"):
        tables.strict(row, TOTALS_KEYS, TOTALS_KEYS, f"cuda_totals.yaml, {row.get('gpu')}")
        total, (first, last) = units.parse_size(row["total"]), row["drivers"]
        known = row["gpu"] == gpu.name and 0.97 * gpu.memory_bytes <= total
        if known and gpu.driver_major is not None and first <= gpu.driver_major <= last:
            return gpu._replace(cuda_total_bytes=min(total, gpu.memory_bytes), total_from="driver")
    return gpu


def all_gpus() -> tuple[GpuRow, ...]:
    """Every row of the table, in its order, with all its names and the instances that carry it."""
    carried: dict[str, list[tuple[str, int]]] = {}
    for _, gpu, _, kind, count, _ in _instances():
        carried.setdefault(gpu, []).append((kind, count))
    return tuple(
        GpuRow(
            name=row["name"],
            facts=None if row["memory_mib"] is None else _facts(row),
            vendor=row["vendor"],
            smi_names=tuple(row.get("smi_names", ())),
            aliases=tuple(row["aliases"]),
            groups=tuple(row.get("groups", ())),
            instances=tuple(carried.get(row["name"], ())),
            note="; ".join(filter(None, (row.get("note", ""), _profiles(row)))),
            sources=tuple(row["source"]),
        )
        for row in tables.load("gpus")
    )


def _profiles(row: Mapping[str, Any]) -> str:
    """The MIG slices of a card, for its note."""
    return f"MIG slices: {', '.join(row['mig'])}" if "mig" in row else ""


def _facts(row: Mapping[str, Any], memory: int | None = None) -> GpuFacts:
    """A table row as facts; with another `memory` in bytes the table's CUDA total no longer applies."""
    tables.strict(row, ALLOWED | {"slice"}, REQUIRED, f"gpus.yaml, {row.get('name')}")
    major, _, minor = (row["compute_capability"] or "").partition(".")
    own = (row["memory_mib"] or 0) * units.MiB
    total = row["cuda_total"] if memory in (None, own) else None
    return GpuFacts(
        name=row["name"],
        system=row["system"],
        memory_bytes=memory or own,
        cuda_total_bytes=units.parse_size(total) if total else None,
        compute_capability=(int(major), int(minor)) if major else None,
        fp16_tflops=row["fp16_tflops"],
        bandwidth=None if row["bandwidth_gb_s"] is None else row["bandwidth_gb_s"] * units.GB,
        launcher_name=_launcher_name(row["smi_names"][0]) if row["system"] == "cuda" else "",
        source="table gpus.yaml: " + "; ".join(row["source"]),
        generation=row["generation"],
        mig=row.get("slice", ""),
        arm64=row.get("host") == "arm64",
        total_from="card" if total else "",
        link=row.get("link", "pcie"),
    )


def _launcher_name(smi_name: str) -> str:
    """`launcher/src/main.rs@v3.3.7:1825`: the printed name with dashes for spaces, in lower case."""
    return smi_name.replace(" ", "-").lower()


_VENDOR_WORDS = ("nvidia", "amd", "intel", "geforce", "tesla", "instinct")


def _plain(name: str) -> str:
    """A name without case, punctuation and leading vendor words: `NVIDIA GeForce RTX 4090` -> `rtx4090`."""
    plain = "".join(filter(str.isalnum, name.lower()))
    for word in _VENDOR_WORDS:
        plain = plain.removeprefix(word)
    return plain


def _matches(name: str) -> list[Mapping[str, Any]]:
    """The one row that has this name to itself, else all rows that print it, else all that share it as a group."""
    wanted = _plain(name)
    label = name.lower().replace("_", "-")
    for row in tables.load("gpus"):
        if label in row.get("accelerators", ()):
            return [row]
    if "gb" in wanted and (found := re.fullmatch(rf"(.*?){_SLICE}", wanted)):
        return _slices(found[1], f"{found[2]}g.{found[3]}gb")
    printed, grouped = [], []
    for row in tables.load("gpus"):
        if any(_plain(own) == wanted for own in (row["name"], *row["aliases"])):
            return [row]
        if any(_plain(name) == wanted for name in row.get("smi_names", ())):
            printed.append(row)
        if any(_plain(group) == wanted for group in row.get("groups", ())):
            grouped.append(row)
    return printed or grouped


def _slices(card: str, profile: str) -> list[Mapping[str, Any]]:
    """The rows of a MIG slice of a card, or of every card that has one of this name."""
    rows = _matches(card) if card else tables.load("gpus")
    return [_slice(row, profile) for row in rows if profile in row.get("mig", {})]


_OF_THE_CARD = ("mig", "mig_source", "groups", "accelerators", "note")
"""Fields of a row that its slices do not have."""


def _slice(row: Mapping[str, Any], profile: str) -> Mapping[str, Any]:
    """The row of a MIG slice: its memory as nvidia-smi prints it, its share of the card's speed.

    A card has 7 compute slices and 8 of memory; the launcher is told the card's name, whatever the slice
    (nvidia-smi --query-gpu=gpu_name, launcher/src/main.rs@v3.3.7:1825).
    """
    memory = row["mig"][profile]
    return {
        **{key: value for key, value in row.items() if key not in _OF_THE_CARD},
        "name": f"{row['name']}-mig-{profile}",
        "memory_mib": memory,
        "cuda_total": None,
        "fp16_tflops": row["fp16_tflops"] * int(profile[0]) / 7,
        "bandwidth_gb_s": row["bandwidth_gb_s"] * round(8 * memory / row["memory_mib"]) // 8,
        "link": "host",
        "aliases": [],
        "slice": profile,
        "source": [row["mig_source"], *row["source"]],
    }


def slice_of(card: GpuFacts, profile: str) -> GpuFacts | None:
    """A MIG slice of a card; the card itself where it is that slice already, None where it has none of this name."""
    if card.mig:
        return card if card.mig == profile else None
    rows = _slices(_plain(card.name), profile)
    return _facts(rows[0]) if rows else None


SAME_CARD = 0.05
"""Share by which what older drivers print of a card's memory differs from the table."""


def _candidates(name: str, memory: int | None = None) -> list[Mapping[str, Any]]:
    """The rows a name means, all with the same memory; `memory` in bytes picks among cards of different size."""
    rows = _matches(name)
    if len({row["memory_mib"] for row in rows}) == 1:
        return rows
    of_size = [row for row in rows if memory and abs(memory / units.MiB / row["memory_mib"] - 1) < SAME_CARD]
    if rows and not of_size:
        sizes = [f"{row['name']} ({row['memory_mib']} MiB)" for row in rows]
        raise FactsError(
            f"GPU {name!r} names several cards with different memory: {', '.join(sizes)}",
            f"say which: {listed([row['name'] for row in rows])}",
        )
    return of_size


def _with_others(facts: GpuFacts, name: str, rows: list[Mapping[str, Any]]) -> GpuFacts:
    """The first row's facts, saying so when the name means further cards with the same memory."""
    others = [row["name"] for row in rows[1:]]
    if not others:
        return facts
    return facts._replace(source=f"{facts.source} ({name!r} also names {listed(others, 'and')}, with the same memory)")


def _instance_key(name: str) -> str:
    return name.strip().lower().removeprefix("ml.").removeprefix("standard_")


INSTANCE_KEYS = {"cloud", "gpu", "source", "types"}
LINK_KEYS = {"link", "link_source"}


def _instances() -> Iterator[tuple[str, str, str, str, int, str | None]]:
    """Cloud, GPU's name in the table, source, instance type, GPUs, known link; for every type in instances.yaml."""
    for group in tables.load("instances"):
        required = INSTANCE_KEYS | LINK_KEYS if LINK_KEYS & group.keys() else INSTANCE_KEYS
        tables.strict(group, required, required, f"instances.yaml, {group.get('gpu')}")
        for kind, count in group["types"].items():
            yield group["cloud"], group["gpu"], group["source"], kind, count, group.get("link")


def machines() -> Iterator[tuple[str, str, str, int]]:
    """Cloud, GPU's name in the table, instance type and number of GPUs of every row of instances.yaml, in its order."""
    return ((cloud, gpu, kind, count) for cloud, gpu, _, kind, count, _ in _instances())


def printed(name: str) -> tuple[str, ...]:
    """What the vendor's tool prints of a GPU of the table; nothing for another one."""
    return next((tuple(row.get("smi_names", ())) for row in tables.load("gpus") if row["name"] == name), ())


def _names() -> list[str]:
    """Everything `find` and `instance` understand, for suggestions."""
    rows = tables.load("gpus")
    names = [row["name"] for row in rows]
    names += [name for row in rows for name in (*row["aliases"], *row.get("smi_names", ()))]
    return names + [kind for _, _, _, kind, *_ in _instances()]


def _near(name: str) -> str | None:
    """What may have been meant. For a MIG slice other slices, never its card, which has many times the memory."""
    plain = _plain(name)
    if re.search(_SLICE, plain) is None and "mig" not in plain:
        return near[0].upper() + near[1:] if (near := did_you_mean(name, _names())) else None
    card = _matches(plain.partition("mig")[0])
    rows = card or [row for row in tables.load("gpus") if "mig" in row]
    known = dict.fromkeys(f"{row['name']}-mig-{profile}" for row in rows for profile in row.get("mig", {}))
    if not known:
        return "No MIG slice of this card is known."
    return (
        f"Slices that are known: {', '.join(known)}." if len(known) <= 12 else "A slice is named a100-80gb-mig-1g.10gb."
    )


def _unknown(name: str) -> FactsError:
    if is_arm64(name):
        return FactsError(f"{name!r} has an arm64 CPU, for which TGI has no image", "Take an x86-64 instance type.")
    near = _near(name)
    known = "`tgi-advisor gpus` lists what is known."
    return FactsError(f"GPU {name!r} is not known", f"{f'{near} ' if near else ''}{known}\n{BY_HAND}")
