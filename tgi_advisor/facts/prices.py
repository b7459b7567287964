"""What an hour of a cloud instance costs: `prices.yaml`, or a file of the user's own in the same form."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Set
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import tables

KEYS = {"cloud", "region", "currency", "date", "shelf_life", "source", "per_hour"}
CURRENCY = re.compile("[A-Z]{3}")


class Offer(NamedTuple):
    """The price of one instance type."""

    instance: str
    """Instance type."""
    gpu: str
    """Name of its GPU in the table."""
    gpus: int
    """How many it carries."""
    per_hour: float
    """On-demand list price of one hour, in `currency`."""
    currency: str
    """ISO 4217."""
    cloud: str
    """Who rents it out."""
    region: str
    """Where the price holds."""
    date: str
    """The day it was read, as YYYY-MM-DD."""
    shelf_life: int
    """Days after which it is old."""
    source: str
    """Where it was read."""

    def age(self, today: datetime.date) -> int:
        """Days since it was read."""
        return (today - datetime.date.fromisoformat(self.date)).days

    def is_old(self, today: datetime.date) -> bool:
        """Whether it is older than prices of its kind hold."""
        return self.age(today) > self.shelf_life

    def instances(self, count: int, servers: int) -> int:
        """How many of it carry so many servers of `count` GPUs each; one with GPUs left over carries several."""
        return math.ceil(servers / (self.gpus // count))

    def total(self, count: int, servers: int) -> float:
        """Price of one hour of these instances, to a millionth: list prices have no more digits."""
        return round(self.per_hour * self.instances(count, servers), 6)


@cache
def known() -> tuple[Offer, ...]:
    """The prices that are shipped."""
    return read(tables.load("prices"), "prices.yaml")


def read(rows: Any, where: str) -> tuple[Offer, ...]:
    """The offers of a price table; ValueError says what is wrong with it, at `where`."""
    if not isinstance(rows, list) or not all(isinstance(group, Mapping) for group in rows):
        raise ValueError(f"{where}: it is no list of groups")
    offers = []
    for group in rows:
        tables.strict(group, KEYS, KEYS, f"{where}, {group.get('cloud')}")
        datetime.date.fromisoformat(group["date"])
        if not isinstance(group["shelf_life"], int):
            raise ValueError(f"{where}: shelf_life is no number of days: {group['shelf_life']!r}")
        for kind, price in group["per_hour"].items():
            carried = gpus.instance(kind)
            if carried is None:
                raise ValueError(f"{where}: which GPU instance type {kind!r} carries is not known")
            if isinstance(price, bool) or not isinstance(price, int | float) or price <= 0:
                raise ValueError(f"{where}: the price of {kind} is no positive number: {price!r}")
            card, count = carried
            offers.append(
                Offer(
                    kind, card.name, count, float(price), group["currency"], group["cloud"], group["region"],
                    group["date"], group["shelf_life"], group["source"],
                )
            )  # fmt: skip
    return tuple(offers)


def of_named(offers: Iterable[Offer], named: Mapping[str, Set[str]]) -> tuple[Offer, ...]:
    """The offers without those of other instances than were named (GPU -> instance types).

    For more GPUs than these carry, larger ones of the same clouds stay; where no price of them is known, all do.
    """
    kept = []
    by_gpu: dict[str, list[Offer]] = {}
    for offer in offers:
        by_gpu.setdefault(offer.gpu, []).append(offer)
    for gpu, known in by_gpu.items():
        meant = [offer for offer in known if offer.instance in named.get(gpu, ())]
        most = {offer.cloud: max(one.gpus for one in meant if one.cloud == offer.cloud) for offer in meant}
        larger = [offer for offer in known if offer.gpus > most.get(offer.cloud, offer.gpus)]
        kept += [*meant, *larger] if meant else known
    return tuple(kept)


def cheapest(offers: Iterable[Offer], gpu: str, count: int, servers: int = 1) -> Offer | None:
    """The instance on which so many servers of `count` GPUs each cost least; None where no price is known."""
    enough = (offer for offer in offers if offer.gpu == gpu and offer.gpus >= count)

    def order(offer: Offer) -> tuple[float, int, str]:
        return offer.total(count, servers), offer.gpus, offer.instance

    return min(enough, key=order, default=None)
