"""Where a predicate of one value turns."""

from collections.abc import Callable


def last_that_holds(low: int, high: int, holds: Callable[[int], bool], near: int | None = None) -> int:
    """The last value in [low, high] that holds, for a predicate that holds at `low` and is monotone.

    With `near` it looks there first, and then ever further away.
    """
    if near is None:
        if holds(high):
            return high
    elif holds(near):
        low, step = near, 1
        while low < high and holds(min(low + step, high)):
            low, step = min(low + step, high), 2 * step
        high = min(low + step, high)
        if low == high:
            return high
    else:
        high, step = near, 1
        while near - step > low and not holds(near - step):
            high, step = near - step, 2 * step
        low = max(low, near - step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def first_that_holds(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first value in [low, high] that holds, for a predicate that holds at `high` and is monotone."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
