"""`fleet bench` against real engines, by the pinned vLLM's own benchmark: everything is answered, and the table says by whom.

How fast it was is not judged: on a machine that is busy with tests, times are no one's fault.
"""

import sys

from operations.bench.result import BenchResult
from tests.fleet.conftest import FOLDER, Fleet

REQUESTS, OUTPUT_TOKENS = 8, 8


def test_every_region_and_the_front_door_answer_and_a_proxy_of_the_shell_is_not_asked(fleet: Fleet) -> None:
    file = FOLDER / "bench.json"
    file.unlink(missing_ok=True)
    load = ("--rate", "4", "--requests", str(REQUESTS), "--input-tokens", "16", "--output-tokens", str(OUTPUT_TOKENS))
    # Nothing listens there: a request that goes to the proxy fails.
    proxy = ("env", "http_proxy=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9")
    ran = fleet.run(*proxy, sys.executable, "-m", "operations.cli", "bench", "tiny-chat", *load, "--json", str(file))
    result = BenchResult.from_json(file.read_text())
    endpoints = {(each.kind, each.cluster): each for each in result.endpoints}
    assert set(endpoints) == {("front door", "us-east"), ("regional gateway", "us-east"), ("regional gateway", "us-west")}
    for (kind, cluster), each in endpoints.items():
        assert (each.ok, each.failed) == (REQUESTS, 0), ran.text
        # Engines go on to the length that is asked for, and count tokens themselves.
        assert each.output_tokens == REQUESTS * OUTPUT_TOKENS
        assert each.input_tokens >= REQUESTS * 16
        assert each.first_token is not None
        assert 0 < each.first_token.p50 <= each.first_token.p99
        assert each.between_tokens is not None
        assert f"{kind} {cluster}" in ran.out
    # tiny-chat declares none, and the table says so.
    assert all(each.good is None for each in result.endpoints)
    assert "no goodput: " in ran.out
