"""Policies, rule by rule: what is read and what is refused, how layers merge, which lock holds what, and how it is explained."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist import documents, layers, pointers, values
from enlist.layers import Layer, Origin
from enlist.reasons import Reason, Refused


def refused(reason: Reason, call: Callable[..., object], *args: object) -> str:
    """The sentence that `call` refuses with."""
    with pytest.raises(Refused) as caught:
        call(*args)
    assert caught.value.reason is reason
    return caught.value.message


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


# Rule 1: what is read


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"a": 1, "a": 1}', "/a"),
        ('{"a": {"b": [0, {"c": 1, "d": 2, "c": 3}]}}', "/a/b/1/c"),
        ('{"a": 1, "\\u0061": 2}', "/a"),
        ('{"": 1, "": 1}', "/"),
        ('{"a": NaN}', "/a"),
        ('{"a": [1, Infinity]}', "/a/1"),
        ('{"a/b": {"~": -Infinity}}', "/a~1b/~0"),
        ('{"a": 1e999}', "/a"),
        ('{"a": {"b": -1e999}}', "/a/b"),
        ('{"a": 9007199254740993}', "/a"),
        ('{"a": -9007199254740993}', "/a"),
        ('{"a": "x\\ud800"}', "/a"),
        ('{"a": {"\\udc00": 1}}', "/a/\\udc00"),
        ('{"a": ["x", "\\u0000"]}', "/a/1"),
        ('{"a": {"x\\u0000": 1}}', "/a/x\\0"),
        (nested(33), "/a" * 32),
        ('{"a": ' + "[" * 32 + "]" * 32 + "}", "/a" + "/0" * 31),
    ],
)
def test_what_is_refused_is_named_by_where_it_stands(text: str, pointer: str) -> None:
    message = refused(Reason.POLICY_INVALID, values.parse, text.encode())
    assert f'"{pointer}"' in message
    assert "\0" not in message.encode().decode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{} {}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": "\n"}',
        b'{"a": \xff}',
        b'{"a": "\xed\xa0\x80"}',  # a surrogate in what would be UTF-8
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": １}'.encode(),
        b"[]",
        b"null",
        b'"a"',
        b"1",
    ],
)
def test_what_is_no_json_object_in_utf_8_is_refused(text: bytes) -> None:
    refused(Reason.POLICY_INVALID, values.parse, text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * documents.BODY_LIMIT,
        '{"":' * (documents.BODY_LIMIT // 4),
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' + "9" * 1_000_000 + "}",
        '{"a":-' + "9" * 1_000_000 + "}",
        '{"a":' + "9" * 1_000_000 + ".5}",
        '{"a":1e' + "9" * 1_000_000 + "}",
        '{"' + "k" * 500_000 + '":{' + ",".join(f'"{n}":0' for n in range(40_000)) + "}}",
        '{"' + "k" * 500_000 + '":NaN}',
        "{" + '"":0,' * 200_000 + '"":0}',
    ],
    ids=["arrays", "objects", "closed", "digits", "minus", "decimals", "exponent", "pointers", "pointer", "twice"],
)
@pytest.mark.parametrize("read", [values.parse, layers.decode])
def test_a_bomb_is_refused_and_its_refusal_is_short(read: Callable[[bytes], object], text: str) -> None:
    """Attacks row 33: neither the depth of Python's stack nor its limit of digits shows, and long pointers do not multiply."""
    assert len(refused(Reason.POLICY_INVALID, read, text.encode())) < 400


@pytest.mark.parametrize("read", [values.parse, layers.decode])
def test_a_body_of_a_byte_too_many_is_too_large(read: Callable[[bytes], object]) -> None:
    whole = b'{"a": ""' + b" " * (documents.BODY_LIMIT - 9) + b"}"
    assert values.parse(whole) == {"a": ""}
    assert str(documents.BODY_LIMIT) in refused(Reason.DOCUMENT_TOO_LARGE, read, whole + b" ")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": None},
        {"a": 2**53, "b": -(2**53)},
        {"a": 1e300, "b": 0.0, "c": 1e20},
        {"a": [[None, {"b": None}]], "": {"": ""}},
        {"é": "😀", "a\tb": "\x7f\u2028"},
        json.loads(nested(32)),
        {"k" * (pointers.MAX_POINTER - 1): 1},
    ],
)
def test_what_is_within_the_limits_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert values.dumps(values.parse(json.dumps(value).encode())) == values.dumps(value)
    assert layers.decode(layers.encode(Layer(value))) == Layer(value)


def test_a_path_longer_than_a_pointer_may_be_is_refused() -> None:
    refused(Reason.POLICY_INVALID, values.parse, json.dumps({"k" * pointers.MAX_POINTER: 1}).encode())
    refused(Reason.POLICY_INVALID, values.parse, json.dumps({"~" * (pointers.MAX_POINTER // 2): 1}).encode())


# The body that travels


def test_the_body_is_canonical_json() -> None:
    layer = Layer({"b": [1, 1.0, "é"], "a": {"d": True, "c": None}}, locks=("/b", "/a/d", "/b"), put_back=True)
    body = '{"locks":["/a/d","/b"],"put_back":true,"settings":{"a":{"c":null,"d":true},"b":[1,1.0,"é"]}}'
    assert layers.encode(layer) == body.encode()
    assert layers.decode(body.encode()) == layer


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"locks":[],"settings":{}}',
        b'{"locks":[],"put_back":false,"settings":{},"more":1}',
        b'{"locks":[],"put_back":0,"settings":{}}',
        b'{"locks":[],"put_back":null,"settings":{}}',
        b'{"locks":[],"put_back":false,"settings":[]}',
        b'{"locks":[],"put_back":false,"settings":null}',
        b'{"locks":{},"put_back":false,"settings":{}}',
        b'{"locks":"/a","put_back":false,"settings":{}}',
        b'{"locks":[1],"put_back":false,"settings":{}}',
        b'{"locks":["a"],"put_back":false,"settings":{}}',
        b'{"locks":[],"locks":["/a"],"put_back":false,"settings":{}}',
        b'{"locks":[],"put_back":false,"put_back":false,"settings":{}}',
        b'{"locks":[],"put_back":false,"settings":{},"settings":{}}',
        b'{"locks":[],"put_back":false,"settings":{"a":NaN}}',
        b'{"locks":["/a\\u0000"],"put_back":false,"settings":{}}',
        b'{"locks":["/a\\ud800"],"put_back":false,"settings":{}}',
    ],
)
def test_a_body_that_is_no_layer_is_refused(body: bytes) -> None:
    refused(Reason.POLICY_INVALID, layers.decode, body)


def test_the_depth_of_a_body_is_the_depth_of_its_settings() -> None:
    body = '{"locks":[],"put_back":false,"settings":%s}'
    layers.decode((body % nested(32)).encode())
    assert f'"{"/a" * 32}"' in refused(Reason.POLICY_INVALID, layers.decode, (body % nested(33)).encode())


@pytest.mark.parametrize("locks", [(), ("/a",), ("/a", "/b")])
def test_a_layer_that_grows_too_large_for_travelling_is_refused_with_the_room_there_is_for_settings(locks: tuple[str, ...]) -> None:
    """Its settings alone would pass."""
    written = b'{"a": "%s"}' % (b"x" * (documents.BODY_LIMIT - 20))
    said = refused(Reason.DOCUMENT_TOO_LARGE, layers.encode, Layer(values.parse(written), locks))
    room, has = map(int, re.findall(r"[0-9]+", said))
    assert has == len(written) - len(" ")
    most = b'{"a":"%s"}' % (b"x" * (room - 8))
    assert (len(most), len(layers.encode(Layer(values.parse(most), locks)))) == (room, documents.BODY_LIMIT)


DEEP = [
    ("[" * 100_000, "/0" * 31),
    ('{"a":' * 100_000, "/a" * 31),
    ('{"a": 1, "b" : ["x:", "]{", "\\"[", {}, [], ' + '{"~/":[' * 50_000, "/b/5" + "/~0~1/0" * 14 + "/~0~1"),
]


@pytest.mark.parametrize(("opening", "inside"), DEEP, ids=["arrays", "objects", "both"])
def test_what_is_too_deep_to_be_read_at_all_is_refused_with_the_pointer_where_it_stands(opening: str, inside: str) -> None:
    said = refused(Reason.POLICY_INVALID, values.parse, f'{{"top": {opening}'.encode())
    assert said == f'At "{pointers.shown("/top" + inside)}" stands an object or array within 32 others.'


@given(
    st.integers(0, 40), st.recursive(st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)), st.data()
)
def test_the_scan_of_what_is_too_deep_finds_what_a_reader_would(depth: int, value: Any, data: st.DataObject) -> None:
    for way in range(depth):
        value = data.draw(st.sampled_from([[0, value], {"x": [], "": value}, {"a/b": "[", "~": value}]), label=str(way))
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 1])))
    assert pointers.too_deep(text, 5) == (_first_within(value, 5, "") or "")


def _first_within(value: Any, depth: int, pointer: str) -> str | None:
    if not isinstance(value, dict | list):
        return None
    if depth == 0:
        return pointer
    members = value.items() if isinstance(value, dict) else enumerate(value)
    return next((at for name, each in members if (at := _first_within(each, depth - 1, pointers.child(pointer, str(name))))), None)


def test_what_json_does_not_have_is_never_written() -> None:
    """A value that did not come from `parse`: a fault of the program, not of its user."""
    with pytest.raises(ValueError, match="JSON"):
        values.dumps({"a": float("nan")})


def test_layers_are_equal_by_json_type_and_their_locks_are_a_set() -> None:
    """Rule 10."""
    assert Layer({"a": 1}) != Layer({"a": True})
    assert Layer({"a": 1}) == Layer({"a": 1.0})
    assert Layer({}, ("/b", "/a", "/b")) == Layer({}, ("/a", "/b"))
    assert Layer({}) != Layer({}, put_back=True)
    assert Layer({}) != {}


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, True, False),
        (0, False, False),
        (0.0, False, False),
        (1, 1.0, True),
        (2**53, float(2**53), True),
        (1, "1", False),
        (None, False, False),
        (None, {}, False),
        ([], {}, False),
        ("", None, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": None}, {}, False),
        ({"a": None}, {"b": None}, False),
        ([1, [True]], [1, [1]], False),
        ([1], [1, 1], False),
        ([1, 2], [2, 1], False),
    ],
)
def test_values_are_compared_by_json_type(a: Any, b: Any, equal: bool) -> None:
    """Rule 10: Python says True == 1."""
    assert values.same(a, b) is equal
    assert values.same(b, a) is equal


# Pointers


@pytest.mark.parametrize(
    ("pointer", "tokens"),
    [
        ("", []),
        ("/", [""]),
        ("//", ["", ""]),
        ("/foo", ["foo"]),
        ("/a~1b", ["a/b"]),
        ("/m~0n", ["m~n"]),
        ("/~01", ["~1"]),  # RFC 6901, section 4: not "/"
        ("/c%d/ /é\n", ["c%d", " ", "é\n"]),
        ("/0/-", ["0", "-"]),
    ],
)
def test_a_pointer_names_members(pointer: str, tokens: list[str]) -> None:
    """RFC 6901, sections 3 to 5."""
    assert pointers.tokens(pointer) == tokens
    again = ""
    for token in tokens:
        again = pointers.child(again, token)
    assert again == pointer


@pytest.mark.parametrize("pointer", ["a", "a/b", "#/a", "/~", "/a~2", "/~a/b", "/a\0", "/\ud800", "/" + "k" * pointers.MAX_POINTER])
def test_what_is_no_pointer_is_no_lock(pointer: str) -> None:
    message = refused(Reason.POLICY_INVALID, lambda: Layer({}, (pointer,)))
    assert len(message.encode()) < 400


def test_a_pointer_finds_members_and_nothing_in_arrays() -> None:
    value = {"a": {"b": None, "": 1}, "c": ["x"]}
    assert pointers.find(value, "") is value
    assert pointers.find(value, "/a/b") is None
    assert pointers.find(value, "/a/") == 1
    assert pointers.find(value, "/a/x") is pointers.MISSING
    assert pointers.find(value, "/c/0") is pointers.MISSING


# Rules 2 to 6: how layers merge


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, ...),  # RFC: null, but null is never an effective value (rule 6)
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"a": 1}),  # RFC: {"e": null, "a": 1}, and the same
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_table_of_the_rfc(original: Any, patch: Any, result: Any) -> None:
    """RFC 7396, appendix A; a member deep, because a layer is always an object."""
    merged = layers.effective([Layer({"x": original}), Layer({"x": patch})])
    assert values.same(merged, {} if result is ... else {"x": result})


NTP = {"ntp": {"servers": ["a", "b"], "pool": {"size": 4}}, "log": "info"}


@pytest.mark.parametrize(
    ("upper", "locks", "lower", "result"),
    [
        pytest.param({"a": 1}, ["/a"], {"a": 2}, {"a": 1}, id="a locked value stays"),
        pytest.param({"a": 1}, ["/a"], {"a": None}, {"a": 1}, id="and is not deleted"),
        pytest.param({"a": 1}, ["/a"], {"a": {}}, {"a": 1}, id="nor made an object"),
        pytest.param({"a": {"b": 1}}, ["/a"], {"a": {"b": 2, "c": 3}}, {"a": {"b": 1}}, id="beneath a lock all is locked"),
        pytest.param({"a": {"b": 1}}, ["/a/b"], {"a": 2}, {"a": {"b": 1}}, id="a scalar above a lock is dropped whole"),
        pytest.param({"a": {"b": 1}}, ["/a/b"], {"a": [2]}, {"a": {"b": 1}}, id="an array above a lock is dropped whole"),
        pytest.param({"a": {"b": 1}}, ["/a/b"], {"a": None}, {"a": {"b": 1}}, id="null above a lock is dropped whole"),
        pytest.param({"a": {"b": 1}}, ["/a/b"], {"a": {"b": 2, "c": 3}}, {"a": {"b": 1, "c": 3}}, id="siblings pass"),
        pytest.param({"a": {"b": 1}}, ["/a/b"], {"a": {}}, {"a": {"b": 1}}, id="an explicit {} above a lock takes nothing away"),
        pytest.param({"a": {"b": None}}, ["/a/b"], {"a": {"b": 2}}, {"a": {}}, id="an absence is locked"),
        pytest.param({"a": None}, ["/a/b/c"], {"a": {"b": {"c": 1}}}, {}, id="an object emptied by filtering says nothing"),
        pytest.param({"a": None}, ["/a/b/c"], {"a": {"b": {}}}, {"a": {"b": {}}}, id="an explicit {} speaks"),
        pytest.param({"a": 1}, ["/a/b/c"], {"a": {"b": {"c": 1}}}, {"a": 1}, id="emptied, it replaces nothing"),
        pytest.param({"a": 1}, ["/a/b/c"], {"a": {"b": {}}}, {"a": {"b": {}}}, id="explicit, it does"),
        pytest.param({"a": 1}, ["/a/b"], {"a": 2}, {"a": 1}, id="a scalar beneath which something is locked stays a scalar"),
        pytest.param({"a": 1}, ["/a/b"], {"a": {"c": 2}}, {"a": {"c": 2}}, id="or becomes an object without it"),
        pytest.param({"a": [1]}, ["/a/b"], {"a": {"c": 2}}, {"a": [1]}, id="an array above a lock is frozen"),
        pytest.param({"a": [1]}, ["/a/b"], {"a": {}}, {"a": [1]}, id="even against {}"),
        pytest.param({"a": [1]}, ["/a/0"], {"a": [2]}, {"a": [1]}, id="even if the lock names an index"),
        pytest.param({"a": [1, 2]}, [], {"a": [3]}, {"a": [3]}, id="arrays are atomic"),
        pytest.param({"a": [1, None]}, [], {"b": [None]}, {"a": [1, None], "b": [None]}, id="null is a value within arrays"),
        pytest.param({"a": 1}, [""], {"a": 2, "b": {"c": 3}}, {"a": 1}, id="the whole is locked"),
        pytest.param({"": {"": 1}}, ["/"], {"": 2, "a": 1}, {"": {"": 1}, "a": 1}, id="the empty name is a name"),
        pytest.param({"a/b": 1, "a": {"b": 1}}, ["/a~1b"], {"a/b": 2, "a": {"b": 2}}, {"a/b": 1, "a": {"b": 2}}, id="escapes"),
        pytest.param({"a": 1, "ab": 1}, ["/a"], {"a": 2, "ab": 2}, {"a": 1, "ab": 2}, id="a lock is no prefix of names"),
        pytest.param(
            NTP,
            ["/ntp/servers"],
            {"ntp": {"servers": [], "pool": {"size": 1}}},
            NTP | {"ntp": {"servers": ["a", "b"], "pool": {"size": 1}}},
            id="as it is meant",
        ),
    ],
)
def test_locks_hold_against_the_layer_below(upper: Any, locks: list[str], lower: Any, result: Any) -> None:
    """Rules 3 to 8, and set or not: what is already in force below a new lock is ignored in the same way."""
    merged = layers.effective([Layer(upper, tuple(locks)), Layer(lower)])
    assert values.same(merged, result)


def test_a_layers_own_locks_bind_only_the_layers_below_it() -> None:
    """Rule 2."""
    stack = [Layer({"a": 1}), Layer({"a": 2}, ("/a",)), Layer({"a": 3})]
    assert layers.effective(stack) == {"a": 2}


def test_a_lock_holds_against_every_layer_below_and_revives_what_it_hid_when_it_goes() -> None:
    """Rule 9."""
    below = [Layer({"b": 1}), Layer({"a": 2}), Layer({"a": 3})]
    assert layers.effective([Layer({"a": 1}, ("/a",)), *below]) == {"a": 1, "b": 1}
    assert layers.effective([Layer({"a": 1}), *below]) == {"a": 3, "b": 1}


def test_a_lock_above_another_is_a_union_in_either_order() -> None:
    """Rule 8."""
    for first, second in [("/a", "/a/b"), ("/a/b", "/a")]:
        stack = [Layer({"a": {"b": 1}}, (first,)), Layer({}, (second,)), Layer({"a": {"b": 2, "c": 3}})]
        assert layers.effective(stack) == {"a": {"b": 1}}


def test_no_layers_come_to_nothing() -> None:
    assert layers.effective([]) == {}
    assert layers.explain([]) == layers.Explanation({}, {}, ())
    assert layers.put_back([]) is False


def test_local_changes_are_put_back_if_any_layer_says_so() -> None:
    assert layers.put_back([Layer({}), Layer({}, put_back=True), Layer({})])
    assert not layers.put_back([Layer({}), Layer({})])


def test_folding_costs_time_linear_in_the_layers() -> None:
    """Attacks row 33: twice the members and twice the locks are twice the work, not four times."""

    def stack(size: int) -> list[Layer]:
        locks = tuple(f"/k{n}/x" for n in range(0, size, 10))
        return [Layer({f"k{n}": {"x": n, "y": [n]} for n in range(size)}, locks)] * 2

    assert calls(layers.effective, stack(2000)) < 2.2 * calls(layers.effective, stack(1000))
    assert calls(layers.explain, stack(2000)) < 2.2 * calls(layers.explain, stack(1000))


def calls(function: Callable[..., object], *args: object) -> int:
    """How many functions, of Python and of C, are called meanwhile."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return count


# Rules 5 and 7 to 9: what may be set


@pytest.mark.parametrize(
    ("locks", "settings", "named"),
    [
        (["/a"], {"a": 2}, "/a"),
        (["/a"], {"a": 1}, "/a"),  # saying the same is touching, too
        (["/a"], {"a": None}, "/a"),
        (["/a"], {"a": {"b": 1}}, "/a"),
        (["/a/b"], {"c": 1, "a": {"c": 1, "b": {"d": 2}}}, "/a/b"),
        (["/a/b"], {"a": 1}, "/a"),
        (["/a/b"], {"a": [1]}, "/a"),
        (["/a/b"], {"a": None}, "/a"),
        (["/list/x"], {"list": {"y": 1}}, "/list"),
        ([""], {"z": {"y": 1}}, "/z"),
        (["/a~1b"], {"a/b": 2}, "/a~1b"),
    ],
)
def test_settings_that_touch_an_upper_lock_are_refused(locks: list[str], settings: Any, named: str) -> None:
    """Rule 9, and rule 5 for an array that is frozen."""
    above = [Layer({"list": [1]}, tuple(locks)), Layer({})]
    assert f'"{named}"' in refused(Reason.SETTING_LOCKED, layers.check, Layer(settings), above)


@pytest.mark.parametrize("lock", ["/a", "/a/b", "/a/x"])
def test_a_lock_at_or_beneath_an_upper_lock_is_refused(lock: str) -> None:
    """Rule 8."""
    above = [Layer({"a": {"b": 1}, "c": 1}, ("/a",))]
    assert f'"{lock}"' in refused(Reason.SETTING_LOCKED, layers.check, Layer({}, ("/c", lock)), above)


@pytest.mark.parametrize("lock", ["/a", ""])
def test_a_lock_above_an_upper_lock_is_allowed(lock: str) -> None:
    """Rule 8."""
    layers.check(Layer({}, (lock,)), [Layer({"a": {"b": 1}}, ("/a/b",))])


def test_below_a_lock_of_everything_a_layer_says_nothing() -> None:
    """Rule 8; but it may still have local changes put back."""
    above = [Layer({"a": 1}, ("",))]
    layers.check(Layer({}, put_back=True), above)
    refused(Reason.SETTING_LOCKED, layers.check, Layer({}, ("",)), above)
    refused(Reason.SETTING_LOCKED, layers.check, Layer({"b": {}}), above)


@pytest.mark.parametrize(
    ("settings", "lock"),
    [
        ({}, "/up"),
        ({}, "/up/x"),
        ({}, ""),
        ({"a": 1}, "/a"),
        ({"a": {"b": {}}}, "/a/b"),
        ({"a": {"b": None}}, "/a/b"),
        ({"up": None}, "/up"),
        ({"up": {"x": None}}, "/up/x"),
        ({"list": {"x": 1}}, "/list/x"),  # no array any more
        ({"list": None}, "/list"),
        ({}, "/list"),
    ],
)
def test_a_path_that_stands_or_is_deleted_here_can_be_locked(settings: Any, lock: str) -> None:
    """Rule 7."""
    layers.check(Layer(settings, (lock,)), [Layer({"up": {"x": 1}, "list": [[1], {"x": 1}]})])


@pytest.mark.parametrize(
    ("settings", "lock"),
    [
        ({}, "/nowhere"),
        ({}, "/up/y"),
        ({}, "/up/x/y"),
        ({"a": None}, "/a/b"),
        ({"up": None}, "/up/x"),  # stood above; lock /up, or delete /up/x
        ({"up": 1}, "/up/x"),
        ({}, "/gone"),
        ({}, "/list/0"),
        ({}, "/list/1/x"),
        ({"up": [1]}, "/up/x"),
        ({"a": [{"b": 1}]}, "/a/0/b"),
    ],
)
def test_a_path_that_does_not_stand_or_leads_through_an_array_cannot_be_locked(settings: Any, lock: str) -> None:
    """Rules 5 and 7."""
    above = [Layer({"up": {"x": 1}, "list": [[1], {"x": 1}], "gone": 1}), Layer({"gone": None})]
    assert f'"{lock}"' in refused(Reason.POLICY_INVALID, layers.check, Layer(settings, (lock,)), above)


# Rules 9 and 11: how it is explained


def test_an_explanation_names_leaves_their_layers_and_their_locks() -> None:
    stack = [
        Layer({"a": {"b": 1, "c": 1}, "list": [1, {"x": 1}], "none": {}}, ("/a/b",)),
        Layer({"a": {"c": 2, "d": {"e": True}}, "empty": {"x": None}}),
        Layer({"a": {"f": 3}, "empty": {}, "none": {"y": 1}}, ("/a/d",)),
    ]
    explanation = layers.explain(stack)
    assert explanation.effective == layers.effective(stack)
    assert explanation.origin == {
        "/a/b": Origin(0, locked=True),
        "/a/c": Origin(1, locked=False),
        "/a/d": Origin(1, locked=True),  # no leaf, but locked
        "/a/d/e": Origin(1, locked=True),
        "/a/f": Origin(2, locked=False),
        "/empty": Origin(2, locked=False),
        "/list": Origin(0, locked=False),
        "/none/y": Origin(2, locked=False),
    }
    assert list(explanation.origin) == sorted(explanation.origin)
    assert explanation.overridden == ()


def test_every_locked_path_is_explained_absent_ones_included() -> None:
    """Rule 11; of an absent one, the topmost layer that locked it."""
    stack = [
        Layer({"a": {"x": 1, "y": None}}),
        Layer({}, ("/a/y", "/nowhere")),
        Layer({"a": {"x": 2}}, ("/a", "/nowhere")),
    ]
    assert layers.explain(stack).origin == {
        "/a": Origin(2, locked=True),
        "/a/x": Origin(2, locked=True),
        "/a/y": Origin(1, locked=True),
        "/nowhere": Origin(1, locked=True),
    }


def test_the_whole_is_explained_only_when_it_is_locked() -> None:
    assert layers.explain([Layer({}), Layer({"a": None})]).origin == {}
    assert layers.explain([Layer({}), Layer({}, ("",)), Layer({"a": 1})]).origin == {"": Origin(1, locked=True)}
    assert layers.explain([Layer({"a": 1}), Layer({}, ("",))]).origin == {"": Origin(0, locked=True), "/a": Origin(0, locked=True)}


def test_a_frozen_array_is_explained_as_locked() -> None:
    """Rule 5."""
    explanation = layers.explain([Layer({"a": [1]}), Layer({}, ("/a/b",)), Layer({"a": {"c": 1}})])
    assert explanation.origin == {"/a": Origin(0, locked=True), "/a/b": Origin(1, locked=True)}
    assert explanation.overridden == (("/a", 2),)


def test_what_a_later_lock_hides_is_overridden_at_its_topmost_pointer() -> None:
    """Rule 9."""
    stack = [
        Layer({"a": {"b": {"c": 1}}, "z": 1}, ("/a/b", "/z")),
        Layer({"a": {"b": {"c": 2, "d": 3}, "e": 4}, "z": None}),
        Layer({"a": 5}),
    ]
    explanation = layers.explain(stack)
    assert explanation.overridden == (("/a/b", 1), ("/z", 1), ("/a", 2))
    assert explanation.effective == {"a": {"b": {"c": 1}, "e": 4}, "z": 1}


def test_below_a_lock_of_everything_each_member_is_overridden() -> None:
    explanation = layers.explain([Layer({"a": 1}, ("",)), Layer({"a": {"b": 1}, "c": {}}), Layer({})])
    assert explanation.overridden == (("/a", 1), ("/c", 1))


def test_an_origin_is_the_last_layer_that_speaks_even_if_it_says_the_same() -> None:
    assert layers.explain([Layer({"a": 1}), Layer({"a": 1})]).origin == {"/a": Origin(1, locked=False)}
    assert layers.explain([Layer({"a": {"b": 1}}), Layer({"a": {"b": None}})]).origin == {"/a": Origin(1, locked=False)}
