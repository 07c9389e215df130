"""A structural schema as types that the compiler checks rules against.

Objects become protobuf messages (only for checking: values stay plain data), so that a misspelt field or a comparison
of a number with a text is found when the CRD is written. Property names are escaped (`names`). What has no static type
(int-or-string) is dynamic; what CEL can't see, such as fields that are only preserved, is not there.
"""

from collections.abc import Callable
from typing import Any

from hotvirt.server.cel.engine import library
from hotvirt.server.cel.names import escape

Document = dict[str, Any]
PACKAGE = "rule"
_FORMATS = {"byte": "bytes", "duration": "duration", "date": "timestamp", "datetime": "timestamp",
            "date-time": "timestamp"}  # fmt: skip
_SCALARS = {"boolean": "bool", "integer": "int", "number": "double"}
_TYPES = {"bool": "BOOL", "int": "INT", "double": "DOUBLE", "string": "STRING", "bytes": "BYTES",
          "timestamp": "TIMESTAMP", "duration": "DURATION", "dyn": "DYN"}  # fmt: skip
_FIELDS = {"bool": "BOOL", "int": "INT64", "double": "DOUBLE", "string": "STRING", "bytes": "BYTES"}
_WRAPPED = {"bool": "BoolValue", "int": "Int64Value", "double": "DoubleValue", "string": "StringValue",
            "bytes": "BytesValue", "timestamp": "Timestamp", "duration": "Duration", "dyn": "Value",
            "list": "ListValue", "map": "Struct"}  # fmt: skip
_TEXT = {"type": "string"}
_META = {"type": "object", "properties": {"name": _TEXT, "generateName": _TEXT}}


def kind_of(schema: Document) -> str:
    """bool, int, double, string, bytes, timestamp, duration, dyn, list, map or object; "" for what CEL can't see."""
    if schema.get("x-kubernetes-int-or-string"):
        return "dyn"
    kind = schema.get("type")
    if kind == "string":
        return _FORMATS.get(str(schema.get("format")), "string")
    if kind == "array":
        return "list" if isinstance(schema.get("items"), dict) and kind_of(schema["items"]) else ""
    if kind == "object":
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            return "map" if kind_of(more) else ""
        return "dyn" if more is True else "object"
    return _SCALARS.get(str(kind), "")


def properties_of(schema: Document, *, is_resource: bool) -> Document:
    """With what every resource has. Of metadata, rules see the names alone."""
    own: Document = schema.get("properties") or {}
    return {"apiVersion": _TEXT, "kind": _TEXT, **own, "metadata": _META} if is_resource else own


class SchemaTypes:
    """The types of one schema's nodes, in a pool of their own. Ask for all with `of`, then take `pool`. `written` gives
    the name by which expressions know a property, if they can."""

    def __init__(self, written: Callable[[str], str | None] = escape) -> None:
        library()
        self._written = written
        from google.protobuf import (
            any_pb2,
            descriptor_pb2,
            descriptor_pool,
            duration_pb2,
            struct_pb2,
            timestamp_pb2,
            wrappers_pb2,
        )

        self._pb, self._made = descriptor_pb2, 0
        self._pool = descriptor_pool.DescriptorPool()
        known = [each.DESCRIPTOR for each in (any_pb2, duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)]
        for each in known:
            self._pool.AddSerializedFile(each.serialized_pb)
        self._file = descriptor_pb2.FileDescriptorProto(
            name="rule.proto", package=PACKAGE, syntax="proto2", dependency=[each.name for each in known]
        )
        self._is_open = True
        self._messages: dict[tuple[int, bool], str] = {}  # by a node's id: the schema outlives this

    @property
    def pool(self) -> Any:
        if self._is_open:
            self._pool.AddSerializedFile(self._file.SerializeToString())
            self._is_open = False
        return self._pool

    def of(self, schema: Document, *, is_resource: bool = False) -> Any:
        cel = library()
        kind = kind_of(schema)
        if kind == "object":
            return cel.Type(f"{PACKAGE}.{self._message(schema, is_resource=is_resource)}")
        if kind == "list":
            return cel.Type.List(self.of(schema["items"], is_resource=_is_embedded(schema["items"])))
        if kind == "map":
            more = schema["additionalProperties"]
            return cel.Type.Map(cel.Type.STRING, self.of(more, is_resource=_is_embedded(more)))
        return getattr(cel.Type, _TYPES[kind or "dyn"])

    def _message(self, schema: Document, *, is_resource: bool) -> str:
        known = (id(schema), is_resource)
        if known in self._messages:
            return self._messages[known]
        message = self._file.message_type.add(name=f"Object{self._made}")
        self._made += 1
        self._messages[known] = name = str(message.name)
        number = 0
        for property_, below in properties_of(schema, is_resource=is_resource).items():
            written = self._written(property_)
            if written is not None and kind_of(below):
                number += 1
                self._field(message, written, number, below)
        return name

    def _field(self, message: Any, name: str, number: int, schema: Document) -> None:
        kind = kind_of(schema)
        field = message.field.add(name=name, number=number, label=1, json_name=f"f{number}")
        if kind == "list":
            field.label = 3
            self._typed(field, schema["items"], is_inside=True)
        elif kind == "map" and (entry_name := _entry(name)) not in {each.name for each in message.nested_type}:
            entry = message.nested_type.add(name=entry_name)
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=1, type=self._pb.FieldDescriptorProto.TYPE_STRING)
            self._typed(
                entry.field.add(name="value", number=2, label=1), schema["additionalProperties"], is_inside=True
            )
            field.label, field.type = 3, self._pb.FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
        else:
            self._typed(field, schema, is_inside=False)

    def _typed(self, field: Any, schema: Document, *, is_inside: bool) -> None:
        """`is_inside` a list or map, protobuf has no list or map of its own: their content is dynamic then."""
        kind, types = kind_of(schema), self._pb.FieldDescriptorProto
        if kind in _FIELDS and not (schema.get("nullable") and not is_inside):
            field.type = getattr(types, f"TYPE_{_FIELDS[kind]}")
            return
        field.type = types.TYPE_MESSAGE
        if kind == "object":
            field.type_name = f".{PACKAGE}.{self._message(schema, is_resource=_is_embedded(schema))}"
        else:
            field.type_name = f".google.protobuf.{_WRAPPED[kind]}"


def _entry(field: str) -> str:
    """What protobuf wants a map field's entry to be called."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _is_embedded(schema: Document) -> bool:
    return bool(schema.get("x-kubernetes-embedded-resource"))
