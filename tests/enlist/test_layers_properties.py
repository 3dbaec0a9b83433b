"""How layers merge, over many cases: against a slow reference, and as the normative rules of policies put it."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from itertools import product
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from enlist import layers, pointers, values
from enlist.layers import Layer
from enlist.reasons import Refused
from tests.enlist import layers_reference as reference

# Few names, so that layers and locks meet; and those that pointers must escape or could take for an index.
PLAIN = ["a", "b", "c"]
ODD = ["a", "", "~", "/", "~1", "0"]

LEAVES: list[Any] = [None, True, False, 0, 1, 1.0, "x", {}, [], [None], [{"a": 1, "b": None}]]


def _layers(names: list[str], locks: int = 2) -> st.SearchStrategy[Layer]:
    paths = st.sampled_from([path for length in (1, 2, 3) for path in product(names, repeat=length)])
    settings_ = st.lists(st.tuples(paths, st.sampled_from(LEAVES)), max_size=5).map(_nested)
    locked = st.lists((paths | st.just(())).map(reference.pointer_of), max_size=locks)
    return st.builds(Layer, settings_, locked.map(tuple), st.booleans())


def _nested(statements: list[tuple[reference.Path, Any]]) -> dict[str, Any]:
    """Settings that say all this; where two cannot stand together, the later."""
    whole: dict[str, Any] = {}
    for (*way, last), leaf in statements:
        place = whole
        for name in way:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        place[last] = deepcopy(leaf)
    return whole


LAYER = _layers(PLAIN) | _layers(ODD)
STACK = st.lists(_layers(PLAIN), max_size=5) | st.lists(_layers(ODD), max_size=5)
UNLOCKED = st.lists(_layers(PLAIN, locks=0), max_size=5)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

# Few enough that two of them are often equal, or nearly.
ATOM: st.SearchStrategy[Any] = st.sampled_from([None, False, True, 0, 1, -0.0, 0.0, 1.0, "", "1", [], {}])
SMALL: st.SearchStrategy[Any] = (
    ATOM | st.lists(ATOM, max_size=2) | st.dictionaries(st.sampled_from("ab"), ATOM | st.lists(ATOM), max_size=2)
)


def exact(value: Any) -> bytes:
    """A value with its types, which Python's `==` does not look at; the order of members does not count."""
    return values.dumps(value)


@settings(max_examples=600)
@given(STACK)
def test_layers_come_to_what_the_reference_says(stack: list[Layer]) -> None:
    assert exact(layers.effective(stack)) == exact(reference.effective(stack))


@settings(max_examples=600)
@given(STACK)
def test_the_explanation_is_the_one_of_the_reference(stack: list[Layer]) -> None:
    """Rules 9 and 11."""
    explanation, told = layers.explain(stack), reference.told(stack)
    assert exact(explanation.effective) == exact(told.effective)
    assert {pointer: (origin.layer, origin.locked) for pointer, origin in explanation.origin.items()} == told.origin
    assert sorted(explanation.overridden) == sorted(told.overridden)


@settings(max_examples=600)
@given(LAYER, STACK)
def test_what_may_be_set_is_what_the_reference_allows(layer: Layer, above: list[Layer]) -> None:
    """Rules 5 and 7 to 9."""
    try:
        layers.check(layer, above)
        refused = None
    except Refused as error:
        refused = error.reason
    event(str(refused))
    assert refused == reference.refusal(layer, above)


@settings(max_examples=600)
@given(STACK)
def test_what_is_at_a_locked_path_survives_every_lower_layer(stack: list[Layer]) -> None:
    """The value, or the absence of one, when the lock came; rules 3, 5 and 7."""
    final = layers.effective(stack)
    for count, layer in enumerate(stack, start=1):
        then = layers.effective(stack[:count])
        for lock in layer.locks:
            assert _standing(then, lock) == _standing(final, lock)


def _standing(value: Any, pointer: str) -> bytes | None:
    found = pointers.find(value, pointer)
    return None if found is pointers.MISSING else exact(found)


@settings(max_examples=250)
@given(UNLOCKED)
def test_without_locks_it_is_plain_merge_patch(stack: list[Layer]) -> None:
    """RFC 7396."""
    expected: Any = {}
    for layer in stack:
        expected = reference.appendix(expected, layer.settings)
    assert exact(layers.effective(stack)) == exact(expected)


@settings(max_examples=250)
@given(STACK.filter(bool))
def test_the_last_layer_repeated_changes_nothing(stack: list[Layer]) -> None:
    assert exact(layers.effective([*stack, stack[-1]])) == exact(layers.effective(stack))


@settings(max_examples=250)
@given(STACK)
def test_null_is_never_an_effective_value(stack: list[Layer]) -> None:
    """Rule 6: outside arrays, where it is a value like any other."""
    waiting: list[Any] = [layers.effective(stack)]
    while waiting:
        value = waiting.pop()
        assert value is not None
        waiting.extend(value.values() if isinstance(value, dict) else ())


@settings(max_examples=250)
@given(STACK)
def test_inputs_stay_untouched_and_no_result_reaches_into_them(stack: list[Layer]) -> None:
    before = [(exact(dict(layer.settings)), layer.locks) for layer in stack]
    spoil(layers.effective(stack))
    spoil(layers.explain(stack).effective)
    if stack:
        with suppress(Refused):
            layers.check(stack[-1], stack[:-1])
    assert [(exact(dict(layer.settings)), layer.locks) for layer in stack] == before


def spoil(value: Any) -> None:
    """Changes every object and array within."""
    for member in [*value.values()] if isinstance(value, dict) else [*value]:
        if isinstance(member, dict | list):
            spoil(member)
    if isinstance(value, dict):
        value["spoilt"] = True
    else:
        value.append("spoilt")


@settings(max_examples=250)
@given(STACK)
def test_the_leaves_of_an_explanation_make_up_the_effective_value(stack: list[Layer]) -> None:
    """Rule 11; and what has no leaf is locked."""
    explanation = layers.explain(stack)
    rebuilt: dict[str, Any] = {}
    for pointer, origin in explanation.origin.items():
        value = pointers.find(explanation.effective, pointer)
        if value is pointers.MISSING or (isinstance(value, dict) and (value or pointer == "")):
            assert origin.locked
            continue
        *way, last = pointers.tokens(pointer)
        place = rebuilt
        for token in way:
            place = place.setdefault(token, {})
        place[last] = value
    assert exact(rebuilt) == exact(explanation.effective)


@settings(max_examples=250)
@given(LAYER, STACK)
def test_a_layer_that_may_be_set_is_not_ignored_in_anything(layer: Layer, above: list[Layer]) -> None:
    """Rule 9: what was accepted is in force; and each of its locks holds."""
    try:
        layers.check(layer, above)
    except Refused:
        return
    explanation = layers.explain([*above, layer])
    assert [pointer for pointer, index in explanation.overridden if index == len(above)] == []
    assert all(explanation.origin[lock].locked for lock in layer.locks)


@settings(max_examples=250)
@given(LAYER | st.builds(Layer, st.dictionaries(TEXT, JSON, max_size=4)))
def test_a_layer_is_read_as_it_was_written(layer: Layer) -> None:
    body = layers.encode(layer)
    again = layers.decode(body)
    assert layers.reread(body) == again
    assert (exact(again.settings), again.locks, again.put_back) == (exact(layer.settings), layer.locks, layer.put_back)
    assert again == layer
    assert layers.encode(again) == body


@settings(max_examples=150)
@given(st.dictionaries(TEXT, JSON, max_size=4), st.randoms(use_true_random=False))
def test_what_says_the_same_is_the_same_bytes(value: dict[str, Any], random: Any) -> None:
    """However it was spaced, escaped and ordered."""
    written = json.dumps(shuffled(value, random), indent=2, ensure_ascii=random.random() < 0.5).encode()
    assert layers.encode(Layer(values.parse(written))) == layers.encode(Layer(value))


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, list):
        return [shuffled(member, random) for member in value]
    if not isinstance(value, dict):
        return value
    members = [(name, shuffled(member, random)) for name, member in value.items()]
    random.shuffle(members)
    return dict(members)


@settings(max_examples=600)
@given(SMALL, SMALL)
def test_same_is_equality_of_what_is_written(a: Any, b: Any) -> None:
    """Rule 10; numbers of the same value are written as one here, so that 1 and 1.0 meet."""
    assert values.same(a, b) == (_numbers_as_one(a) == _numbers_as_one(b))
    assert values.same(a, deepcopy(a))


def _numbers_as_one(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_numbers_as_one(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_numbers_as_one, value)) + "]"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value) + 0.0) if number else json.dumps(value)  # + 0.0: zero has no sign


HOSTILE = st.lists(
    st.sampled_from(['{"a":', '{"a":1,"a":', "[", "]", "}", ",", "1", "-", "1e999", "NaN", '"', '"\\ud800"', "null", "\0", " "]),
    max_size=30,
).map("".join)


@settings(max_examples=600)
@given(st.binary(max_size=60) | HOSTILE.map(str.encode))
@pytest.mark.parametrize("read", [values.parse, layers.decode])
def test_whatever_is_read_nothing_but_a_refusal_comes_back(read: Any, text: bytes) -> None:
    """Attacks row 33."""
    try:
        read(text)
    except Refused as error:
        error.message.encode()


@settings(max_examples=600)
@given(st.text(st.characters(codec=None), max_size=20) | st.text("/~01a", max_size=20))
def test_a_pointer_is_read_as_the_reference_reads_it_or_refused(pointer: str) -> None:
    """RFC 6901."""
    try:
        tokens = pointers.tokens(pointer)
    except Refused as error:
        error.message.encode()
        return
    assert tuple(tokens) == reference.path_of(pointer)
    assert reference.pointer_of(tuple(tokens)) == pointer
