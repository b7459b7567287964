"""What the router refuses once the shards are up."""

from __future__ import annotations

from tgi_advisor.refusals.launcher import prefill_below_input
from tgi_advisor.refusals.rules import Case, Found, Rule, argument, rule

ROUTER: list[Rule] = []
"""In the router's order."""


@rule(ROUTER, "router", "backends/v3/src/main.rs@v3.3.7:146", since=(2, 3, 0))
def max_batch_size_zero(case: Case) -> Found:
    """A batch holds at least one request."""
    if case.setting.max_batch_size == 0:
        return argument("`max_batch_size` must be > 0", "leave out max-batch-size")
    return None


@rule(ROUTER, "router", "router/src/main.rs@v2.0.4:347", until=(2, 0, 4))
def total_above_budget_1(case: Case) -> Found:
    """The KV cache does not hold one request of full length."""
    total, budget = case.limits.max_total_tokens, case.budget
    if total is None or budget is None or total <= budget:
        return None
    text = f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {budget}"
    return argument(text, *_room(budget))


@rule(ROUTER, "router", "router/src/server.rs@v2.1.0:1532", since=(2, 1, 0), until=(2, 2, 0))
def not_enough_memory_2_1(case: Case) -> Found:
    """The KV cache does not hold one request of full length."""
    return _not_enough_memory(case, "WebServer")


@rule(ROUTER, "router", "backends/v3/src/lib.rs@v3.3.7:99", since=(2, 3, 0))
def not_enough_memory(case: Case) -> Found:
    """The KV cache does not hold one request of full length."""
    return _not_enough_memory(case, "Backend")


def _not_enough_memory(case: Case, wrapper: str) -> Found:
    total, budget = case.limits.max_total_tokens, case.budget
    if total is None or budget is None or total <= budget:
        return None
    return f"Error: {wrapper}(NotEnoughMemory({total}))", _room(budget)


def _room(budget: int) -> tuple[str, ...]:
    return (f"set max_total_tokens to at most {budget}", "or make room: more shards, fp8 KV cache, a quantized model")


@rule(ROUTER, "router", "backends/v3/src/main.rs@v3.3.7:184", since=(2, 4, 1))
def input_not_below_total_resolved(case: Case) -> Found:
    """The limits the shards settled on leave no room for one new token."""
    longest, total = case.limits.max_input_tokens, case.limits.max_total_tokens
    if longest is None or total is None or longest < total:
        return None
    return argument(
        "`max_input_tokens` must be < `max_total_tokens`", f"set max_input_tokens and max_total_tokens (now {total})"
    )


@rule(ROUTER, "router", "backends/v3/src/main.rs@v3.3.7:189", since=(2, 4, 0))
def prefill_below_input_unchunked(case: Case) -> Found:
    """Without prefill chunking one prefill must hold the longest prompt."""
    return None if case.setting.chunking else prefill_below_input(case.limits, "max_input_tokens")


@rule(ROUTER, "router", "backends/v3/src/main.rs@v3.3.7:192", since=(2, 4, 0))
def prefill_above_budget(case: Case) -> Found:
    """The prefill budget is compared with the KV cache that was inferred, which a tight GPU makes smaller."""
    return _above_budget(case, "max_batch_prefill_tokens", case.limits.max_batch_prefill_tokens)


@rule(ROUTER, "router", "backends/v3/src/main.rs@v3.3.7:195", since=(2, 4, 0))
def total_above_budget(case: Case) -> Found:
    """One request of full length must fit the token budget."""
    return _above_budget(case, "max_total_tokens", case.limits.max_total_tokens)


def _above_budget(case: Case, name: str, value: int | None) -> Found:
    budget = case.budget if case.budget is not None else case.limits.max_batch_total_tokens
    if value is None or budget is None or value <= budget:
        return None
    text = f"`{name}` must be <= `max_batch_total_tokens`. Given: {value} and {budget}"
    return argument(text, f"set {name} to at most {budget}")


@rule(ROUTER, "router", "router/src/server.rs@v3.3.7:2307", since=(2, 1, 0))
def ngrok_dead(case: Case) -> Found:
    """ngrok has not worked since 2.1.0; the router panics once everything else is ready."""
    if case.setting.flags.get("ngrok") is True:
        return "panicked: ngrok feature is not functional with axum=0.7 and hyper=1", ("leave out ngrok",)
    return None
