"""TGI's four token limits, under TGI's own names."""

from typing import NamedTuple


class Limits(NamedTuple):
    """What the launcher is told, or what a started server ended up with; None is "not given"."""

    max_input_tokens: int | None = None
    """Longest prompt of one request, in tokens (`--max-input-length` before 2.0.0)."""
    max_total_tokens: int | None = None
    """Prompt plus generated tokens of one request."""
    max_batch_prefill_tokens: int | None = None
    """Prompt tokens of one prefill batch; warm-up runs exactly this many."""
    max_batch_total_tokens: int | None = None
    """Tokens of the whole KV cache; flash models infer it at warm-up and ignore what is given."""

    def given(self) -> dict[str, int]:
        """The limits that are set, by TGI's name."""
        pairs = (
            ("max_input_tokens", self.max_input_tokens),
            ("max_total_tokens", self.max_total_tokens),
            ("max_batch_prefill_tokens", self.max_batch_prefill_tokens),
            ("max_batch_total_tokens", self.max_batch_total_tokens),
        )
        return {name: value for name, value in pairs if value is not None}
