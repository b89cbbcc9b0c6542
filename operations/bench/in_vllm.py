"""`vllm bench serve` for several endpoints in one process. Run by the Python of vLLM's own environment, which has none of our
packages: standard library and vLLM only. What runs it is engine.py.

vLLM is imported for ten seconds of a processor; a process for each endpoint would spend most of its time on that.

Reads a JSON list of argument lists from stdin, each as `vllm bench serve` takes it. Writes JSON lines to the file descriptor
that is its only argument: `{"begin": place}` and `{"result": …, "errors": …, "short": …}` for each, or `{"failed": …}` and no more.
"""

import importlib
import json
import os
import sys
from collections import Counter
from typing import Any

# One value for each request: large, and nobody reads them.
_OF_REQUESTS = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts", "errors")


def errors_of(told: list[str]) -> dict[str, int]:
    """What failed requests were told, the most frequent first: of a traceback the last line."""
    return dict(Counter(each.strip().splitlines()[-1] for each in told if each and each.strip()).most_common())


def main() -> int:
    pipe = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")

    def tell(**what: Any) -> None:
        pipe.write(json.dumps(what) + "\n")
        pipe.flush()

    plans: list[list[str]] = json.load(sys.stdin)
    try:
        serve: Any = importlib.import_module("vllm.benchmarks.serve")
        parser: Any = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
        serve.add_cli_args(parser)
        for place, arguments in enumerate(plans):
            parsed = parser.parse_args(arguments)
            tell(begin=place)
            result: dict[str, Any] = dict(serve.main(parsed))
            plain = {name: value for name, value in result.items() if name not in _OF_REQUESTS}
            # vLLM takes a stream for answered from its first token on, also where an error ends it.
            short = sum(length < parsed.random_output_len for length in result["output_lens"]) - result["failed"]
            tell(result=plain, errors=errors_of(result["errors"]), short=max(0, short))
    except ImportError as error:
        # Also what vLLM's stand-ins for packages raise that it was installed without.
        tell(failed=f"{error}", missing=True)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads it in one line
        tell(failed=f"{type(error).__name__}: {error}", missing=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
