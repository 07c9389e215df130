"""Quantities are exact, bounded, and written back in the shortest form."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.api import quantity
from hotvirt.api.quantity import QuantityError

BYTES = {
    "0": 0,
    "1": 1,
    "+1": 1,
    "-5": -5,
    "1000": 1000,
    "1Ki": 1 << 10,
    "512Mi": 512 << 20,
    "1.5Gi": 3 << 29,
    ".5Gi": 1 << 29,
    "1.Gi": 1 << 30,
    "1Ti": 1 << 40,
    "7Ei": 7 << 60,
    "1k": 1000,
    "1M": 10**6,
    "1G": 10**9,
    "1T": 10**12,
    "9E": 9 * 10**18,
    "1e3": 1000,
    "1E3": 1000,
    "1e+3": 1000,
    "12e-1": 2,  # rounded up
    "1m": 1,
    "1n": 1,
    "-1m": 0,
    "1500m": 2,
    "0.1": 1,
    "9223372036854775807": 2**63 - 1,
}

NOT = ["", " ", "1 Gi", " 1Gi", "1Gi ", "1gi", "1GI", "1GB", "1K", "Gi", ".", "-", "1..2", "1_000", "0x10", "1e", "1e+",
       "e3", "1Mi2", "nan", "inf", "Infinity", "१", "1\n", "--1", "+-1", "1/2"]  # fmt: skip


@pytest.mark.parametrize(("text", "amount"), BYTES.items(), ids=str)
def test_bytes(text, amount):
    assert quantity.parse_bytes(text) == amount


@pytest.mark.parametrize("text", NOT, ids=repr)
def test_what_is_not_a_quantity_is_named_and_a_good_one_shown(text):
    with pytest.raises(QuantityError, match="is not a quantity: write it like 2Gi") as error:
        quantity.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("value", [None, True, False, [], {}, b"1Gi"], ids=repr)
def test_other_types_are_no_quantity(value):
    with pytest.raises(QuantityError):
        quantity.parse(value)


@pytest.mark.parametrize(("value", "amount"), [(5, 5), (0, 0), (1.5, Fraction(3, 2)), (1e3, 1000), (1e21, None)])
def test_bare_numbers_as_json_has_them(value, amount):
    if amount is None:
        with pytest.raises(QuantityError, match="beyond"):
            quantity.parse(value)
    else:
        assert quantity.parse(value) == amount


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_what_json_has_no_number_for_is_no_quantity(value):
    with pytest.raises(QuantityError):
        quantity.parse(value)


@pytest.mark.parametrize("text", ["8Ei", "9223372036854775808", "1e19", "-8.1Ei", "1e999"])
def test_amounts_have_a_limit(text):
    with pytest.raises(QuantityError, match="beyond what a quantity can hold"):
        quantity.parse(text)


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "1e" + "9" * 1000, "0." + "0" * 100_000 + "1"], ids=["digits", "e", "0"]
)
def test_a_hostile_length_is_refused_unread_and_not_repeated(text):
    with pytest.raises(QuantityError) as error:
        quantity.parse(text)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("text", "thousandths"), [("1", 1000), ("250m", 250), ("0.1", 100), ("1.0005", 1001), ("2e1", 20000), (4, 4000)]
)
def test_cpu(text, thousandths):
    assert quantity.parse_cpu(text) == thousandths


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1000, "1000"),
        (1 << 30, "1Gi"),
        (3 << 29, "1536Mi"),
        (1023, "1023"),
        (1 << 60, "1Ei"),
        (-1024, "-1Ki"),
    ],
)
def test_format_bytes(amount, text):
    assert quantity.format_bytes(amount) == text


@pytest.mark.parametrize(("amount", "text"), [(1000, "1"), (250, "250m"), (0, "0"), (1500, "1500m")])
def test_format_cpu(amount, text):
    assert quantity.format_cpu(amount) == text


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_what_is_written_reads_back(amount):
    assert quantity.parse_bytes(quantity.format_bytes(amount)) == amount


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**12))
def test_cpu_reads_back(amount):
    assert quantity.parse_cpu(quantity.format_cpu(amount)) == amount


@settings(max_examples=60, deadline=None)
@given(st.decimals(-(10**6), 10**6, places=4), st.sampled_from(["", "Ki", "Mi", "Gi", "k", "M", "G", "m", "u", "n"]))
def test_whole_units_are_rounded_up_and_by_less_than_one(number, suffix):
    exact = quantity.parse(f"{number:f}{suffix}")
    assert 0 <= quantity.parse_bytes(f"{number:f}{suffix}") - exact < 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_a_quantity_error(text):
    try:
        amount = quantity.parse(text)
    except QuantityError:
        return
    assert isinstance(amount, Fraction)
