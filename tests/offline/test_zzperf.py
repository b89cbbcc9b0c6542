import time, os
from tests.offline.conftest import *
def test_perf(program, cluster):
    body = '''
    space = k8s.core.v1.Namespace("space", metadata={"name": "perf"}, opts=opts)
    for i in range(200):
        k8s.core.v1.ConfigMap(f"m{i}", metadata={"name": f"m{i}", "namespace": "perf" if os.environ.get("NS") else space.metadata.name, "labels": {f"l{j}": "v" for j in range(10)}}, data={f"k{j}": "x" * 50 for j in range(20)}, opts=opts)
    '''
    p = program("import os\n" + __import__("textwrap").dedent(body))
    for what in ("preview", "up", "preview", "refresh", "destroy"):
        t = time.time()
        args = [] if what == "preview" else ["--yes", "--skip-preview"]
        d = p.pulumi(what, "--stack", "test", *args).ok()
        print(what, round(time.time() - t, 1), [l for l in d.output.splitlines() if "unchanged" in l or "created" in l[-20:]][-1:])
