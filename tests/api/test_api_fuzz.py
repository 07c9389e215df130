"""Requests made from the server's own OpenAPI, and then bent: nothing that a client sends is the server's fault (5xx).

`--fuzz N` says how many (500 by default). They go to a server of their own, which they fill, change and take apart; so
each meets what those before it left, and a failure is reported with its request instead of being shrunk.
"""

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

Doc = dict[str, Any]
MOST_DEPTH = 7
METHODS = ("get", "post", "put", "patch", "delete")
NAMES = ["a", "b", "c", "default", "virtualmachines.kubevirt.io", "cluster-admin"]
FORMS = ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
JUNK: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, -(2**70), 0.5, 1e300, "", "x", "1Gi", "-1", "Always", "a/b", "..", "\x00",
    "é\U0001f600", "x" * 5000, "2030-01-01T00:00:00Z", "{}", [], {}, [None], [[]], {"": None}, ["a", "a"],
    {"a": {"b": [1, {"c": None}]}}, [{"name": "a"}, {"name": "a"}], {"$patch": "delete"}, {"matchLabels": {"a": 1}},
    "(", "${x}", "%s", "=a",
]  # fmt: skip
VALUES = [
    "", "true", "1", "0", "5", "-1", "All", "Strict", "Foreground", "NotOlderThan", "Exact", "a=b", "a in (b)", "!a",
    "metadata.name=a", "spec.nodeName!=a", "x" * 300, "é\x00", "99999999999999999999", "[]",
]  # fmt: skip
ODD_PARAMETERS = ("watch", "resourceVersion", "continue", "includeObject", "fieldManager", "force", "dryRun", "junk")
ACCEPTS = ["application/json"] * 60 + [
    "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v9;g=x", "application/vnd.kubernetes.protobuf", "*/*;q=x", "",
]  # fmt: skip


class Operation:
    def __init__(self, method: str, path: str, about: Doc, schemas: Doc) -> None:
        self.method, self.path, self.schemas = method.upper(), path, schemas
        self.kind: Doc = about.get("x-kubernetes-group-version-kind") or {}
        self.parameters = [each["name"] for each in about.get("parameters", ()) if each.get("in") == "query"]
        wanted = {"group": "", "version": "", "kind": "", **self.kind}
        self.schema: Doc = next(
            (schema for schema in schemas.values() if wanted in schema.get("x-kubernetes-group-version-kind", ())), {}
        )


def operations_of(target: Any) -> list[Operation]:
    found = []
    for group in target.ask("GET", "/openapi/v3").doc["paths"].values():
        doc = target.ask("GET", group["serverRelativeURL"]).doc
        schemas = doc.get("components", {}).get("schemas", {})
        for path, item in doc.get("paths", {}).items():
            found += [Operation(method, path, item[method], schemas) for method in METHODS if method in item]
    assert len(found) > 200, "the OpenAPI names hardly anything"
    return found


class Maker:
    """Makes requests; `made` remembers what was created, so that later ones find something to read, change, delete."""

    def __init__(self, operations: list[Operation], made: dict[str, Doc], chance: random.Random) -> None:
        self._operations, self._made, self._chance = operations, made, chance

    def request(self) -> tuple[str, str, dict[str, str], bytes]:
        """(method, path with query, headers, body)."""
        chance = self._chance
        operation = self._operation()
        namespace = "default" if chance.random() < 0.95 else chance.choice(NAMES)
        collection = operation.path.partition("/{name}")[0].replace("{namespace}", namespace)
        known = [path for path in self._made if path.rpartition("/")[0] == collection]
        name = chance.choice(known).rpartition("/")[2] if known and chance.random() < 0.8 else chance.choice(NAMES)
        if chance.random() < 0.05:
            name = quote(str(self._junk()) or "x", safe="")
        path = operation.path.replace("{namespace}", namespace).replace("{name}", name)
        headers = {"Content-Type": "application/json", "Accept": chance.choice(ACCEPTS)}
        body = b""
        if operation.method in ("POST", "PUT", "PATCH"):
            headers["Content-Type"], body = self._body(operation, name, self._made.get(f"{collection}/{name}"))
        elif operation.method == "DELETE" and chance.random() < 0.3:
            body = json.dumps(self._bent({"propagationPolicy": "Orphan", "preconditions": {"uid": "x"}})).encode()
        return operation.method, path + self._query(operation), headers, body

    def _operation(self) -> Operation:
        """Mostly one that makes something, or finds something that was made."""
        while True:
            operation = self._chance.choice(self._operations)
            collection = operation.path.partition("/{name}")[0].replace("{namespace}", "default") + "/"
            lonely = "{name}" in operation.path and not any(path.startswith(collection) for path in self._made)
            if not lonely or self._chance.random() < 0.05:
                return operation

    def _query(self, operation: Operation) -> str:
        chance = self._chance
        names = chance.sample([*operation.parameters, *ODD_PARAMETERS], chance.choice((0, 0, 0, 0, 1, 2)))
        query = {name: chance.choice(VALUES) for name in names}
        if operation.method == "PATCH" and chance.random() < 0.8:
            query["fieldManager"] = chance.choice(NAMES)
        return "?" + urlencode(query) if query else ""

    def _body(self, operation: Operation, name: str, old: Doc | None) -> tuple[str, bytes]:
        chance = self._chance
        doc = copy.deepcopy(old) if old and chance.random() < 0.7 else self._object(operation, name)
        while chance.random() < 0.45:
            if inner := [key for key in doc if key not in ("apiVersion", "kind") and isinstance(doc[key], dict | list)]:
                key = chance.choice(inner)
                doc[key] = self._bent(doc[key])
            if chance.random() < 0.1:
                doc = self._bent(doc)
                break
        form = f"application/{chance.choice(FORMS)}" if operation.method == "PATCH" else "application/json"
        if "json-patch" in form:
            doc = [self._step(doc) for _ in range(chance.randrange(4))]
        text = json.dumps(doc).encode()
        if chance.random() < 0.02:
            text = text[: chance.randrange(len(text))] + chance.randbytes(3)
        return form, text

    def _junk(self) -> Any:
        return copy.deepcopy(self._chance.choice(JUNK))  # it may be bent further

    def _object(self, operation: Operation, name: str) -> Any:
        group, version = operation.kind.get("group", ""), operation.kind.get("version", "")
        doc = self._value(operation.schema, operation.schemas, 0)
        doc = doc if isinstance(doc, dict) else {}
        meta = doc["metadata"] if isinstance(doc.get("metadata"), dict) and self._chance.random() < 0.2 else {}
        head = {"apiVersion": f"{group}/{version}" if group else version, "kind": operation.kind.get("kind", "")}
        return {**doc, **head, "metadata": {**meta, "name": name}}

    def _value(self, schema: Doc, schemas: Doc, depth: int) -> Any:
        """One that the schema allows, mostly."""
        chance = self._chance
        if chance.random() < 0.01:
            return self._junk()
        while reference := (schema.get("$ref") or (schema.get("allOf") or ({},))[0].get("$ref")):
            schema = schemas.get(reference.rpartition("/")[2], {})
        if known := schema.get("enum"):
            return chance.choice(known)
        match schema.get("type"):
            case "object":
                return self._fields(schema, schemas, depth)
            case "array":
                return [self._value(schema.get("items", {}), schemas, depth + 1) for _ in range(chance.randrange(3))]
            case "integer":
                return chance.choice((0, 1, 2, 30, 8080))
            case "number":
                return chance.random()
            case "boolean":
                return chance.random() < 0.5
            case "string":
                usual = "2030-01-01T00:00:00Z" if schema.get("format") == "date-time" else chance.choice(NAMES)
                return "YQ==" if schema.get("format") == "byte" else usual
        return chance.choice(("1", 1, "100m", "1Gi"))

    def _fields(self, schema: Doc, schemas: Doc, depth: int) -> Doc:
        chance, properties = self._chance, schema.get("properties", {})
        if not properties:
            return {"a": self._value(schema.get("additionalProperties") or {}, schemas, depth + 1)} if depth < 5 else {}
        wanted = {*schema.get("required", ()), *({"spec", "rules", "roleRef", "subjects"} if not depth else ())}
        share = 0.25 if depth < MOST_DEPTH else 0
        names = [name for name in properties if name in wanted or chance.random() < share / (1 + len(properties) / 20)]
        return {name: self._value(properties[name], schemas, depth + 1) for name in names}

    def _bent(self, doc: Any) -> Any:
        """With one place replaced, removed or added."""
        chance = self._chance
        if not isinstance(doc, dict | list) or not doc or chance.random() < 0.1:
            return {**doc, str(chance.choice(NAMES)): self._junk()} if isinstance(doc, dict) else self._junk()
        key = chance.choice(list(doc)) if isinstance(doc, dict) else chance.randrange(len(doc))
        if chance.random() < 0.1:
            del doc[key]
        else:
            doc[key] = self._bent(doc[key]) if chance.random() < 0.8 else self._junk()
        return doc

    def _step(self, doc: Any) -> Doc:
        """Of a JSON patch."""
        chance = self._chance
        path = ""
        while isinstance(doc, dict | list) and doc and chance.random() < 0.8:
            key = chance.choice(list(doc)) if isinstance(doc, dict) else chance.randrange(len(doc))
            path, doc = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}", doc[key]
        step = {"op": chance.choice(("add", "remove", "replace", "copy", "move", "test")), "path": path,
                "value": self._junk(), "from": chance.choice((path, "/metadata", "/nothing", ""))}  # fmt: skip
        return self._bent(step) if chance.random() < 0.1 else step


@pytest.fixture(scope="module")
def spare(spare_target: Callable[[], Any]) -> Iterator[Any]:
    with spare_target() as target:
        yield target


@pytest.mark.timeout(3600)
def test_nothing_sent_is_the_servers_fault(request: pytest.FixtureRequest, spare: Any) -> None:
    count: int = request.config.getoption("fuzz")
    operations, bad = operations_of(spare), []
    made: dict[str, Doc] = {}
    codes: Counter[int] = Counter()

    @seed(1 if count <= 500 else random.randrange(2**32))  # the short run is the same each time
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.randoms(use_true_random=True))
    def throw(chance: random.Random) -> None:
        method, path, headers, body = Maker(operations, made, chance).request()
        code, fault, doc = _ask(spare, method, path, headers, body)
        codes[code] += 1
        if method == "POST" and code == 201 and doc and "?" not in path:
            made[f"{path}/{doc['metadata'].get('name')}"] = doc
        if fault:
            bad.append(f"{fault}\n    {method} {path}\n    {headers} {body[:3000]!r}")

    throw()
    print(f"answers by code: {dict(sorted(codes.items()))}, {len(made)} objects made")
    assert not bad, f"{len(bad)} of {count} requests:\n" + "\n".join(bad[:8])
    assert codes[200] + codes[201] > count / 10, f"hardly anything was accepted: {codes}"
    assert spare.ask("GET", "/readyz").doc == "ok"


def _ask(target: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, Doc]:
    """The code, what is wrong with the answer or "", and what was made."""
    answer = target.raw(method, path, body=body or None, headers=headers, preload_content=False)
    try:
        code: int = answer.status
        if code != 201 and code < 400:  # not read: it may be a watch
            return code, "", {}
        text = answer.read()
    finally:
        answer.close()
    if code >= 500 and code != 504:  # 504: a resourceVersion of the future
        return code, f"{code}: {text[:500]!r}", {}
    try:
        told = json.loads(text)
    except ValueError:
        return code, f"{code} without JSON: {text[:300]!r}", {}
    if code < 400:
        return code, "", told if told.get("metadata", {}).get("uid") else {}
    if (told.get("kind"), told.get("code")) != ("Status", code) or "Traceback" in told.get("message", ""):
        return code, f"not a Status: {text[:300]!r}", {}
    return code, "", {}
