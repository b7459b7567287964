"""A price list of the user's own: `prices.yaml`'s form, read with every problem at its place.

Beside what the shipped list has, an instance that is not known may say which GPU it carries:
`my-box: {gpu: nvidia-l4, gpus: 4, price: 1.2}`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial

from tgi_advisor.bounds import MAX_SPEC
from tgi_advisor.errors import FactsError, Problem, SpecError, UsageError, did_you_mean
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.prices import CURRENCY, KEYS, Offer
from tgi_advisor.reading import read_named
from tgi_advisor.spec.fields import Reading
from tgi_advisor.spec.tree import List, Map, Node, Scalar, compose, place_in, shown
from tgi_advisor.spec.values import Slot, count, text

FORM = (
    "It is a list of {cloud: AWS, region: us-east-1, currency: USD, date: 2026-06-17, shelf_life: 180, "
    "source: https://…, per_hour: {g5.xlarge: 1.006}}; docs/choose.md has more."
)
BY_HAND = "state what it carries: {gpu: nvidia-l4, gpus: 1, price: 1.2}"
DEAREST = 1e9
"""What no hour of an instance costs, in any currency."""


def offers(path: str, today: datetime.date, own: str | None = None) -> tuple[Offer, ...]:
    """The offers of a price file; FactsError lists what is wrong with it, UsageError where it cannot be read.

    `own` is the name of a GPU that stands in no table, but in the spec.
    """
    text_of = _text(path)
    reading = Reading()
    try:
        root = compose(text_of, path)
    except SpecError as error:
        raise _none(path, error.problems) from None
    if not isinstance(root, List) or not root.items:
        raise FactsError(f"{path} is no price list: it is no list of groups", FORM)
    found = [offer for node in root.items for offer in _group(reading, node, today, own)]
    if reading.problems:
        raise _none(path, reading.problems)
    currencies = sorted({offer.currency for offer in found})
    if len(currencies) > 1:
        raise FactsError(
            f"{path} is no price list: its prices are in {' and '.join(currencies)}, which cannot be compared",
            "Write them in one currency, or one file for each.",
        )
    return tuple(found)


def _text(path: str) -> str:
    """The text of the file."""
    try:
        data = read_named(path, MAX_SPEC)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_SPEC:
        raise FactsError(f"{path} is no price list: it is longer than {MAX_SPEC >> 10} KiB", FORM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = place_in(before, len(before), path)
        raise _none(path, [Problem(f"not UTF-8 text (byte 0x{data[error.start]:02X})", None, place)]) from None


def _none(path: str, problems: Sequence[Problem]) -> FactsError:
    many = "" if len(problems) == 1 else f": {len(problems)} problems"
    return FactsError(f"{path} is no price list{many}", FORM, problems)


def _group(reading: Reading, node: Node, today: datetime.date, own: str | None) -> list[Offer]:
    """The offers of one group."""
    given = reading.entries(Slot(node, "a group", {}), "a mapping")
    if given is None:
        return []
    for name, (key, _) in given.items():
        if name not in KEYS:
            reading.add(key.place, f"unknown key {shown(name)}", did_you_mean(name, KEYS) or f"known: {_known()}")
    missing = sorted(KEYS - given.keys())
    if missing:
        reading.add(node.place, f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    values = {
        name: reading.attempt(read, Slot(given[name][1], name, {"maximum": 36_500}))
        for name, read in (
            ("cloud", text), ("region", text), ("currency", _currency), ("source", text), ("shelf_life", count),
            ("date", partial(_date, today=today)),
        )
        if name in given
    }  # fmt: skip
    if "per_hour" not in given:
        return []
    prices = reading.entries(Slot(given["per_hour"][1], "per_hour", {}), "a mapping of instance types to prices")
    offered = [_offer(reading, key, value, own) for key, value in (prices or {}).values()]
    if missing or any(value is None for value in values.values()):
        return []
    return [
        Offer(
            kind, card, carried, price, values["currency"], values["cloud"], values["region"], values["date"],
            values["shelf_life"], values["source"],
        )
        for kind, card, carried, price in filter(None, offered)
    ]  # fmt: skip


def _known() -> str:
    return ", ".join(sorted(KEYS))


def _currency(slot: Slot) -> str:
    """A currency's code."""
    said = text(slot)
    if not CURRENCY.fullmatch(said):
        raise slot.wrong("three capital letters of ISO 4217", "write USD, EUR or another one")
    return said


def _date(slot: Slot, today: datetime.date) -> str:
    """A day up to today."""
    said = text(slot)
    try:
        day = datetime.date.fromisoformat(said)
    except ValueError:
        raise slot.wrong("a day", f"write it as {today.isoformat()}") from None
    if day > today:
        raise slot.refused(f"date {said} is yet to come", "write the day on which the prices were read")
    return day.isoformat()


def _price(slot: Slot) -> float:
    """A positive number."""
    value = slot.node.number if isinstance(slot.node, Scalar) else None
    if value is None or not 0 < value <= DEAREST:
        raise slot.wrong("a number above 0", "write what an hour costs, such as 1.006")
    return float(value)


def _offer(reading: Reading, key: Scalar, value: Node, own: str | None) -> tuple[str, str, int, float] | None:
    """Instance type, GPU, how many of it, price; None (and noted) where one of them is not known."""
    kind = key.text
    carried = gpus.instance(kind)
    if not isinstance(value, Map):
        price = reading.attempt(_price, Slot(value, f"the price of {kind}", {}))
        if carried is None:
            near = did_you_mean(kind, (one for _, _, one, _ in gpus.machines()))
            reading.add(
                key.place, f"which GPU {shown(kind)} carries is not known", f"{near}\nor {BY_HAND}" if near else BY_HAND
            )
        return None if price is None or carried is None else (kind, carried[0].name, carried[1], price)
    given = reading.entries(Slot(value, kind, {}), "a mapping") or {}
    wrong = [key for name, (key, _) in given.items() if name not in ("gpu", "gpus", "price")]
    for one in wrong:
        reading.add(one.place, f"unknown key {shown(one.text)}", "known: gpu, gpus, price")
    absent = [name for name in ("gpu", "gpus", "price") if name not in given]
    if absent:
        reading.add(value.place, f"{kind} does not say its {', '.join(absent)}", BY_HAND)
    if wrong or absent:
        return None
    card = reading.attempt(partial(_card, own=own), Slot(given["gpu"][1], f"gpu of {kind}", {}))
    many = reading.attempt(count, Slot(given["gpus"][1], f"gpus of {kind}", {"maximum": 1024}))
    price = reading.attempt(_price, Slot(given["price"][1], f"the price of {kind}", {}))
    return None if card is None or many is None or price is None else (kind, card, many, price)


def _card(slot: Slot, own: str | None) -> str:
    """A GPU's name in the table, or the one the spec states by hand."""
    said = text(slot)
    if said == own:
        return said
    try:
        return gpus.find(said).name
    except FactsError as error:
        raise slot.refused(error.message, error.hint and error.hint.partition("\n")[0]) from None
