"""Single expressions: Kubernetes' libraries, what the compiler refuses, and what is too costly to be tried."""

import re
import time
from typing import Any

import pytest

from hotvirt.server.cel import regex
from hotvirt.server.cel.engine import Budget, Checker, CompileError, EvaluationError, Values, library
from hotvirt.server.cel.names import escape

ANY = ("BOOL", "INT", "STRING", "DOUBLE", "LIST<STRING>", "LIST<INT>", "LIST<DYN>", "kubernetes.Quantity")


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker({"self": library().Type.DYN})


def value(checker: Checker, text: str, self: Any = None) -> Any:
    return checker.compile(text, gives=ANY).evaluate(Values({"self": self}), Budget())


TRUE = """
[1, 2, 3].sum() == 6
[1.5, 2.0].sum() == 3.5
[duration('1s'), duration('2s')].sum() == duration('3s')
['b', 'a'].min() == 'a'
[timestamp('2020-01-01T00:00:00Z'), timestamp('2021-01-01T00:00:00Z')].max().getFullYear() == 2021
[1, 2, 2].isSorted() && !['b', 'a'].isSorted()
[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && ['a'].indexOf('b') == -1
[[1], [2, 3]].flatten() == [1, 2, 3]
[3, 1, 2].sort() == [1, 2, 3]
[1, 1, 2].distinct() == [1, 2]
[1, 2, 3].slice(1, 3) == [2, 3] && lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1]
['a', 'bcd', 'ef'].sortBy(t, -size(t)) == ['bcd', 'ef', 'a'] && [1, [2, [3]]].flatten(2) == [1, 2, 3]
{'a': 1, 'b': 2}.all(k, v, k != 'c' && v > 0) && [5, 6].exists(i, v, i == 1 && v == 6)
[1, 2, 3].transformList(i, v, i > 0, v * 2) == [4, 6] && {'a': 1}.existsOne(k, v, v == 1)
{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}
sets.contains([1, 2, 3], [2]) && !sets.contains([1], [2])
sets.equivalent(['a', 'a'], ['a']) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [2])
'abc 123 def 456'.find('[0-9]+') == '123' && 'abc'.find('[0-9]') == ''
'abc 123 def 456'.findAll('[0-9]+') == ['123', '456'] && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']
'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'ab'.split('') == ['a', 'b']
['a', 'b'].join('-') == 'a-b' && 'a-b'.replace('-', '+') == 'a+b' && ' a '.trim() == 'a'
'abc'.charAt(1) == 'b' && 'abc'.substring(1) == 'bc' && 'abc'.substring(0, 2) == 'ab'
'abcb'.indexOf('b') == 1 && 'abcb'.lastIndexOf('b') == 3 && 'ÄB'.lowerAscii() == 'Äb' && 'a'.upperAscii() == 'A'
'%s is %d of %.1f, %x'.format(['x', 3, 1.25, 255]) == 'x is 3 of 1.2, ff'
'%s %s %%'.format([[1, true], {'a': null}]) == '[1, true] {a: null} %'
strings.quote('a"b') == '"a\\\\"b"'
quantity('1').isGreaterThan(quantity('900m')) && quantity('1Gi').compareTo(quantity('1024Mi')) == 0
quantity('1.5Gi').add(quantity('512Mi')) == quantity('2Gi') && quantity('10').sub(3) == quantity('7')
quantity('50k').asInteger() == 50000 && !quantity('1500m').isInteger() && quantity('-1').sign() == -1
isQuantity('1.3Gi') && !isQuantity('a lot') && quantity('1500m').asApproximateFloat() == 1.5
semver('1.2.3-rc.1').isLessThan(semver('1.2.3')) && semver('1.10.0').isGreaterThan(semver('1.9.9'))
semver('v1.0', true) == semver('1.0.0') && semver('4.5.6').minor() == 5 && isSemver('1.2.3') && !isSemver('1.2')
url('https://u@example.com:8080/a?b=1&b=2').getHost() == 'example.com:8080'
url('https://[::1]:80/a%20b?x=1').getHostname() == '::1' && url('https://e.com:80/').getPort() == '80'
url('/a?b=1&b=2').getQuery()['b'] == ['1', '2'] && url('https://e.com/a').getEscapedPath() == '/a'
isURL('https://example.com') && !isURL('../there') && url('https://e.com').getScheme() == 'https'
ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && ip('0.0.0.0').isUnspecified()
isIP('10.0.0.1') && !isIP('10.0.0') && !ip.isCanonical('2001:DB8::1') && ip('8.8.8.8').isGlobalUnicast()
ip('fe80::1').isLinkLocalUnicast() && ip('224.0.0.1').isLinkLocalMulticast() && !isIP('::ffff:1.2.3.4')
cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.1.2.3'))
cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')
cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && cidr('10.0.0.0/8').prefixLength() == 8 && !isCIDR('10.0.0.0/33')
!format.dns1123Label().validate('a-1').hasValue() && format.dns1123Label().validate('A').value().size() == 1
format.named('uuid').value().validate('x').orValue(['fine'])[0].contains('uuid')
!format.labelValue().validate('').hasValue()
!format.named('x').hasValue() && ['a', 'B'].filter(t, !format.dns1035Label().validate(t).hasValue()) == ['a']
[1, 2].map(x, {'a': format.qualifiedName().validate('e.com/a').hasValue()}).all(m, !m.a)
1 < 1.5 && 2.5 > 1 && 1u <= 1.0 && 2 >= 2u && 'a' < 'b' && duration('1s') < duration('2s')
string(ip('10.0.0.1')) == '10.0.0.1' && string(cidr('10.0.0.1/8')) == '10.0.0.1/8' && string(1.5) == '1.5'
[1, 2].all(x, x < 2.5) && string(true) == 'true' && string(duration('60s')) == '60s'
optional.of(1).orValue(2) == 1 && optional.none().orValue(2) == 2 && {'a': 1}.?b.orValue(3) == 3
[1, 2][?5].hasValue() == false && {'a': 1}.?a.optMap(v, v + 1).value() == 2
cel.bind(x, [1, 2], x.size() + x.size()) == 4
math.greatest(1, 2) == 2 && base64.encode(b'a') == 'YQ=='
duration('90m').getHours() == 1 && timestamp('2020-01-02T00:00:00Z').getDayOfMonth() == 1
[1, 2, 3].map(x, x > 1, x * 2) == [4, 6] && [1, 2].exists_one(x, x == 1) && 'a' in {'a': 1}
type(1) == int && string(1) == '1' && int('2') == 2 && double('1.5') == 1.5 && bytes('a') == b'a'
""".strip().split("\n")


@pytest.mark.parametrize("text", TRUE)
def test_what_holds(checker: Checker, text: str) -> None:
    assert value(checker, text) is True


@pytest.mark.parametrize(
    ("text", "words"),
    [("1 / 0", "division by zero"), ("self.missing", "no such key: missing"), ("[1][3] == 1", "index"),
     ("'a' + string(self.b)", "no such key: b"), ("self.a > 'x'", "no such overload"),
     ("quantity('much').isInteger()", "quantities must match"), ("ip('x').family() == 4", "parse error"),
     ("'a'.substring(5)", "index out of range: 5"), ("[].max() == 1", "max called on empty list"),
     ("'%d'.format([])", "index 0 out of range"), ("'a'.find(self.b) == ''", "no such key: b"),
     ("9223372036854775807 + 1", "overflow"), ("[self.a, 'x'].sort() == []", "same type")],
)  # fmt: skip
def test_what_has_no_value(checker: Checker, text: str, words: str) -> None:
    with pytest.raises(EvaluationError, match=re.escape(words)):
        value(checker, text, {"a": 1})


@pytest.mark.parametrize(
    ("text", "words"),
    [("1 + 'x'", "no matching overload"), ("nobody == 1", "undeclared reference to 'nobody'"), ("self.a +", "Syntax"),
     ("quantity('1') > 3", "no matching overload"), ("quantity('1').isLessThan(semver('1.0.0'))", "no matching"),
     ("{'a': 1}", "must evaluate to"), ("self.explode()", "undeclared reference"), ("", "Syntax error"),
     ("self.matches('(')", "invalid matches argument"), ("self.find('a{9999}') == ''", "invalid find argument"),
     ("duration('1 hour') < duration('1h')", "invalid duration argument"),
     ("timestamp('now') == self", "invalid timestamp argument"),
     ("(" * 60 + "1" + ")" * 60, "recursion limit"), ("1" * 70_000, "too long"),
     ("optional.of(1)" + ".optMap(x, x)" * 30 + ".hasValue()", "too costly to compile")],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_what_does_not_compile(checker: Checker, text: str, words: str) -> None:
    with pytest.raises(CompileError, match=re.escape(words)):
        checker.compile(text, gives=ANY)


def test_a_compile_error_shows_where(checker: Checker) -> None:
    with pytest.raises(CompileError) as told:
        checker.compile("self.a > 1 && 1 == 'x'", gives=("BOOL",))
    assert str(told.value).split("\n")[1:] == [" | self.a > 1 && 1 == 'x'", " | ................^"]


# -- costs


HUGE = "x" * 3_000_000
MANY = list(range(1000))


@pytest.mark.parametrize(
    ("text", "self"),
    [("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))", MANY),
     ("self.n.all(i, (self.t + self.t).size() > 0)", {"t": HUGE, "n": MANY}),
     ("self.n.map(i, self.t.upperAscii()).size() > 0", {"t": HUGE, "n": MANY}),
     ("self.replace('x', self).size() > 0", HUGE), ("self.n.map(i, self.n).map(l, l.sum()).size() > 0", {"n": MANY}),
     ("self.n.transformMap(i, v, v).size() > 0", {"n": MANY * 3}), ("lists.range(1000000000).size() > 0", None),
     ("lists.range(int(self)).size() > 0", "9"), ("self.n.sortBy(i, self.n.sort()[i]).size() > 0", {"n": MANY}),
     ("self.find('(x+)+y') == ''", HUGE), ("lists.range(10000).all(i, lists.range(10000).all(j, true))", None),
     ("self.n.map(i, '%s%s'.format([self.t, self.t])).size() == 0", {"t": HUGE, "n": MANY}),
     ("self.n.map(i, self.t).join().size() > 0", {"t": HUGE, "n": MANY})],
    ids=lambda value: value if isinstance(value, str) and len(value) < 99 else "",
)  # fmt: skip
def test_what_would_cost_too_much_is_not_even_tried(checker: Checker, text: str, self: Any) -> None:
    expression = checker.compile(text, gives=ANY)
    values = Values({"self": self})
    start = time.process_time()
    with pytest.raises(EvaluationError) as told:
        expression.evaluate(values, Budget())
    assert told.value.is_costly
    assert time.process_time() - start < 0.2


def test_what_people_write_about_large_objects_is_not_too_much(checker: Checker) -> None:
    listeners = [{"name": f"listener-{i}", "port": i, "refs": [{"name": "a" * 60}] * 3} for i in range(64)]
    unique = "self.listeners.all(a, self.listeners.exists_one(b, a.name == b.name && a.port == b.port))"
    assert value(checker, unique, {"listeners": listeners}) is True
    names = "self.map(i, i.name).all(n, self.filter(i, i.name == n).size() == 1 && n.matches('^[a-z0-9-]+$'))"
    assert value(checker, names, listeners) is True
    assert value(checker, "self.all(k, self[k].size() < 100)", {f"key-{i}": "v" * 60 for i in range(1000)}) is True


def test_one_write_has_one_budget(checker: Checker) -> None:
    expression = checker.compile("self.all(a, self.exists(b, a == b))", gives=ANY)
    budget, values = Budget(), Values({"self": list(range(90))})
    assert expression.evaluate(values, budget) is True
    budget.left = 10
    with pytest.raises(EvaluationError, match="cost limit exceeded"):
        expression.evaluate(values, budget)


# -- parts


def test_names_are_escaped() -> None:
    assert [escape(name) for name in ("a", "a-b", "a.b/c", "a__b", "namespace", "1a", "ä")] == [
        "a", "a__dash__b", "a__dot__b__slash__c", "a__underscores__b", "__namespace__", None, None,
    ]  # fmt: skip


PATTERNS = ("a+b", "(a|ab)(c|bcd)", "a??b*", "^a|b$", "[^a]{2,3}", r"\bb", "(?i)AB", "a.c", "x*?c")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("text", ["", "ab", "abcd", "aabbcc", "a b", "AB", "xxabc"])
def test_find_is_the_leftmost_match(pattern: str, text: str) -> None:
    match = re.search(pattern.replace("$", r"\Z"), text)
    assert regex.find(text, pattern) == (match.group() if match else "")


def test_find_takes_linear_time() -> None:
    start = time.process_time()
    assert regex.find("a" * 2000, "(a+)+(a|aa)+b") == ""
    assert time.process_time() - start < 2
    for pattern in ("(", "a)", "*a", "[a", "\\", "(?=a)", "a{1001}", "(a{1000}){1000}", "(" * 200):
        with pytest.raises(ValueError, match="error parsing regexp"):
            regex.find("", pattern)
