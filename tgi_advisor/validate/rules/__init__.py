"""Every rule, by code: `RULES`; the text of one: `text`.

One file a group: `arguments` and `environment` (TGI1xx), `limits`, `model`, `adapters`, `shards`, `quantization`
and `attention` (TGI1xx, mostly TGI's own refusals), `memory` (TGI2xx), `host`, `storage` and `probes`
(TGI3xx), `security` (TGI4xx), `hygiene` and `files` (TGI5xx).
"""

from __future__ import annotations

import re
from importlib import import_module

from tgi_advisor.errors import UsageError, did_you_mean
from tgi_advisor.validate.rules.rule import RULES, Case, Hit, Rule, of_defect

__all__ = ["GROUPS", "RULES", "Case", "Hit", "Rule", "find", "of_defect", "text"]

GROUPS = (
    "arguments", "limits", "model", "adapters", "shards", "quantization", "attention", "environment", "memory", "host",
    "storage", "probes", "security", "hygiene", "files",
)  # fmt: skip
"""The files of rules. Importing one registers its rules."""

for _group in GROUPS:
    import_module(f"{__name__}.{_group}")
for _code in sorted(RULES):  # a group may import another before its turn
    RULES[_code] = RULES.pop(_code)


def find(code: str) -> Rule:
    """A rule by its code, in any case; UsageError when there is none."""
    found = RULES.get(code.upper())
    if found is None:
        whole = re.fullmatch(r"TGI\d{3}", code.upper())  # of numbers, none is nearer to what was meant than another
        near = None if whole else did_you_mean(code.upper(), RULES)
        raise UsageError(f"there is no rule {code[:40]!r}", near or "`tgi-advisor rule` without a code lists them all")
    return found


def text(code: str) -> str:
    """What `tgi-advisor rule CODE` prints: title, explanation, a failing and a fixed example."""
    from tgi_advisor.validate.rules.examples import page

    return page(find(code))
