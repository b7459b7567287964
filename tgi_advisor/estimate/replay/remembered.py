"""What was replayed of a launch before, as numbers that can be kept: sizes are in units of the allocator's rounding."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from tgi_advisor.estimate import exllama, geometry
from tgi_advisor.estimate.allocator import ROUNDING, State
from tgi_advisor.estimate.replay import shapes
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.replay.loading import loaded
from tgi_advisor.estimate.replay.warmup import Prefill
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import release as releases
from tgi_advisor.facts import replayed, shelf

Asked = tuple[int, int, int, int]
"""A prefill that is replayed: number of its length, requests, tokens of the longest or 0, allocator it begins on."""
Held = tuple[int, int]
"""(bytes reserved for a KV cache, number of the allocator it leaves)."""


class Known:
    """What was replayed of one launch before; read as it is asked for, as few of it ever is."""

    def __init__(self, rows: replayed.Rows) -> None:
        """`rows`: what `written` made of it."""
        self._held: Mapping[str, tuple[int, int]] = rows["held"]
        self._prefills: bytes = rows["prefills"].encode()
        reserved, alive, small, large = rows["loaded"]
        self.loaded = State(_bytes(reserved), _bytes(alive), tuple(map(_bytes, small)), tuple(map(_bytes, large)))
        self.numbers: int = rows["numbers"]
        images: Sequence[int] | None = rows.get("images")
        self.images = (_bytes(images[0]), _bytes(images[1]), _bytes(images[2])) if images else None

    def held(self, size: int) -> Held | None:
        """What a KV cache of tensors of `size` bytes leaves; None where that was not replayed."""
        found = self._held.get(str(size))
        return None if found is None else (_bytes(found[0]), found[1])

    def size(self, number: int) -> int:
        """The size of tensors that leaves the allocator of a number."""
        return next(int(size) for size, (_, one) in self._held.items() if one == number)

    def prefill(self, asked: Asked) -> Prefill | None:
        """What a prefill adds; None where it was not replayed."""
        line = shelf.found(self._prefills, _name(asked).encode())
        return None if line is None else Prefill(*(_bytes(int(size)) for size in line.split()))


def of(launch: Alike) -> Known | None:
    """What is known of a launch, or of the same one with the newest release; None where nothing is."""
    rows = replayed.find(name(launch))
    return _with_newest(launch.setting) if rows is None else Known(rows)


def _with_newest(setting: Setting) -> Known | None:
    """What is known of a launch with the newest release, where it loads and runs the same: all that a replay asks then
    is in the allocator it begins on, in its shapes, and in how the logits are made. What exllama and images add hangs
    on the release in further ways.
    """
    release, newest = setting.facts.release, releases.latest()
    if release.prefill_logits != newest.prefill_logits or setting.family.served_by == "vlm" or exllama.applies(setting):
        return None
    later = setting._replace(facts=setting.facts._replace(release=newest))
    if shapes.of(setting, geometry.of(setting)) != shapes.of(later, geometry.of(later)):
        return None
    rows = replayed.find(name(Alike(later)))
    known = None if rows is None else Known(rows)
    return known if known is not None and known.loaded == loaded(setting) else None


def name(launch: Alike) -> str:
    """What tells a launch from others: a checksum of all that a replay may ask about it."""
    model = launch.setting.facts.model
    groups = [(one.name, one.dtype, one.shape, one.count) for one in model.tensors]
    files = (model.files, model.file_count) if launch.setting.family.served_by == "transformers" else None
    about = model.config, model.defaults, groups, files, model.weights_format, model.heads, launch.but_for_the_model
    text = repr(about).encode()
    return f"{len(text)}-{zlib.crc32(text):08x}"


def written(
    loaded: State, held: Mapping[int, Held], prefills: Mapping[Asked, Prefill], numbers: int,
    images: tuple[int, int, int] | None = None,
) -> dict[str, object]:  # fmt: skip
    """What `Known` reads: the allocator once the model is there, what was replayed from there, and of an image."""
    small, large = ([size // ROUNDING for size in sizes] for sizes in (loaded.small, loaded.large))
    return {
        "loaded": [loaded.reserved // ROUNDING, loaded.alive // ROUNDING, small, large],
        "numbers": numbers,
        "held": {size: [reserved // ROUNDING, number] for size, (reserved, number) in held.items()},
        **({"images": [size // ROUNDING for size in images]} if images else {}),
        "prefills": "\n".join(["", *(_line(asked, seen) for asked, seen in prefills.items()), ""]),
    }


def _line(asked: Asked, seen: Prefill) -> str:
    """A prefill as `shelf.found` finds it."""
    return f"{_name(asked)}\t{' '.join(str(size // ROUNDING) for size in seen)}"


def _name(asked: Asked) -> str:
    return " ".join(map(str, asked))


def _bytes(units: int) -> int:
    return units * ROUNDING
