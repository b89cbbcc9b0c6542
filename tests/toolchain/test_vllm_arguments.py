"""The table of vLLM's arguments is what the parser of the installed vLLM says."""

import json
import subprocess

import pytest

from components.serving import models, serving_runtimes
from runtime_image import vllm_arguments
from tests.unit import test_serving_arguments
from toolchain import packages
from toolchain.pins import PINS

# One start of vLLM, for its seconds: what the parser takes on one line, what it makes of arguments on the next.
SCRIPT = f"""
import json, sys
sys.path.insert(0, {str(vllm_arguments.FILE.parent)!r})
import vllm_parser
vllm_parser.main()
print()
read = vllm_parser.serve_parser().parse_args(json.load(sys.stdin))
keys = ("max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "enable_prefix_caching", "tool_call_parser", "block_size", "async_scheduling")
print(json.dumps({{key: getattr(read, key) for key in keys}} | {{"adapters": [each.name for each in read.lora_modules],
    "transfer": read.kv_transfer_config.kv_role, "events": read.kv_events_config.endpoint, "outputs": read.structured_outputs_config.backend}}))
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Both lines, for every field of the serving arguments at once and the arguments of the runtime before them."""
    fleet, model = test_serving_arguments.everything()
    (container,) = serving_runtimes.serving_runtime("vllm", fleet.runtimes.vllm, fleet.failover.requests)["spec"]["containers"]
    arguments = [*container["args"], *models.arguments(model, model.accelerator)]
    python = packages.vllm_folder() / "bin" / "python"
    ran = subprocess.run([python, "-c", SCRIPT], input=json.dumps(arguments), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.splitlines()[-2:]


def test_the_table_is_current(said: list[str]) -> None:
    told = json.loads(said[0])
    assert told.pop("vllm") == PINS.vllm
    written = json.loads(vllm_arguments.FILE.read_text(encoding="utf-8"))
    assert written[PINS.vllm] == told, "run: make generate"
    assert vllm_arguments.text(written) == vllm_arguments.FILE.read_text(encoding="utf-8")


def test_vllm_itself_reads_our_arguments_as_they_are_meant(said: list[str]) -> None:
    assert json.loads(said[1]) == {
        "max_model_len": 4096,
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "enable_prefix_caching": False,
        "tool_call_parser": "hermes",
        "block_size": 32,
        "async_scheduling": False,
        "adapters": ["german", "legal"],
        "transfer": "kv_producer",
        "events": "tcp://*:5557",
        "outputs": "xgrammar",
    }
