"""No secret stands in plain text in an object, and none reaches a process by an environment variable.

Why: whoever may read a ConfigMap or a pod reads it, on the hub and on every member; environment variables also show in crash
reports and in the processes that a server starts.

Fix: keep it in a secret store, let an operator such as External Secrets write the Secret in each member, and mount it as a file.
Change a secret that was pushed in plain text: it is known.
"""

import re
from collections.abc import Iterator

from policies.declared import Stack, at, items, mapping, mappings, text, texts
from policies.pods import name_of, pods
from policies.rule import Finding

_NAMES = re.compile(r"((^|_)(API_?KEY|ACCESS_KEY(_ID)?|PRIVATE_KEY|SECRET(_KEY)?|TOKEN|CREDENTIALS?)|PASSWORD|PASSWD)$")
# vLLM takes `_` for `-` in the name of an argument.
_ARGUMENTS = re.compile(r"(?:^|\s)(--(?:api[-_]key|hf[-_]token))(?=[=\s]|$)")
_LOOKS_LIKE = {
    "a private key": re.compile(r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a token of GitHub": re.compile(r"\b(ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{30,}\b"),
    "a key of NVIDIA's registry": re.compile(r"\bnvapi-[A-Za-z0-9_-]{40,}"),
    "a key of Google": re.compile(r"\bAIza[0-9A-Za-z_-]{35}"),
    "an address with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@$]*:[^\s/:@$]+@"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b"),
    "a signed token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\b"),
}


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.every:
            where = f"container `{name_of(container)}`"
            for each in mappings(container.get("env")):
                if each.get("value") and _NAMES.search(_upper(text(each.get("name")))):
                    yield Finding(says=f"{where}: environment variable `{each['name']}` holds a secret in plain text", on=pod.owner)
                if at(each, "valueFrom", "secretKeyRef") is not None:
                    yield Finding(says=f"{where}: environment variable `{each.get('name')}` is filled from a Secret", on=pod.owner)
            if any("secretRef" in each for each in mappings(container.get("envFrom"))):
                yield Finding(says=f"{where}: `envFrom` fills environment variables from a Secret", on=pod.owner)
            words = [text(each) for field in ("command", "args") for each in items(container.get(field))]
            if found := [match[1] for each in words if (match := _ARGUMENTS.search(each))]:
                yield Finding(says=f"{where}: argument `{found[0]}` is a secret in plain text", on=pod.owner)
    for each in stack.placed("ConfigMap"):
        for key in (key for key, value in mapping(each.body.get("data")).items() if value and _NAMES.search(_upper(key))):
            yield Finding(says=f"`data.{key}` holds a secret in plain text", on=each)
    # The value is not shown: a preview's output is kept, and read by more people than the secret is meant for.
    for each in stack.placed(*{other.kind for other in stack.objects} - {"Secret", "SealedSecret"}):
        for path, value in texts(each.body):
            for what, pattern in _LOOKS_LIKE.items():
                if pattern.search(value):
                    yield Finding(says=f"`{path}` holds what looks like {what}", on=each)


def _upper(name: str) -> str:
    return re.sub(r"[-.]", "_", name).upper()
