"""Figures, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from enlist.runtime.terminal import table
from scripts.benchmarks.measuring import Rounds, median


@dataclass(frozen=True)
class Figure:
    """Something measured. `judged` is what the target is about: a ratio to the floor, a difference from it, or the value itself.

    A figure without a target is for information.
    """

    name: str
    unit: str
    value: float
    judged: float
    floor: float | None = None
    target: float | None = None
    how: str = "value"
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the target is missed."""
        return self.target is not None and self.judged > self.target

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.target is None:
            return "-"
        return "MISSED" if self.missed else "ok"


def ratio(name: str, unit: str, rounds: Rounds, target: float | None, note: str = "") -> Figure:
    """A figure judged by its ratio to the floor: the median of the rounds' ratios."""
    return _of_rounds(name, unit, rounds, rounds.ratios, target, "ratio", note)


def above(name: str, unit: str, rounds: Rounds, target: float | None, note: str = "") -> Figure:
    """A figure judged by how far it lies above the floor: the median of the rounds' differences."""
    return _of_rounds(name, unit, rounds, rounds.differences, target, "above", note)


def _of_rounds(name: str, unit: str, rounds: Rounds, judged: list[float], target: float | None, how: str, note: str) -> Figure:
    spread = (min(judged), max(judged))
    return Figure(name, unit, median(rounds.subject), median(judged), median(rounds.floor), target, how, spread, note)


_JUDGED: dict[str, Callable[[float, str], str]] = {
    "ratio": lambda value, _unit: f"x {value:.2f}",
    "above": lambda value, unit: f"{value:+.3g} {unit}",
    "value": lambda value, unit: f"{value:.3g} {unit}".rstrip(),
}


def show(figures: Sequence[Figure]) -> str:
    """The table; under it what is to be said about single figures."""
    header = ("figure", "value", "floor", "judged", "spread", "target", "")
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([table(header, [_row(figure) for figure in figures]), "", *notes])


def _row(figure: Figure) -> tuple[str, ...]:
    judged, plain = _JUDGED[figure.how], _JUDGED["value"]
    return (
        figure.name,
        plain(figure.value, figure.unit),
        "" if figure.floor is None else plain(figure.floor, figure.unit),
        judged(figure.judged, figure.unit),
        "" if figure.spread is None else " to ".join(judged(each, "").strip() for each in figure.spread),
        "" if figure.target is None else f"<= {judged(figure.target, figure.unit)}",
        figure.verdict,
    )


def as_json(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """The figures with exact keys, numbers as numbers."""
    return [{**asdict(figure), "ok": None if figure.target is None else not figure.missed} for figure in figures]
