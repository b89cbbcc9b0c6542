"""What a GPU costs by the hour: by provider, region and how it is bought. Dated data, from catalogue.toml and stack files.

Nothing is guessed in silence: where there is no price for exactly what is asked, the nearest one is taken and its note says so.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specs.accelerators import CATALOGUE, canonical

# Clouds change list prices a few times a year.
STALE_DAYS = 180
HOURS_PER_MONTH = 730.0

ON_DEMAND = "on-demand"


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars per GPU and hour."""

    gpu: str
    provider: str | None
    """None, here and of the region: any."""
    region: str | None
    capacity: str
    """on-demand, spot or reserved"""
    dollars: float
    gpus: int | None
    """Of the instance that it was taken from; None: any."""
    date: dt.date
    source: str


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A price that was found, and how it differs from what was asked."""

    price: Price
    notes: tuple[str, ...] = ()


def catalogue() -> tuple[Price, ...]:
    """The prices of catalogue.toml."""
    return tuple(_read(CATALOGUE["prices"]))


def _read(tables: Iterable[dict[str, Any]]) -> Iterator[Price]:
    for table in tables:
        for capacity in (ON_DEMAND, "spot", "reserved"):
            for each in table.get(capacity, ()):
                source = f"{table['source']}, {each['instance']}"
                yield Price(
                    gpu=each["gpu"],
                    provider=table["provider"],
                    region=table["region"],
                    capacity=capacity,
                    dollars=each["dollars"],
                    gpus=each["gpus"],
                    date=table["date"],
                    source=source,
                )


def quote(prices: Sequence[Price], *, gpu: str, provider: str | None, region: str, capacity: str, gpus: int) -> Quote | None:
    """The price of one GPU in a node of `gpus` GPUs. None where nobody sells this GPU type in `prices`.

    Nearest first: the provider's own, in this region, bought in this way, with this many GPUs in a node; earlier entries of
    `prices` before later ones. Another way to buy is not taken from another provider: spot markets differ too much.
    """
    found = [replace(each, gpu=gpu) for each in prices if canonical(each.gpu) == canonical(gpu) and each.capacity in (capacity, ON_DEMAND)]
    own = [each for each in found if each.provider in (provider, None)]
    elsewhere = [each for each in found if each.capacity == ON_DEMAND]
    candidates = own or elsewhere
    if not candidates:
        return None

    def distance(price: Price) -> tuple[bool, bool, bool, int]:
        # A larger instance than ours may cost more per GPU for its network: a smaller one is nearer.
        size = gpus if price.gpus is None else price.gpus
        return price.capacity != capacity, price.region not in (region, None), size > gpus, abs(size - gpus)

    best = min(candidates, key=distance)
    notes: list[str] = []
    if best.provider is not None and best.provider != provider:
        missing = "no provider is declared" if provider is None else f"no price of {provider}"
        notes.append(f"{missing}: {best.provider} {best.region} stands for it")
    elif best.region not in (region, None):
        notes.append(f"no price in {region}: {best.region} stands for it")
    if best.capacity != capacity:
        notes.append(f"no {capacity} price: {best.capacity} stands for it")
    return Quote(price=best, notes=tuple(notes))


def stale(prices: Iterable[Price], today: dt.date) -> dict[str, dt.date]:
    """Source → date of the prices that are older than STALE_DAYS."""
    old = [each for each in prices if (today - each.date).days > STALE_DAYS]
    return {each.source.split(",")[0]: each.date for each in sorted(old, key=lambda each: each.date, reverse=True)}
