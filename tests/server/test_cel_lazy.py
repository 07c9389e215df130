"""A server that is given no rule never loads the CEL library: it takes 12 MiB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.kube.resources import CRDS

def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules} & {"cel_expr_python", "google"})

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki", listen=False))
    await server.start()
    client = server.client()
    spec = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for plural, rules in (("plains", []), ("ruleds", [{"rule": "self.a > 1"}])):
        schema = {"type": "object", "properties": {"spec": {**spec, "x-kubernetes-validations": rules}}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": plural, "kind": plural.title()}
        before = resident()
        await client.create(CRDS, {"metadata": {"name": f"{plural}.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}})
        print(json.dumps([plural, loaded(), (resident() - before) // 1024**2]))
    await server.stop()

asyncio.run(main())
"""


@pytest.mark.server
def test_the_library_is_loaded_with_the_first_rule(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    (plain, none, _), (ruled, both, grown) = map(json.loads, done.stdout.splitlines())
    assert (plain, none) == ("plains", [])
    assert (ruled, both) == ("ruleds", ["cel_expr_python", "google"])
    assert grown < 40, "loading CEL takes more memory than the reference says"
