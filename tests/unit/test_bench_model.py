"""`fleet bench`: what it refuses, whom it asks, how it ends, and that its table says what vLLM measured."""

import argparse
import http.server
import io
import json
import math
import os
import re
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import OutputValue

from core.errors import FleetError
from local import processes
from operations import cli as fleet_cli
from operations.bench import engine, ground, in_vllm
from operations.bench import model as cli
from operations.bench.ground import Endpoint, Options, Plan, check_answers, check_options, endpoints, lay, served_by, tokenizer_of
from operations.bench.result import FRONT_DOOR, REGIONAL_GATEWAY, SHORT, BenchLoad, BenchResult, Machine, Measured, Objectives, measured
from specs.fleet import FleetSpec
from tests.conftest import wait_until
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from toolchain import paths
from toolchain import tools as toolchain_tools

# What `vllm bench serve` wrote for tiny-chat in a local fleet, without what it has for each request.
REAL: dict[str, Any] = json.loads(Path(__file__).with_name("bench_result.json").read_text(encoding="utf-8"))

LOCAL = next(each for each in fleets.stack_files() if each.name == "Pulumi.local.yaml")
DOORS = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(("us-east", "us-west", "eu-west"), start=20000)}
REGIONAL = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(("us-east", "us-west", "eu-west"), start=21000)}
MODELS = {"tiny-chat": {"openaiBaseUrl": f"{DOORS['us-west']}/tiny-chat/v1"}}
OUTPUTS: dict[str, Any] = {"endpoints": {"frontDoors": DOORS, "regionalGateways": REGIONAL, "models": MODELS}}
LOAD = BenchLoad(requests=20, rate=4.0, concurrency=None, input_tokens=64, output_tokens=16, warmups=2, seed=100)
NONE = Objectives()

Change = Callable[[dict[str, Any]], None]


def options(**chosen: Any) -> Options:
    plain = cli.options_of(fleet_cli.parse(["bench", "tiny-chat"]))
    return Options(**{**{name: getattr(plain, name) for name in plain.__dataclass_fields__}, **chosen})


def fleet(change: Change = lambda spec: None) -> FleetSpec:
    spec = fleets.read(LOCAL)
    change(spec)
    return parse_fleet(spec)


def tiny(spec: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in spec["models"] if each["name"] == "tiny-chat")


def laid(change: Change = lambda spec: None, **chosen: Any) -> Plan:
    return lay(options(**chosen), fleet(change))


def existing(spec: dict[str, Any]) -> None:
    """us-west stands elsewhere."""
    fleets.make_existing(spec["clusters"][1])


def told(place: int = 0, **changes: Any) -> Measured:
    kind = REGIONAL_GATEWAY if place else FRONT_DOOR
    return measured({**REAL, **changes}, {}, 0, kind=kind, cluster="us-east", region="us-east", url="http://127.0.0.1:1/tiny-chat")


def result(*found: Measured, objectives: Objectives = NONE) -> BenchResult:
    return BenchResult(
        started=1_790_000_000.0,
        machine=Machine(cores=2, memory_gib=24.0, system="Linux 6.18", load=0.5),
        stack="local",
        model="tiny-chat",
        source="pvc://model-store/tiny-chat",
        tokenizer="/models/tiny-chat",
        vllm="0.32.0",
        load=LOAD,
        objectives=objectives,
        serving=served_by(laid()),
        endpoints=found,
    )


class Running:
    """A local cluster that runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def alive(self) -> bool:
        return True


class TestCommandLine:
    def test_without_options_the_load_is_finite_in_rate_and_number(self) -> None:
        plain = options()
        assert 0 < plain.rate < 100
        assert 0 < plain.requests <= 1000
        check_options(plain)

    def test_clusters_may_follow_one_another_or_be_named_again(self) -> None:
        for line in (["bench", "m", "--cluster", "a", "b", "a"], ["bench", "m", "--cluster", "a", "--cluster", "b"]):
            assert cli.options_of(fleet_cli.parse(line)).clusters == ("a", "b")

    @pytest.mark.parametrize(
        ("chosen", "line"),
        [
            ({"rate": 0.0}, "--rate: must be above 0, got: `0`"),
            ({"rate": math.nan}, "--rate: must be above 0, got: `nan`"),
            ({"rate": -math.inf}, "--rate: must be above 0, got: `-inf`"),
            ({"rate": math.inf}, "--rate: `inf` needs --concurrency: without it every request is sent at once"),
            ({"rate": 0.001, "requests": 100}, "--requests: 100 at 0.001 a second take 28 hours at each endpoint"),
            ({"requests": 0}, "--requests: must be 1 or more, got: `0`"),
            ({"concurrency": 0}, "--concurrency: must be 1 or more, got: `0`"),
            ({"input_tokens": 0}, "--input-tokens: must be 1 or more, got: `0`"),
            ({"output_tokens": -1}, "--output-tokens: must be 1 or more, got: `-1`"),
            ({"json_file": Path("/nowhere/at/all.json")}, "--json: no such folder: `/nowhere/at`"),
            ({"json_file": Path("/")}, "--json: must be a file, got the folder: `/`"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_its_name(self, chosen: dict[str, Any], line: str) -> None:
        with pytest.raises(FleetError) as refused:
            check_options(options(**chosen))
        assert str(refused.value) == line

    def test_everything_wrong_is_told_at_once(self) -> None:
        with pytest.raises(FleetError) as refused:
            check_options(options(rate=-1.0, requests=0, concurrency=0))
        assert len(str(refused.value).splitlines()) == 3

    def test_no_pause_is_possible_when_it_is_meant(self) -> None:
        chosen = options(rate=math.inf, concurrency=8)
        check_options(chosen)
        assert lay(chosen, fleet()).load.rate is None


class TestChoices:
    @pytest.fixture(autouse=True)
    def all_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ground, "HostCluster", Running)

    def asked(self, *clusters: str) -> list[tuple[str, str]]:
        return [(each.name, each.url) for each in endpoints(laid(clusters=clusters), OUTPUTS)]

    def test_the_front_door_of_the_outputs_and_every_region_that_serves_are_asked(self) -> None:
        assert self.asked() == [
            ("front door us-west", "http://127.0.0.1:20001/tiny-chat"),
            ("regional gateway us-east", "http://127.0.0.1:21000/tiny-chat"),
            ("regional gateway us-west", "http://127.0.0.1:21001/tiny-chat"),
        ]

    def test_a_named_cluster_that_does_not_serve_the_model_has_a_front_door_only(self) -> None:
        assert [name for name, _ in self.asked("eu-west", "us-east")] == ["front door eu-west", "front door us-east", "regional gateway us-east"]

    def test_a_gateway_elsewhere_is_asked_at_its_address_and_no_process_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Running, "alive", lambda _: False)
        outputs = {"endpoints": {**OUTPUTS["endpoints"], "regionalGateways": {**REGIONAL, "us-west": "http://10.0.0.1:80"}}}
        assert endpoints(laid(existing, clusters=("us-west",)), outputs)[-1].url == "http://10.0.0.1:80/tiny-chat"

    def test_outputs_of_an_older_version_want_an_update_first(self) -> None:
        outputs = {"endpoints": {key: value for key, value in OUTPUTS["endpoints"].items() if key != "regionalGateways"}}
        with pytest.raises(FleetError, match="us-west is declared and not deployed yet"):
            endpoints(laid(), outputs)

    def test_a_model_on_gpus_elsewhere_is_real_and_the_simulated_ones_are_left_out(self) -> None:
        assert lay(options(model="llama-3-70b", input_tokens=1), fleet(existing)).serving == ("us-west",)

    def test_a_region_that_is_down_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Running, "alive", lambda self: self.name != "us-east")
        with pytest.raises(FleetError, match="us-east is not running"):
            endpoints(laid(), OUTPUTS)

    def test_what_the_stack_file_has_and_the_fleet_has_not_yet_is_told(self) -> None:
        nothing: dict[str, Any] = {"endpoints": {"frontDoors": DOORS, "models": {}}}
        with pytest.raises(FleetError, match="tiny-chat is declared and not deployed yet"):
            endpoints(laid(), nothing)

    def test_two_benchmarks_ask_different_prompts(self) -> None:
        assert len({laid().load.seed for _ in range(5)}) > 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("chosen", "line", "hint"),
        [
            ({"model": "tiny-caht"}, "no model `tiny-caht` in stack `local`", "tiny-chat, llama-3-70b, qwen-eu"),
            ({"clusters": ("us-wset",)}, "--cluster: no cluster `us-wset` in stack `local`", "us-west"),
            ({"model": "llama-3-70b"}, "no server stands behind llama-3-70b: its GPUs are simulated", "choose another: tiny-chat"),
            ({"input_tokens": 1000, "output_tokens": 25}, "tiny-chat takes 1024 tokens in all, got: `1000 + 25`", "chat template"),
        ],
    )
    def test_it_says_what_is_wrong_and_what_would_be_right(self, chosen: dict[str, Any], line: str, hint: str) -> None:
        with pytest.raises(FleetError) as refused:
            laid(**chosen)
        assert line in str(refused.value)
        assert hint in refused.value.hint


class TestTokenizer:
    @pytest.fixture(autouse=True)
    def store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setattr(paths, "STATE", tmp_path)
        return tmp_path / "models"

    def of(self, source: str, **chosen: Any) -> str:
        plan = laid(lambda spec: tiny(spec).update(source=source), **chosen)
        return tokenizer_of(plan.options, plan.model)

    @pytest.mark.parametrize("source", ["pvc://model-store/tiny-chat", "oci://127.0.0.1:5000/models/tiny-chat:1"])
    def test_a_local_model_has_it_in_the_model_store(self, source: str, store: Path) -> None:
        (store / "tiny-chat").mkdir(parents=True)
        (store / "tiny-chat" / "tokenizer.json").write_text("{}")
        assert self.of(source) == str(store / "tiny-chat")

    def test_a_model_of_hugging_face_names_it(self) -> None:
        assert self.of("hf://Qwen/Qwen2.5-7B:main") == "Qwen/Qwen2.5-7B"

    def test_another_one_may_be_named(self, tmp_path: Path) -> None:
        assert self.of("s3://bucket/model", tokenizer="Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"
        assert self.of("s3://bucket/model", tokenizer=str(tmp_path)) == str(tmp_path)

    def test_none_at_hand_must_be_named(self) -> None:
        with pytest.raises(FleetError, match="the tokenizer of tiny-chat is not on this machine, its source is: `s3://bucket/model`"):
            self.of("s3://bucket/model")
        with pytest.raises(FleetError, match=r"--tokenizer: no such folder: `\./nowhere`"):
            self.of("s3://bucket/model", tokenizer="./nowhere")


class Answers(http.server.BaseHTTPRequestHandler):
    """503 where the path begins with /full, else a completion."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path.startswith("/full") else 200)
        self.end_headers()
        self.wfile.write(b'{"error": "no healthy upstream"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def test_every_endpoint_that_does_not_answer_is_named_before_the_load(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there: a request that goes to the proxy is lost.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    def at(cluster: str, url: str) -> Endpoint:
        return Endpoint(kind=REGIONAL_GATEWAY, cluster=cluster, region=cluster, url=url)

    check_answers("tiny-chat", [at("us-east", server)], "")
    with pytest.raises(FleetError) as refused:
        check_answers("tiny-chat", [at("us-east", server), at("us-west", f"{server}/full"), at("eu-west", "http://127.0.0.1:9")], "")
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("regional gateway us-west does not answer for tiny-chat: ")
    assert lines[0].endswith('HTTP 503 {"error": "no healthy upstream"}')
    assert lines[1].startswith("regional gateway eu-west does not answer for tiny-chat: ")


class TestArguments:
    def given(self, load: BenchLoad = LOAD, objectives: Objectives = NONE, place: int = 0) -> list[str]:
        return engine.arguments("http://127.0.0.1:1/tiny-chat", "tiny-chat", "/models/tiny-chat", load, objectives, place)

    def test_the_rate_is_always_given_since_vllm_would_send_everything_at_once(self) -> None:
        assert "--request-rate=4" in self.given()
        assert "--request-rate=inf" in self.given(LOAD.model_copy(update={"rate": None, "concurrency": 8}))

    def test_objectives_become_goodput_in_milliseconds(self) -> None:
        given = self.given(objectives=Objectives(time_to_first_token_seconds=1.5, inter_token_seconds=0.05))
        assert given[given.index("--goodput") :] == ["--goodput", "ttft:1500", "tpot:50"]
        assert "--goodput" not in self.given()

    def test_no_endpoint_is_asked_prompts_that_another_has_answered(self) -> None:
        seeds = {each for place in range(3) for each in self.given(place=place) if each.startswith("--seed=")}
        assert len(seeds) == 3


class TestEnvironment:
    def test_a_proxy_is_not_used_for_loopback_and_stays_for_the_rest(self) -> None:
        outside = {"HTTP_PROXY": "http://proxy:3128", "no_proxy": "corp.example, 127.0.0.1"}
        given = engine.environment("org/model", "", outside)
        assert given["HTTP_PROXY"] == "http://proxy:3128"
        assert given["no_proxy"] == given["NO_PROXY"] == "corp.example,127.0.0.1,localhost,::1"

    def test_a_key_of_another_service_is_not_sent_to_our_gateways_and_the_one_that_they_want_is(self) -> None:
        assert "OPENAI_API_KEY" not in engine.environment("org/model", "", {"OPENAI_API_KEY": "secret"})
        assert engine.environment("org/model", "ours", {"OPENAI_API_KEY": "secret"})["OPENAI_API_KEY"] == "ours"

    def test_with_the_tokenizer_at_hand_nothing_is_fetched(self, tmp_path: Path) -> None:
        assert engine.environment(str(tmp_path), "", {})["HF_HUB_OFFLINE"] == "1"
        assert "HF_HUB_OFFLINE" not in engine.environment("org/model", "", {})


def use(python: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """In place of vLLM's Python a script of ours; `tell(...)` in it writes what in_vllm.py would."""
    head = """
        import json, os, signal, subprocess, sys, time
        plans = json.load(sys.stdin)
        def tell(**what):
            os.write(int(sys.argv[-1]), (json.dumps(what) + "\\n").encode())
    """
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{textwrap.dedent(head)}{textwrap.dedent(python)}")
    script.chmod(0o755)
    monkeypatch.setattr(toolchain_tools, "path", lambda name: folder / name)
    monkeypatch.setattr(paths, "STATE", folder)


ANSWERS = """
    for place, plan in enumerate(plans):
        tell(begin=place)
        print("noise", file=sys.stderr)
        tell(result={"plan": plan}, errors={"Too Many Requests": 2}, short=1)
"""


def run(plans: list[list[str]], say: Callable[[str], None] = lambda text: None) -> list[engine.Told]:
    return list(engine.run(plans, [f"endpoint {place}" for place in range(len(plans))], "org/model", "", say))


class TestEngine:
    def test_endpoints_are_asked_in_turn_and_each_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(ANSWERS, monkeypatch, tmp_path)
        said: list[str] = []
        found = run([["--a"], ["--b"]], said.append)
        assert [each.result["plan"] for each in found] == [["--a"], ["--b"]]
        assert (found[1].errors, found[1].short) == ({"Too Many Requests": 2}, 1)
        assert said == ["endpoint 0", "endpoint 1"]

    @pytest.mark.parametrize(
        ("python", "line", "hint"),
        [
            ('tell(failed="Please install vllm[bench] for bench support", missing=True)', "lacks something: Please install vllm[bench]", "make setup"),
            ('tell(begin=0); tell(failed="OSError: no tokenizer", missing=False)', "endpoint 0: vLLM's benchmark broke off: OSError: no tokenizer", ""),
            ('tell(begin=0); print("Killed soon"); sys.stdout.flush(); os.kill(os.getpid(), 9)', "endpoint 0: vLLM's benchmark was ended by SIGKILL", ""),
            ('print("cannot go on"); sys.exit(3)', "vLLM's benchmark exited with 3: cannot go on", ""),
            ("tell(begin=0); tell(result={}, errors={}, short=0); sys.exit(0)", "endpoint 0: vLLM's benchmark exited with 0", ""),
        ],
    )
    def test_a_load_that_ends_early_says_why(self, python: str, line: str, hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(python, monkeypatch, tmp_path)
        with pytest.raises(FleetError) as refused:
            run([["--a"], ["--b"]])
        assert line in str(refused.value)
        assert hint in refused.value.hint

    def test_a_load_that_says_nothing_any_more_is_ended(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(f"tell(begin=0)\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)", monkeypatch, tmp_path)
        monkeypatch.setattr(engine, "_SILENT_S", 1.0)
        with pytest.raises(FleetError, match="endpoint 0: no answer for 1 s"):
            run([["--a"]])
        assert not processes.exists(int((tmp_path / "pid").read_text()))

    def test_ctrl_c_ends_the_load_and_what_it_started(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "pids"
        started = (
            f"child = subprocess.Popen(['sleep', '600'])\nopen({str(file)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntell(begin=0)\ntime.sleep(600)"
        )
        use(started, monkeypatch, tmp_path)

        def interrupt(text: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run([["--a"]], interrupt)
        own, child = map(int, file.read_text().split())
        assert not processes.exists(own)
        wait_until(lambda: _is_gone(child), "the child to be gone, which was killed with its parent", 10)


def _is_gone(child: int) -> bool:
    """It is nobody's any more: whoever takes it in may leave it a zombie."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class TestInVllm:
    """The part that runs in vLLM's environment, with a vLLM of ours."""

    def ran(self, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Any], dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        def add(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--random-output-len", type=int)

        modules = {
            "vllm.benchmarks.serve": {"add_cli_args": add, "main": serve},
            "vllm.utils.argparse_utils": {"FlexibleArgumentParser": argparse.ArgumentParser},
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
        for name in ("vllm", "vllm.benchmarks", "vllm.utils"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        reading, writing = os.pipe()
        monkeypatch.setattr(sys, "argv", ["in_vllm.py", str(writing)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([["--random-output-len=8"]])))
        code = in_vllm.main()
        with os.fdopen(reading) as lines:
            return code, [json.loads(line) for line in lines]

    def test_a_stream_that_an_error_ended_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {"failed": 1, "output_lens": [8, 0, 3, 8], "errors": ["", "Traceback\n  line\nTimeoutError: late\n", "", ""], "ttfts": [1.0], "completed": 3}
        code, lines = self.ran(monkeypatch, lambda arguments: found)
        assert code == 0
        assert lines == [{"begin": 0}, {"result": {"failed": 1, "completed": 3}, "errors": {"TimeoutError: late": 1}, "short": 1}]

    def test_a_package_that_vllm_was_installed_without_is_told_as_such(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lacking(arguments: Any) -> dict[str, Any]:
            raise ImportError("Please install vllm[bench] for bench support")

        code, lines = self.ran(monkeypatch, lacking)
        assert code == 1
        assert lines[-1] == {"failed": "Please install vllm[bench] for bench support", "missing": True}

    def test_any_other_error_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(arguments: Any) -> dict[str, Any]:
            raise ValueError("no tokenizer")

        assert self.ran(monkeypatch, broken)[1][-1] == {"failed": "ValueError: no tokenizer", "missing": False}


class TestResult:
    def test_what_vllm_measured_is_kept_in_seconds(self) -> None:
        found = told()
        assert (found.ok, found.failed) == (REAL["completed"], 0)
        assert found.first_token is not None
        assert found.first_token.p99 == pytest.approx(REAL["p99_ttft_ms"] / 1000)
        assert found.per_output_token is not None
        assert found.per_output_token.p50 == pytest.approx(REAL["p50_tpot_ms"] / 1000)
        assert found.between_tokens is not None
        assert found.between_tokens.p95 == pytest.approx(REAL["p95_itl_ms"] / 1000)
        assert found.output_tokens == found.ok * 16

    def test_good_requests_are_those_of_vllms_goodput(self) -> None:
        found = told(request_goodput=15 / REAL["duration"])
        assert found.good == 15
        assert found.goodput == pytest.approx(15 / REAL["duration"])
        assert told(request_goodput=None).good is None

    def test_an_answer_that_ended_early_is_no_success(self) -> None:
        found = measured(REAL, {"Too Many Requests": 1}, 2, kind=FRONT_DOOR, cluster="a", region="a", url="u")
        assert (found.ok, found.failed) == (REAL["completed"] - 2, 2)
        assert found.errors == {"Too Many Requests": 1, SHORT: 2}

    def test_nothing_answered_is_not_answered_at_once(self) -> None:
        zeros: dict[str, Any] = {name: 0.0 for name in REAL if name.endswith("_ms")}
        nothing = told(**zeros, completed=0, failed=20, total_output_tokens=0)
        assert (nothing.first_token, nothing.between_tokens, nothing.per_output_token, nothing.whole_answer) == (None,) * 4

    def test_an_answer_of_one_token_has_nothing_between(self) -> None:
        found = told(total_output_tokens=REAL["completed"])
        assert found.first_token is not None
        assert (found.between_tokens, found.per_output_token) == (None, None)

    def test_a_result_of_another_vllm_names_what_it_lacks(self) -> None:
        with pytest.raises(ValueError, match="vLLM's result has no `p99_itl_ms`"):
            measured({k: v for k, v in REAL.items() if k != "p99_itl_ms"}, {}, 0, kind=FRONT_DOOR, cluster="a", region="a", url="u")

    def test_the_file_is_read_as_it_was_written(self) -> None:
        whole = result(told(), told(1), objectives=Objectives(time_to_first_token_seconds=1.0))
        text = whole.to_json()
        assert BenchResult.from_json(text) == whole
        document = json.loads(text)
        assert document["version"] == 1
        assert document["endpoints"][0]["firstToken"]["p99"] == pytest.approx(REAL["p99_ttft_ms"] / 1000)
        assert document["serving"]["us-east"]["accelerator"] == "cpu"
        assert "--max-num-seqs=8" in document["serving"]["us-east"]["arguments"]

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            (lambda document: document.update(version=2), "version"),
            (lambda document: document.update(extra=1), "extra"),
            (lambda document: document["load"].pop("rate"), "load.rate"),
        ],
    )
    def test_another_file_is_refused_by_the_field(self, change: Callable[[dict[str, Any]], None], line: str) -> None:
        document = json.loads(result(told()).to_json())
        change(document)
        with pytest.raises(ValueError, match=f"not the result of a benchmark: {line}: "):
            BenchResult.from_json(json.dumps(document))
        with pytest.raises(ValueError, match="not the result of a benchmark: JSON: "):
            BenchResult.from_json("{")


def test_the_documented_file_is_the_one_that_is_written() -> None:
    documented = set(re.findall(r"`(\w+)`", (fleets.REPO / "docs" / "benchmarks.md").read_text(encoding="utf-8").split("### The file")[1]))

    def fields(value: Any) -> set[str]:
        if isinstance(value, list):
            return {name for each in value for name in fields(each)}
        return {name for key, each in value.items() for name in (key, *fields(each))} if isinstance(value, dict) else set()

    written = json.loads(result(told()).to_json())
    by_cluster = written.pop("serving")
    names = fields(written) | {"serving"} | fields(by_cluster["us-east"])
    assert names - documented == set()


class TestTable:
    def test_each_endpoint_has_a_row_with_what_was_measured(self) -> None:
        rows = cli.throughput_rows(result(told(), told(1, completed=18, failed=2)))
        assert rows[1][:5] == ("front door us-east", "us-east", str(REAL["completed"]), "0", f"{REAL['request_throughput']:.2f}")
        assert rows[2][:4] == ("regional gateway us-east", "us-east", "18", "2")
        latency = cli.latency_rows(result(told()))
        assert latency[1][:4] == ("front door us-east", *(f"{REAL[f'{each}_ttft_ms']:.1f}" for each in ("p50", "p95", "p99")))

    def test_without_objectives_it_says_that_there_is_no_goodput(self) -> None:
        found = result(told(request_goodput=None))
        assert "no goodput: the model declares neither objectives.timeToFirstTokenSeconds nor" in cli.render(found)
        assert cli.throughput_rows(found)[1][-2:] == ("-", "-")

    def test_with_objectives_it_says_what_is_good_and_how_many_were(self) -> None:
        found = result(told(request_goodput=15 / REAL["duration"]), objectives=Objectives(time_to_first_token_seconds=0.2))
        assert "good: first token within 200.0 ms\n" in cli.render(found)
        assert cli.throughput_rows(found)[1][-2] == f"15 of {REAL['completed']}"

    def test_what_failed_requests_were_told_stands_below(self) -> None:
        broken = told().model_copy(update={"errors": {"Too Many Requests": 3}})
        assert cli.render(result(broken)).endswith("front door us-east: 3 failed: Too Many Requests")


class TestEnd:
    """The command from its options to its exit, without a fleet."""

    @pytest.fixture(autouse=True)
    def a_fleet_is_up(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        store = tmp_path / "models" / "tiny-chat"
        store.mkdir(parents=True)
        (store / "tokenizer.json").write_text("{}")
        monkeypatch.setattr(paths, "STATE", tmp_path)
        monkeypatch.setattr(ground, "HostCluster", Running)
        monkeypatch.setattr(ground, "check_answers", lambda model, asked, token: None)
        self.backend = tmp_path / "pulumi" / ".pulumi" / "stacks"
        self.backend.mkdir(parents=True)
        monkeypatch.setattr(cli, "deployed", lambda stack: {name: OutputValue(value, False) for name, value in OUTPUTS.items()})

    def bench(self, monkeypatch: pytest.MonkeyPatch, *line: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fleet", "bench", "tiny-chat", *line])
        return fleet_cli.main()

    def answer(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changes: Any) -> None:
        told = f"for place in range(len(plans)):\n    tell(begin=place); tell(result=json.loads({json.dumps({**REAL, **changes})!r}), errors={{}}, short=0)"
        use(told, monkeypatch, tmp_path)

    def test_all_answered_ends_well_with_a_table_and_a_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.answer(monkeypatch, tmp_path)
        assert self.bench(monkeypatch, "--json", str(tmp_path / "bench.json")) == 0
        read = BenchResult.from_json((tmp_path / "bench.json").read_text())
        assert [each.kind for each in read.endpoints] == [FRONT_DOOR, REGIONAL_GATEWAY, REGIONAL_GATEWAY]
        assert "regional gateway us-west" in capsys.readouterr().out

    def test_failed_requests_end_it_with_1_and_the_file_is_there(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.answer(monkeypatch, tmp_path, completed=19, failed=1)
        assert self.bench(monkeypatch, "--json", str(tmp_path / "bench.json")) == 1
        assert "error: 3 of 60 requests failed" in capsys.readouterr().err
        assert BenchResult.from_json((tmp_path / "bench.json").read_text()).endpoints[0].failed == 1

    def test_a_load_that_breaks_off_leaves_no_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        use("sys.exit(1)", monkeypatch, tmp_path)
        assert self.bench(monkeypatch, "--json", str(tmp_path / "bench.json")) == 1
        assert "Traceback" not in capsys.readouterr().err
        assert not (tmp_path / "bench.json").exists()

    def test_without_a_fleet_it_says_how_to_get_one(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.backend.rmdir()
        assert self.bench(monkeypatch) == 1
        assert capsys.readouterr().err.startswith("error: no fleet is up in ")
