"""Kubernetes' CEL function libraries by table: what each function takes and gives, and the Python that does it.

The compiler sees the types (Quantity, IP, ...); at run time these are maps (`kinds`), so functions of one name and
shape share one Python function. `any` stands for every type. Nothing is imported from the library before `declare`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

from msgspec import Struct

from hotvirt.server.cel import authority, formats, kinds, lists, regex, texts, times

ABSTRACT = {
    "Quantity": "kubernetes.Quantity", "Semver": "kubernetes.Semver", "URL": "kubernetes.URL",
    "Format": "kubernetes.NamedFormat", "IP": "net.IP", "CIDR": "net.CIDR",
    **{name: f"kubernetes.authorization.{name}"
       for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")},
}  # fmt: skip
_PLAIN = {
    "bool": "BOOL", "int": "INT", "uint": "UINT", "double": "DOUBLE", "string": "STRING", "bytes": "BYTES",
    "null": "NULL", "timestamp": "TIMESTAMP", "duration": "DURATION", "list": "LIST", "map": "MAP",
}  # fmt: skip
_NUMBERS = ("int", "uint", "double", "duration")
_ORDERED = (*_NUMBERS, "bool", "string", "bytes", "timestamp")


# What only this notation can say: which of the library's extensions are there, and that a function gives an optional
# (`syntax.optional_results` makes it one). The string extension is not among them: `list.indexOf` can't stand beside
# it. What transformMap turns into is declared by the library, but not done.
GIVES_OPTIONAL = frozenset(("format.named", "validate"))
EXTENSIONS = """
extensions:
- name: bindings
- name: encoders
- name: lists
- name: math
- name: optional
- name: sets
- name: two-var-comprehensions
"""
# Functions of which overloads are missing for the compiler: numbers of different types can be compared, and addresses
# become texts. A function's overloads come from one place, so all of them are declared here. The library can do these.
_RETOLD = ("_<_", "_<=_", "_>_", "_>=_")
_COMPARED = tuple((kind, kind) for kind in _ORDERED) + tuple(
    (left, right) for left in ("int", "uint", "double") for right in ("int", "uint", "double") if left != right
)  # fmt: skip
_TEXTED = ("int", "uint", "double", "bool", "bytes", "timestamp", "duration", "string", "IP", "CIDR")
WITHOUT = "stdlib: {exclude_functions: [" + ", ".join(f'{{name: "{name}"}}' for name in (*_RETOLD, "string")) + "]}"
WITHOUT_STRING = "stdlib: {exclude_functions: [{name: string}]}"
CONFIGURATION = """
functions:
- name: format.named
  overloads:
  - id: format_named
    args: [{type_name: string}]
    return: {type_name: optional_type, params: [{type_name: kubernetes.NamedFormat}]}
- name: validate
  overloads:
  - id: format_validate
    target: {type_name: kubernetes.NamedFormat}
    args: [{type_name: string}]
    return: {type_name: optional_type, params: [{type_name: list, params: [{type_name: string}]}]}
"""


class Signature(Struct, frozen=True):
    name: str
    takes: tuple[str, ...]
    gives: str
    is_member: bool


def _each(kinds_: Sequence[str], shape: str) -> tuple[str, ...]:
    return tuple(shape.replace("T", kind) for kind in kinds_)


_TABLE: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (lists.is_sorted, _each(_ORDERED, "list<T>.isSorted() bool")),
    (lists.total, _each(_NUMBERS, "list<T>.sum() T")),
    (lists.least, _each(_ORDERED, "list<T>.min() T")),
    (lists.greatest, _each(_ORDERED, "list<T>.max() T")),
    (lists.inserted, ("cel.@mapInsert(map,any,any) map", "cel.@mapInsert(map,map) map")),
    (texts.index_of, ("list.indexOf(any) int", "string.indexOf(string) int", "string.indexOf(string,int) int")),
    (texts.last_index_of,
     ("list.lastIndexOf(any) int", "string.lastIndexOf(string) int", "string.lastIndexOf(string,int) int")),
    (regex.find, ("string.find(string) string",)),
    (regex.find_all, ("string.findAll(string) list<string>", "string.findAll(string,int) list<string>")),
    (texts.char_at, ("string.charAt(int) string",)),
    (texts.join, ("list.join() string", "list.join(string) string")),
    (texts.lower_ascii, ("string.lowerAscii() string",)),
    (texts.upper_ascii, ("string.upperAscii() string",)),
    (texts.replace, ("string.replace(string,string) string", "string.replace(string,string,int) string")),
    (texts.split, ("string.split(string) list<string>", "string.split(string,int) list<string>")),
    (texts.substring, ("string.substring(int) string", "string.substring(int,int) string")),
    (texts.trim, ("string.trim() string",)),
    (texts.quote, ("strings.quote(string) string",)),
    (texts.formatted, ("string.format(list) string",)),
    *((partial(formats.format_, name), (f"format.{name}() Format",)) for name in formats.CHECKS),
    (formats.named, ("format.named(string) Format",)),
    (formats.validate, ("Format.validate(string) faults",)),
    (kinds.quantity, ("quantity(string) Quantity",)),
    (kinds.holds(kinds.quantity), ("isQuantity(string) bool",)),
    (kinds.quantity_is_integer, ("Quantity.isInteger() bool",)),
    (kinds.quantity_as_integer, ("Quantity.asInteger() int",)),
    (kinds.quantity_as_float, ("Quantity.asApproximateFloat() double",)),
    (kinds.quantity_sign, ("Quantity.sign() int",)),
    (kinds.quantity_add, ("Quantity.add(Quantity) Quantity", "Quantity.add(int) Quantity")),
    (kinds.quantity_sub, ("Quantity.sub(Quantity) Quantity", "Quantity.sub(int) Quantity")),
    (kinds.is_less, ("Quantity.isLessThan(Quantity) bool", "Semver.isLessThan(Semver) bool")),
    (kinds.is_greater, ("Quantity.isGreaterThan(Quantity) bool", "Semver.isGreaterThan(Semver) bool")),
    (kinds.compare, ("Quantity.compareTo(Quantity) int", "Semver.compareTo(Semver) int")),
    (kinds.semver, ("semver(string) Semver", "semver(string,bool) Semver")),
    (kinds.holds(kinds.semver), ("isSemver(string) bool", "isSemver(string,bool) bool")),
    (kinds.semver_part(0), ("Semver.major() int",)),
    (kinds.semver_part(1), ("Semver.minor() int",)),
    (kinds.semver_part(2), ("Semver.patch() int",)),
    (kinds.url, ("url(string) URL",)),
    (kinds.holds(kinds.url), ("isURL(string) bool",)),
    (kinds.url_part("scheme"), ("URL.getScheme() string",)),
    (kinds.url_part("host"), ("URL.getHost() string",)),
    (kinds.url_part("hostname"), ("URL.getHostname() string",)),
    (kinds.url_part("port"), ("URL.getPort() string",)),
    (kinds.url_part("path"), ("URL.getEscapedPath() string",)),
    (kinds.url_part("query"), ("URL.getQuery() map",)),
    (kinds.ip, ("ip(string) IP",)),
    (kinds.holds(kinds.ip), ("isIP(string) bool",)),
    (kinds.ip_is_canonical, ("ip.isCanonical(string) bool",)),
    (kinds.ip_family, ("IP.family() int",)),
    (kinds.ip_is("unspecified"), ("IP.isUnspecified() bool",)),
    (kinds.ip_is("loopback"), ("IP.isLoopback() bool",)),
    (kinds.ip_is("link_local_multicast"), ("IP.isLinkLocalMulticast() bool",)),
    (kinds.ip_is("link_local"), ("IP.isLinkLocalUnicast() bool",)),
    (kinds.ip_is("global_unicast"), ("IP.isGlobalUnicast() bool",)),
    (kinds.cidr, ("cidr(string) CIDR",)),
    (kinds.holds(kinds.cidr), ("isCIDR(string) bool",)),
    (kinds.cidr_contains_ip, ("CIDR.containsIP(IP) bool", "CIDR.containsIP(string) bool")),
    (kinds.cidr_contains_cidr, ("CIDR.containsCIDR(CIDR) bool", "CIDR.containsCIDR(string) bool")),
    (kinds.cidr_ip, ("CIDR.ip() IP",)),
    (kinds.cidr_masked, ("CIDR.masked() CIDR",)),
    (kinds.cidr_width, ("CIDR.prefixLength() int",)),
    (authority.account, ("Authorizer.serviceAccount(string,string) Authorizer",)),
    (authority.saying("path"), ("Authorizer.path(string) PathCheck",)),
    (authority.saying("group"), ("Authorizer.group(string) GroupCheck",)),
    *((authority.saying(word), (f"{of}.{word}(string) ResourceCheck",)) for of, word in (
        ("GroupCheck", "resource"), ("ResourceCheck", "subresource"), ("ResourceCheck", "namespace"),
        ("ResourceCheck", "name"), ("ResourceCheck", "fieldSelector"), ("ResourceCheck", "labelSelector"))),
    (authority.check, ("PathCheck.check(string) Decision", "ResourceCheck.check(string) Decision")),
    (authority.allowed, ("Decision.allowed() bool",)),
    (authority.reason, ("Decision.reason() string",)),
    (authority.errored, ("Decision.errored() bool",)),
    (authority.error, ("Decision.error() string",)),
)  # fmt: skip


def _signature(text: str) -> Signature:
    head, _, rest = text.partition("(")
    arguments, _, gives = rest.partition(") ")
    takes = tuple(each for each in arguments.split(",") if each)
    receiver, dot, name = head.rpartition(".")
    base = receiver.partition("<")[0]
    if dot and (base in _PLAIN or base in ABSTRACT):
        return Signature(name, (receiver, *takes), gives, is_member=True)
    return Signature(head, takes, gives, is_member=False)


def declare(cel: Any, *, for_checking: bool) -> list[Any]:
    """The declarations for the library module `cel`: with the types as rules see them, or as they are at run time."""
    overloads: dict[str, list[Any]] = {}
    seen: set[tuple[Any, ...]] = set()
    for name in _RETOLD if for_checking else ():
        every = [Signature(name, takes, "bool", is_member=False) for takes in _COMPARED]
        overloads[name] = [_overload(cel, each, each.takes, None, for_checking=True) for each in every]
    for kind in _TEXTED if for_checking else ("IP",):
        told = Signature("string", (kind if for_checking else "map",), "string", is_member=False)
        work = None if for_checking else kinds.address_text
        overloads.setdefault("string", []).append(_overload(cel, told, told.takes, work, for_checking=for_checking))
    for work, texts_ in _TABLE:
        for signature in map(_signature, texts_):
            if for_checking and (signature.name in GIVES_OPTIONAL or "@" in signature.name):
                continue
            for takes in [signature.takes] if for_checking else _runtime(signature.takes):
                identity = (signature.name, signature.is_member, takes)
                if identity not in seen:
                    seen.add(identity)
                    overloads.setdefault(signature.name, []).append(
                        _overload(cel, signature, takes, work, for_checking=for_checking)
                    )
    return [cel.FunctionDecl(name, known) for name, known in overloads.items()]


def _overload(
    cel: Any, signature: Signature, takes: tuple[str, ...], work: Callable[..., Any] | None, *, for_checking: bool
) -> Any:
    return cel.Overload(
        f"{signature.name}_{'_'.join(takes)}_{signature.is_member}",
        return_type=_type(cel, signature.gives) if for_checking else cel.Type.DYN,
        parameters=[_type(cel, each) for each in takes],
        is_member=signature.is_member,
        **({} if for_checking or work is None else {"impl": _timed(work)}),
    )


def _timed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Points in time and durations come as Python's, and must go back as protobuf's."""
    if work not in (lists.total, lists.least, lists.greatest):
        return work
    return lambda *arguments: times.to_cel(work(*arguments))


def _runtime(takes: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return product(*(tuple(_PLAIN) if each == "any" else (_collapsed(each),) for each in takes))


def _collapsed(kind: str) -> str:
    return "map" if kind in ABSTRACT else kind.partition("<")[0]


def _type(cel: Any, kind: str) -> Any:
    if kind in ABSTRACT:
        return cel.Type.AbstractType(ABSTRACT[kind])
    base, _, inner = kind.removesuffix(">").partition("<")
    if inner:
        return cel.Type.List(_type(cel, inner))
    return cel.Type.DYN if base == "any" else getattr(cel.Type, _PLAIN[base])
