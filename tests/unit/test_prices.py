"""Prices: the nearest one is taken, what it stands for is said, and old ones are told."""

import datetime as dt
from dataclasses import replace

import pytest

from planning import prices
from planning.prices import Price
from specs.accelerators import ACCELERATORS
from specs.planning import PriceSpec

KNOWN = prices.catalogue()


def quote(gpu: str, provider: str | None, region: str, capacity: str = "on-demand", gpus: int = 8, known: tuple[Price, ...] = KNOWN) -> prices.Quote:
    found = prices.quote(known, gpu=gpu, provider=provider, region=region, capacity=capacity, gpus=gpus)
    assert found is not None
    return found


def test_the_providers_own_price_in_its_region() -> None:
    found = quote("H100", "aws", "us-east-1")
    assert (found.price.spec.dollars_per_gpu_hour, found.price.spec.date, found.notes) == (6.88, dt.date(2026, 7, 20), ())
    assert quote("H100", "gcp", "us-central1", "spot").price.spec.dollars_per_gpu_hour == 6.33


def test_two_names_of_one_gpu_have_one_price() -> None:
    assert quote("A100", "aws", "us-east-1").price.spec.dollars_per_gpu_hour == quote("A100-80", "aws", "us-east-1").price.spec.dollars_per_gpu_hour


def test_a_node_of_four_is_not_priced_as_four_machines_of_one() -> None:
    assert quote("L40S", "aws", "us-east-1", gpus=4).price.spec.dollars_per_gpu_hour == 2.62
    assert quote("L40S", "aws", "us-east-1", gpus=1).price.spec.dollars_per_gpu_hour == 1.861
    # Nobody lists eight: that of four is nearer than that of one.
    assert quote("L40S", "aws", "us-east-1", gpus=8).price.spec.dollars_per_gpu_hour == 2.62


@pytest.mark.parametrize(
    ("provider", "region", "capacity", "note"),
    [
        ("aws", "eu-central-1", "on-demand", "no price in eu-central-1: us-east-1 stands for it"),
        ("aws", "us-east-1", "spot", "no spot price: on-demand stands for it"),
        (None, "here", "on-demand", "no provider is declared: aws us-east-1 stands for it"),
        ("coreweave", "us", "on-demand", "no price of coreweave: aws us-east-1 stands for it"),
    ],
)
def test_what_a_price_stands_for_is_said(provider: str | None, region: str, capacity: str, note: str) -> None:
    assert quote("H100", provider, region, capacity).notes == (note,)


def test_a_spot_price_of_another_provider_is_never_taken() -> None:
    # GCP has one; spot markets have little in common.
    assert quote("H100", "azure", "eastus", "spot").price.spec.capacity_type == "on-demand"


def test_a_gpu_that_nobody_sells_has_no_price() -> None:
    assert prices.quote((), gpu="H100", provider="aws", region="us-east-1", capacity="on-demand", gpus=8) is None


def test_a_price_of_ones_own_comes_before_the_catalogue() -> None:
    spec = PriceSpec.model_validate({"accelerator": "H100", "dollarsPerGpuHour": 2.5, "date": dt.date(2026, 11, 1)})
    own = Price(spec=spec, source="stack file")
    known = (own, *KNOWN)
    assert quote("H100", "aws", "us-east-1", known=known).price.spec.dollars_per_gpu_hour == 2.5
    assert quote("H100", None, "here", known=known).notes == ()
    only_azure = (replace(own, spec=spec.model_copy(update={"provider": "azure", "region": "eastus"})), *KNOWN)
    assert quote("H100", "azure", "eastus", known=only_azure).price.spec.dollars_per_gpu_hour == 2.5
    assert quote("H100", "aws", "us-east-1", known=only_azure).price.spec.dollars_per_gpu_hour == 6.88


def test_old_prices_are_told_with_their_date() -> None:
    assert prices.stale(KNOWN, dt.date(2026, 8, 3)) == {}
    old = prices.stale(KNOWN, dt.date(2027, 1, 10))
    assert old["karpenter-provider-azure"] == dt.date(2026, 6, 18)
    assert "karpenter-provider-gcp" not in old


def test_every_gpu_of_the_catalogue_has_a_price_with_a_source_and_a_date() -> None:
    for name in ACCELERATORS:
        found = quote(name, "aws", "us-east-1")
        assert found.price.source
        assert found.price.spec.dollars_per_gpu_hour > 0


def test_the_catalogue_is_sane() -> None:
    for name, gpu in ACCELERATORS.items():
        assert 10 < gpu.memory_gib < 300, name
        # The more a GPU computes for each byte it reads, the larger its batches: all of them lie in this range.
        assert 50 < gpu.teraflops * 1000 / gpu.bandwidth < 500, name
