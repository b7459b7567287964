"""Search the largest token limits that fit.

`lengths` knows which limits go together, `predicate` says whether they hold, `launch` searches those of one launch,
`shards` picks the best launch of a spec, `advice` adds what else could be asked for, `alternatives` what would work
where nothing fits.
"""

from __future__ import annotations

from tgi_advisor.search.advice import advise
from tgi_advisor.search.launch import Found, at_least, fitting, outcome, search, smallest_prefill, way_out
from tgi_advisor.search.lengths import new_tokens, totals
from tgi_advisor.search.predicate import GRAPHS_FIRST, TOO_RISKY, capacity, margin
from tgi_advisor.search.shards import Advice, best, refused, shard_counts
from tgi_advisor.search.turning import first_that_holds, last_that_holds

__all__ = [
    "GRAPHS_FIRST", "TOO_RISKY", "Advice", "Found", "advise", "at_least", "best", "capacity", "first_that_holds",
    "fitting", "last_that_holds", "margin", "new_tokens", "outcome", "refused", "search", "shard_counts",
    "smallest_prefill", "totals", "way_out",
]  # fmt: skip
