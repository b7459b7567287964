"""TGI's own sequence of allocations on PyTorch's allocator, from the first weight to the end of the warm-up's prefill.

`loading` is what the shard has reserved when its weights are there, `layers` (TGI's own classes) and `fallback`
(transformers' classes on TGI's attention) what one pass of the model allocates and drops, `sampling` what follows
it; `warmup` puts them in TGI's order. Nothing here is fitted: every size is that of a tensor in TGI's source.
"""

from tgi_advisor.estimate.peak import Batch
from tgi_advisor.estimate.replay.loading import WORKSPACE, loaded
from tgi_advisor.estimate.replay.peaks import Peaks, peaks_of
from tgi_advisor.estimate.replay.shapes import known, why_not
from tgi_advisor.estimate.replay.warmup import Replayed, warm_up

__all__ = ["WORKSPACE", "Batch", "Peaks", "Replayed", "known", "loaded", "peaks_of", "warm_up", "why_not"]
