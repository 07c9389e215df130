from datetime import UTC, datetime, timedelta

from hotvirt.kube import conditions, times

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def test_the_transition_time_moves_with_the_status_only():
    first = conditions.put(None, "Ready", False, now=NOW, reason="GuestNotRunning")
    second = conditions.put(first, "Ready", False, now=LATER, reason="PodTerminating", message="soon")
    third = conditions.put(second, "Ready", True, now=LATER)
    assert first[0]["lastTransitionTime"] == second[0]["lastTransitionTime"] == times.stamp(NOW)
    assert third[0]["lastTransitionTime"] == times.stamp(LATER)
    assert "reason" not in third[0]
    assert first[0]["reason"] == "GuestNotRunning"


def test_nothing_new_compares_equal_also_to_what_a_server_stored_without_nulls():
    first = conditions.put([{"type": "A", "status": "True"}], "Ready", True, now=NOW, reason="R", message="m")
    assert conditions.put(first, "Ready", True, now=LATER, reason="R", message="m") == first
    stored = [{key: value for key, value in c.items() if value is not None} for c in first]
    assert conditions.put(stored, "Ready", True, now=LATER, reason="R", message="m") == stored


def test_order_is_kept_and_what_is_given_is_not_changed():
    given = [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]
    changed = conditions.put(given, "A", False, now=NOW)
    assert [c["type"] for c in changed] == ["A", "B"]
    assert given[0]["status"] == "True"
    assert conditions.remove(given, "A") == [given[1]]
    assert conditions.keep(given, ["A"]) == [given[0]]
    assert conditions.is_true(given, "A")
    assert not conditions.is_true(None, "A")
    assert conditions.of({"status": {"conditions": given}}, "B") is given[1]


def test_times_are_read_in_any_of_the_apis_forms():
    assert times.parse("2026-01-01T00:00:00Z") == NOW
    assert times.parse("2026-01-01T00:00:00.000000Z") == NOW
    assert times.parse("2026-01-01T00:00:00") == NOW
    assert times.parse("soon") is None
    assert times.parse(None) is None
    assert times.stamp(NOW) == "2026-01-01T00:00:00Z"
