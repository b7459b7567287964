"""An upgrade for programs: the one object of `upgrade --json` (docs/json.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgi_advisor import tabular
from tgi_advisor.plan import Prediction
from tgi_advisor.spec import writer
from tgi_advisor.upgrades.records import Side, Upgrade

LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens", "max_batch_total_tokens")


def document(found: Upgrade) -> dict[str, Any]:
    """One server's upgrade as plain values."""
    proposal, around = found.proposal, found.surroundings
    facts = found.before.setting.facts
    return {
        "server": around.name or None,
        "place": around.place or None,
        "model": facts.model.id,
        "gpu": facts.gpu.name,
        "count": facts.gpu_count,
        "from": found.before.name,
        "to": found.after.name,
        "downgrade": found.downgrade,
        "exit_code": int(found.exit_code),
        "serves": found.serves,
        "less": list(found.less),
        "more": list(found.more),
        "before": _side(found.before),
        "after": _side(found.after),
        "memory": [row._asdict() for row in found.memory],
        "changes": [change._asdict() for change in found.changes],
        "proposal": {
            "prefer": proposal.prefer,
            "serves": proposal.serves,
            "less": list(proposal.less),
            "pins": [{"path": pin.path, "value": pin.value, "why": pin.why} for pin in proposal.pins],
            "dropped": list(proposal.dropped),
            "lost": list(proposal.lost),
            "instead": list(proposal.instead),
            "after": _side(proposal.side),
            "spec": writer.dump(proposal.spec),
        },
        "fixed": None if found.fixed is None else {
            "serves": found.fixed.serves,
            "less": list(found.fixed.less),
            "undone": list(found.fixed.undone),
            "notes": list(found.fixed.notes),
            "after": _side(found.fixed.side),
        },
        "releases": tabular.records(found.table()) if found.steps else None,
        "notes": list(found.notes),
        "left": list(around.left),
    }  # fmt: skip


def documents(found: Sequence[Upgrade]) -> dict[str, Any]:
    """All servers of a file as the one object on standard output."""
    from tgi_advisor.report import SCHEMA_VERSION

    return {"schema_version": SCHEMA_VERSION, "upgrade": [document(one) for one in found]}


def _side(side: Side) -> dict[str, Any]:
    seen: Prediction = side.prediction
    band = seen.uncertainty
    return {
        "release": side.name,
        "image": side.spec.tgi.image,
        "outcome": seen.outcome,
        "stage": seen.stage,
        "reason": seen.reason,
        "next_steps": list(seen.next_steps),
        "limits": {name: getattr(seen.limits, name) for name in LIMITS},
        "budget_low": band.budget_low if band else None,
        "budget_high": band.budget_high if band else None,
        "concurrency": seen.concurrency,
        "under_load": seen.under_load.verdict if seen.under_load else None,
        "num_shard": seen.num_shard,
        "attention": seen.attention,
        "block_size": seen.block_size,
        "prefill_chunking": seen.prefill_chunking,
        "prefix_caching": side.setting.prefix_caching,
        "dtype": seen.dtype,
        "kv_cache_dtype": seen.kv_cache_dtype,
        "kv_bytes_per_token": seen.kv_bytes_per_token,
        "warnings": list(seen.warnings),
    }
