"""What a warm-up adds to a loaded model."""

from typing import NamedTuple, Protocol


class Batch(NamedTuple):
    """The batch TGI warms up with."""

    requests: int
    """Requests in it."""
    tokens: int
    """Their prompt tokens together."""
    longest: int
    """Prompt tokens of each request but the last, which gets what is left."""
    blocks: int
    """KV blocks they take."""


class Peak(NamedTuple):
    """What one warm-up adds to a loaded model, in bytes."""

    cache: int
    """Reserved for its KV cache."""
    layers: int
    """Reserved when the last layer is done, the KV cache included."""
    whole: int
    """Reserved when the next tokens are drawn, the KV cache included: what TGI then sees as used."""
    alive_layers: int
    """In use at the widest moment of the layers, beside the KV cache."""
    alive: int
    """In use at the widest moment of all, beside the KV cache."""
    again: int
    """Reserved by the layers of the same prefill once a full KV cache has taken the gaps that loading left."""


class Seen(NamedTuple):
    """What the images of a full prefill take, in bytes: one of the largest size in each prompt."""

    widest: int
    """In use at the widest moment of encoding them, beside a full KV cache."""
    kept: int
    """More than the warm-up's image has in use while the layers run."""


class Prefills(Protocol):
    """The warm-ups of one launch."""

    @property
    def sharing(self) -> int:
        """The most KV blocks whose tensors share segments, while larger ones find room in gaps; -1 where none do."""

    @property
    def full(self) -> tuple[int, ...]:
        """Numbers of KV blocks whose tensors fill the segments they share, the largest first."""

    @property
    def rough(self) -> "Roughly | None":
        """About the same for less work, where a search may begin; None where `at` is no work."""

    def in_gaps(self, blocks: int) -> int:
        """Bytes of a full KV cache of so many blocks that find room in gaps that loading left."""

    def at(self, batch: Batch) -> Peak:
        """What the warm-up with a batch adds."""

    def squeezed(self, batch: Batch, room: int) -> Peak:
        """The same where PyTorch may add no more than `room` bytes and gives its cache back before it fails.

        Where it fails all the same, `whole` is the least room with which it would not.
        """

    def seen(self, requests: int, longest: int) -> Seen | None:
        """What the images in so many prompts of `longest` tokens take; None where no images are replayed."""


class Roughly(Prefills, Protocol):
    """About the warm-ups of one launch."""

    @property
    def near_enough(self) -> bool:
        """Whether the estimates are never put right."""

    def put_right(self) -> bool:
        """From here on the batch asked for last gets what the launch itself says, others as much more or less.

        Whether that was done.
        """
