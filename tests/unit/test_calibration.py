"""What a benchmark measured gives back the shares that it ran with."""

from dataclasses import replace

import pytest

from planning import sizing
from planning.calibration import Measurement, calibrate
from planning.sizing import Efficiency
from specs.accelerators import ACCELERATORS
from tests.unit import shapes

LOAD = shapes.load(1, 2000, 200)
TRUE = Efficiency(memory=0.72, compute=0.55)
ENGINE, GPU = shapes.engine(2), ACCELERATORS["H100"]


def measured(sequences: int = 16, replicas: int = 3) -> Measurement:
    """As the model itself would answer."""
    found = sizing.speed(shapes.QWEN3_32B, GPU, ENGINE, LOAD, sequences, TRUE)
    return Measurement(
        replicas=replicas,
        input_tokens=LOAD.input_tokens,
        output_tokens=LOAD.output_tokens,
        output_tokens_per_second=replicas * found.requests_per_second * LOAD.output_tokens,
        first_token=found.first_token,
        per_output_token=found.between_tokens,
    )


@pytest.mark.parametrize("sequences", [1, 16, 40])
def test_the_shares_come_back(sequences: int) -> None:
    found, notes = calibrate(shapes.QWEN3_32B, GPU, ENGINE, measured(sequences), Efficiency(), "bench")
    assert not notes
    assert found.memory == pytest.approx(TRUE.memory, abs=0.01)
    assert found.compute == pytest.approx(TRUE.compute, abs=0.01)
    assert found.source == "bench"


def test_a_prompt_that_is_too_short_tells_nothing_of_the_computation() -> None:
    seen = replace(measured(), input_tokens=4, first_token=measured().per_output_token + 0.001)
    found, notes = calibrate(shapes.QWEN3_32B, GPU, ENGINE, seen, Efficiency(), "bench")
    assert found.compute == Efficiency().compute
    assert notes[0].startswith("the first token after 4 tokens does not tell")


def test_what_no_gpu_can_do_is_not_believed() -> None:
    found, notes = calibrate(shapes.QWEN3_32B, GPU, ENGINE, replace(measured(), per_output_token=0.001), Efficiency(), "bench")
    assert found.memory == Efficiency().memory
    assert any("a token in 1.0 ms is not what this GPU can do" in each for each in notes)
