"""What a GPU costs by the hour: by provider, region and how it is bought. Dated data, from catalogue.toml and stack files.

Nothing is guessed in silence: where there is no price for exactly what is asked, the nearest one is taken and its note says so.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from specs.accelerators import CATALOGUE, canonical
from specs.gpu_pools import CapacityType
from specs.planning import PriceSpec

# Clouds change list prices a few times a year.
STALE_DAYS = 180
HOURS_PER_MONTH = 730.0

ON_DEMAND = "on-demand"


@dataclass(frozen=True, kw_only=True)
class Price:
    """One entry of the stack file or of the catalogue, and where it was taken from."""

    spec: PriceSpec
    source: str
    gpus: int | None = None
    """GPUs of the instance that the price is of; None: any number."""


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
        place = {"provider": table["provider"], "region": table["region"], "date": table["date"]}
        for capacity in get_args(CapacityType):
            for each in table.get(capacity, ()):
                price = {"accelerator": each["gpu"], "capacity_type": capacity, "dollars_per_gpu_hour": each["dollars"], **place}
                spec = PriceSpec.model_validate(price, by_name=True)
                yield Price(spec=spec, source=f"{table['source']}, {each['instance']}", gpus=each["gpus"])


def quote(prices: Sequence[Price], *, gpu: str, provider: str | None, region: str, capacity: str, gpus: int) -> Quote | None:
    """The price of one GPU in a node of `gpus` GPUs. None where nobody sells this GPU type in `prices`.

    Nearest first: the provider's own, in this region, bought in this way, with this many GPUs in a node; earlier entries of
    `prices` before later ones. Another way to buy is not taken from another provider: spot markets differ too much.
    """
    sold = [each for each in prices if canonical(each.spec.accelerator) == canonical(gpu) and each.spec.capacity_type in (capacity, ON_DEMAND)]
    own = [each for each in sold if each.spec.provider in (provider, None)]
    elsewhere = [each for each in sold if each.spec.capacity_type == ON_DEMAND]
    candidates = own or elsewhere
    if not candidates:
        return None

    def distance(price: Price) -> tuple[bool, bool, bool, int]:
        # A larger instance than ours may cost more per GPU for its network: a smaller one is nearer.
        size = gpus if price.gpus is None else price.gpus
        return price.spec.capacity_type != capacity, price.spec.region not in (region, None), size > gpus, abs(size - gpus)

    best = min(candidates, key=distance)
    spec = best.spec
    notes: list[str] = []
    if spec.provider is not None and spec.provider != provider:
        missing = "no provider is declared" if provider is None else f"no price of {provider}"
        notes.append(f"{missing}: {spec.provider} {spec.region} stands for it")
    elif spec.region not in (region, None):
        notes.append(f"no price in {region}: {spec.region} stands for it")
    if spec.capacity_type != capacity:
        notes.append(f"no {capacity} price: {spec.capacity_type} stands for it")
    return Quote(price=best, notes=tuple(notes))


def stale(prices: Iterable[Price], today: dt.date) -> dict[str, dt.date]:
    """Source → date of the prices that are older than STALE_DAYS."""
    old = [each for each in prices if (today - each.spec.date).days > STALE_DAYS]
    return {each.source.split(",")[0]: each.spec.date for each in sorted(old, key=lambda each: each.spec.date, reverse=True)}
