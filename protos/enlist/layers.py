"""Policies: what one layer says and how layers merge. Pure; the rules are numbered as in the documentation of policies.

A **layer** is what one group says of one kind: settings, locks, and whether servers put back what was changed locally. The layers
of a server, from the top-most primary's top group down to its own group, are folded into its **effective** settings:

    patch = admit(settings, locks); value = merge(value, patch); locks |= own locks

`merge` is RFC 7396; `admit` leaves out what the locks of the layers above do not let through. JSON values are dict, list, str, int,
float, bool and None, and those given here come from `values.parse` or `decode`: the limits there hold for them. No function changes
what it is given, and nothing returned shares an object or array with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from enlist import documents, pointers, values
from enlist.reasons import Reason, Refused


@dataclass(frozen=True)
class Layer:
    """What a group says of a kind. The locks are a set, kept in order; `POLICY_INVALID` if one is not a JSON Pointer."""

    settings: Mapping[str, Any]
    locks: tuple[str, ...] = ()
    put_back: bool = False

    def __post_init__(self) -> None:
        for lock in self.locks:
            pointers.tokens(lock)
        object.__setattr__(self, "locks", tuple(sorted(set(self.locks))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layer):
            return NotImplemented
        mine, theirs = (self.locks, self.put_back), (other.locks, other.put_back)
        return mine == theirs and values.same(dict(self.settings), dict(other.settings))


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: the index of the lowest layer that says something there, and whether a lock holds it.

    Of a locked path where nothing stands, `layer` is the topmost one that locked it.
    """

    layer: int
    locked: bool


@dataclass(frozen=True)
class Explanation:
    """How the effective settings came about.

    `origin` has the pointer of every leaf (non-object, or `{}` within the whole) and of every locked path, in order. `overridden`
    has, from the top layer down, the pointer of each setting that locks above its layer, given by its index, make ignored: only
    the pointer of the topmost one, where everything beneath is ignored with it.
    """

    effective: dict[str, Any]
    origin: Mapping[str, Origin]
    overridden: tuple[tuple[str, int], ...]


# Reading and writing


def encode(layer: Layer) -> bytes:
    """The body that travels and is hashed; `DOCUMENT_TOO_LARGE` above `documents.BODY_LIMIT`."""
    body = values.dumps({"locks": layer.locks, "put_back": layer.put_back, "settings": dict(layer.settings)})
    if len(body) > documents.BODY_LIMIT:
        settings = len(values.dumps(dict(layer.settings)))
        room = documents.BODY_LIMIT - (len(body) - settings)
        sentence = f"With these locks, the settings have at most {room} bytes, written without spaces; these have {settings}."
        raise Refused(Reason.DOCUMENT_TOO_LARGE, sentence)
    return body


def decode(body: bytes) -> Layer:
    """Reads what `encode` wrote, as strictly as `values.parse`."""
    whole = values.load(body)
    if not isinstance(whole, dict) or whole.keys() != {"locks", "put_back", "settings"}:
        raise _invalid('The body of a policy is a JSON object with "locks", "put_back" and "settings".')
    locks, put_back = whole["locks"], whole["put_back"]
    if not isinstance(put_back, bool) or not isinstance(locks, list) or not all(isinstance(lock, str) for lock in locks):
        raise _invalid('In the body of a policy, "locks" are texts in an array, and "put_back" is true or false.')
    return Layer(values.settings(whole["settings"]), tuple(locks), put_back)


def reread(body: bytes) -> Layer:
    """The same of a body that `encode` wrote and its reader kept: what it holds was checked then, and that takes long."""
    return Layer(**json.loads(body))


# Folding

_Tree: TypeAlias = "dict[str, _Tree]"
"""Locks by the tokens of their pointers. A leaf is a lock, and holds everything beneath: what stood below it is not needed."""


def _below(locks: _Tree | None, name: str) -> _Tree | None:
    """The locks that concern a member: None for none at or beneath it, an empty tree if it is locked itself."""
    return locks.get(name) if locks else locks


def _plant(root: _Tree, pointer: str) -> None:
    """Adds a lock. The whole stands in `root` under a name of its own, so that a root without locks is no lock of everything."""
    *way, last = "", *pointers.tokens(pointer)
    for token in way:
        if root.get(token) == {}:
            return
        root = root.setdefault(token, {})
    root[last] = {}


class _Fold:
    """What the layers so far come to: the value, and the locks that bind the layers below them."""

    def __init__(self, layers: Sequence[Layer] = ()) -> None:
        self.value: dict[str, Any] = {}
        self._root: _Tree = {}
        for layer in layers:
            self.add(layer)

    @property
    def locks(self) -> _Tree | None:
        return self._root.get("")

    def admit(self, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
        """What the locks let through of the next layer's settings, and the pointers of what they do not."""
        ignored: list[str] = []
        return _admit(settings, self.value, self.locks, "", ignored), ignored

    def add(self, layer: Layer) -> tuple[Mapping[str, Any], list[str]]:
        admitted, ignored = self.admit(layer.settings)
        _merge(self.value, admitted)
        for lock in layer.locks:
            _plant(self._root, lock)
        return admitted, ignored


def _admit(patch: Mapping[str, Any], value: Any, locks: _Tree | None, pointer: str, ignored: list[str]) -> Mapping[str, Any]:
    """The members of `patch` that the locks let through to `value` (rules 3 to 5)."""
    if locks is None:
        return patch
    admitted: dict[str, Any] = {}
    for name, member in patch.items():
        below, here = _below(locks, name), pointers.child(pointer, name)
        old = value.get(name) if isinstance(value, dict) else None
        if below is None:
            admitted[name] = member
        elif not below or not isinstance(member, dict) or isinstance(old, list):
            ignored.append(here)  # at or beneath a lock; above one and no object; or an array above one, which is frozen
        else:
            kept = _admit(member, old, below, here, ignored)
            if kept or not member:  # emptied, it says nothing; empty, it speaks
                admitted[name] = kept
    return admitted


def _merge(value: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7396, section 2, into `value`, which shares nothing with any patch."""
    for name, member in patch.items():
        if member is None:
            value.pop(name, None)
        elif isinstance(member, dict):
            old = value.get(name)
            if not isinstance(old, dict):
                old = value[name] = {}
            _merge(old, member)
        else:
            value[name] = _copy(member)


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(member) for member in value]
    return {name: _copy(member) for name, member in value.items()} if isinstance(value, dict) else value


def effective(layers: Sequence[Layer]) -> dict[str, Any]:
    """What the layers, the topmost first, come to (rules 2 to 6), in time linear in their size."""
    return _Fold(layers).value


def put_back(layers: Sequence[Layer]) -> bool:
    """Whether a server with these layers puts back what was changed locally: any layer may demand it."""
    return any(layer.put_back for layer in layers)


def check(layer: Layer, above: Sequence[Layer]) -> None:
    """Refuses a layer that may not be set below these (rules 5 and 7 to 9).

    `SETTING_LOCKED`: it touches an upper lock, that is, says something that would be ignored, or locks what is locked already.
    `POLICY_INVALID`: it locks a path through an array, or one that stands neither in its settings (null counts) nor in the merge
    up to it and with it.
    """
    fold = _Fold(above)
    for setting in fold.admit(layer.settings)[1]:
        text = f'"{pointers.shown(setting)}" cannot be set here: it is locked further up, or something in it is.'
        raise Refused(Reason.SETTING_LOCKED, text)
    for lock in layer.locks:
        if _locked(fold.locks, lock):
            raise Refused(Reason.SETTING_LOCKED, f'"{pointers.shown(lock)}" cannot be locked here: it is locked further up.')
    _merge(fold.value, layer.settings)
    for lock in layer.locks:
        _check_path(lock, fold.value, layer.settings)


def _locked(locks: _Tree | None, pointer: str) -> bool:
    for token in pointers.tokens(pointer):
        locks = _below(locks, token)
    return locks == {}


def _check_path(lock: str, value: Any, settings: Mapping[str, Any]) -> None:
    for token in pointers.tokens(lock):
        if isinstance(value, list):
            raise _invalid(
                f'"{pointers.shown(lock)}" cannot be locked: it points into an array, which is one value; lock the array.'
            )
        value = value.get(token) if isinstance(value, dict) else None
    if value is None and pointers.find(dict(settings), lock) is pointers.MISSING:
        raise _invalid(
            f'"{pointers.shown(lock)}" cannot be locked: nothing stands there. To lock its absence, set it to null as well.'
        )


# Explaining


def explain(layers: Sequence[Layer]) -> Explanation:
    """How the layers come to what is effective (rules 9 and 11)."""
    fold = _Fold()
    said: list[tuple[int, Any]] = []
    overridden: list[tuple[str, int]] = []
    lockers: dict[str, int] = {}
    for index, layer in enumerate(layers):
        admitted, ignored = fold.add(layer)
        overridden.extend((pointer, index) for pointer in ignored)
        if admitted:
            said.append((index, dict(admitted)))
        for lock in layer.locks:
            lockers.setdefault(lock, index)
    origin: dict[str, Origin] = {}
    _leaves(fold.value, said, fold.locks, "", origin)
    for lock in lockers.keys() - origin.keys():
        stands = pointers.find(fold.value, lock) is not pointers.MISSING
        speakers = [index for index, patch in said if stands and pointers.find(patch, lock) is not pointers.MISSING]
        origin[lock] = Origin(speakers[-1] if speakers else lockers[lock], locked=True)
    return Explanation(fold.value, dict(sorted(origin.items())), tuple(overridden))


def _leaves(
    value: dict[str, Any], said: list[tuple[int, Any]], locks: _Tree | None, pointer: str, origin: dict[str, Origin]
) -> None:
    """Adds the leaves of `value`. `said` is what the layers say of it, by their indices."""
    for name, member in value.items():
        here, below = pointers.child(pointer, name), _below(locks, name)
        saying = [(index, patch[name]) for index, patch in said if isinstance(patch, dict) and name in patch]
        if isinstance(member, dict) and member:
            _leaves(member, saying, below, here, origin)
        else:
            frozen = below is not None and isinstance(member, list)  # by a lock at it, or (rule 5) by one beneath
            origin[here] = Origin(saying[-1][0], locked=frozen or below == {})


def _invalid(message: str) -> Refused:
    return Refused(Reason.POLICY_INVALID, message)
