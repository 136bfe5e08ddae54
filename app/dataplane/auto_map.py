"""Which column a header means, by its name: alike but for spelling, else close, each with how sure that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from pydantic import Field
from rapidfuzz.distance import OSA

from app.domain.job_types import JobConfig

_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FILLERS: Final = frozenset({"a", "address", "field", "name", "no", "nr", "number", "of", "the", "text", "value"})
"""Words that one of two names may have and the other not, and both mean the same."""
_WITH_FILLERS: Final = 0.9
_WITH_OTHERS: Final = 0.7
_LEAST: Final = 0.4
"""What is less alike is no suggestion."""
_MOST_WORK: Final = 4_000_000


class AutoMap(JobConfig):
    """How headers that are no column's name find their column."""

    strategy: Literal["exact", "fuzzy"] = Field(
        "fuzzy", description="exact looks past case, spaces and punctuation alone; fuzzy takes what is close, too."
    )
    threshold: float = Field(0.8, ge=0, le=1, description="A header that is less sure than this is left out.")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What becomes of a header.

    Args:
        column: ``None``: it is left out.
        confidence: From 0 to 1; of a header that is left out, that of ``nearest``.
        by: ``mapping``, ``name``, ``alias``, ``exact`` or ``fuzzy``; ``None`` for a header that is left out.
        nearest: The free column that such a header is most like.
    """

    header: str
    column: str | None
    confidence: float
    by: str | None
    nearest: str | None = None

    def as_json(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def propose(headers: Sequence[str], names: Mapping[str, str], options: AutoMap) -> list[Proposal]:
    """The best column of each header, in the order of the headers; no column twice.

    Args:
        names: Every free column by what it may be called: its own name and its aliases.
    """
    sure = _alike(headers, names)
    rest = [header for header in headers if header not in sure]
    free = {name: column for name, column in names.items() if column not in sure.values()}
    scores = {header: _scores(header, free) for header in rest}
    chosen = _assigned(scores, options.threshold) if options.strategy == "fuzzy" else {}
    return [
        Proposal(header, sure[header], 1.0, "exact") if header in sure else _said(header, scores[header], chosen)
        for header in headers
    ]


def _said(header: str, scores: Mapping[str, float], chosen: Mapping[str, str]) -> Proposal:
    if header in chosen:
        return Proposal(header, chosen[header], scores[chosen[header]], "fuzzy")
    left = {column: score for column, score in scores.items() if column not in chosen.values()}
    nearest = max(left, key=lambda column: left[column], default=None)
    return Proposal(header, None, left[nearest] if nearest else 0.0, None, nearest)


def _alike(headers: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """The columns of headers that are the same but for case, spaces and punctuation; the first such header has it."""
    known = {"".join(_words(name)): column for name, column in reversed(list(names.items()))}
    found: dict[str, str] = {}
    for header in headers:
        column = known.get("".join(_words(header)))
        if column is not None and column not in found.values():
            found[header] = column
    return found


def _words(name: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(_HUMP.sub(" ", name))]


def _scores(header: str, names: Mapping[str, str]) -> dict[str, float]:
    """How much a header is like each column, where it is at all."""
    words = _words(header)
    scores: dict[str, float] = {}
    for name, column in names.items():
        score = _likeness(words, _words(name))
        if score >= _LEAST:
            scores[column] = max(score, scores.get(column, 0.0))
    return scores


def _likeness(header: Sequence[str], column: Sequence[str]) -> float:
    """From 0 to just below 1; names whose numbers differ (``address1``, ``address2``) are never alike."""
    if [word for word in header if word.isdecimal()] != [word for word in column if word.isdecimal()]:
        return 0.0
    score: float = OSA.normalized_similarity("".join(header), "".join(column))
    if _bare(header) == _bare(column):
        score = max(score, _WITH_FILLERS)
    elif header and column and (set(column) < set(header) or set(header) < set(column)):
        score = max(score, _WITH_OTHERS)
    return round(min(score, 0.99), 2)


def _bare(words: Sequence[str]) -> str:
    """A name without words that add nothing; the whole of one that has no others."""
    return "".join(word for word in words if word not in _FILLERS) or "".join(words)


def _assigned(scores: Mapping[str, Mapping[str, float]], threshold: float) -> dict[str, str]:
    """Headers and columns such that the sum of their scores is the largest; those below the threshold stay free."""
    wanted = {
        header: close
        for header, found in scores.items()
        if (close := {column: score for column, score in found.items() if score >= threshold})
    }
    columns = sorted({column for found in wanted.values() for column in found})
    if len(wanted) ** 2 * (len(columns) + len(wanted)) > _MOST_WORK:
        return _taken_in_turn(wanted)
    matrix = [[-found.get(column, 0.0) for column in columns] + [0.0] * len(wanted) for found in wanted.values()]
    chosen = zip(wanted, _cheapest(matrix), strict=True)
    return {header: columns[at] for header, at in chosen if at < len(columns) and columns[at] in wanted[header]}


def _taken_in_turn(wanted: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The closest pair, then the closest of what is left: not always the best, but quick for a thousand headers."""
    pairs = sorted((-score, header, column) for header, found in wanted.items() for column, score in found.items())
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for _, header, column in pairs:
        if header not in chosen and column not in taken:
            chosen[header] = column
            taken.add(column)
    return chosen


def _cheapest(costs: Sequence[Sequence[float]]) -> list[int]:
    """For each row its column, none twice, such that the costs come to the least; there are as many columns as rows.

    Source: the Hungarian method with potentials, as Jonker and Volgenant give it.
    """
    width = len(costs[0]) if costs else 0
    row_of = [-1] * (width + 1)
    by_row, by_column = [0.0] * len(costs), [0.0] * (width + 1)
    for row in range(len(costs)):
        at, row_of[width] = width, row
        least, way, seen = [float("inf")] * width, [width] * width, [False] * (width + 1)
        while row_of[at] >= 0:
            seen[at], here, step, following = True, row_of[at], float("inf"), -1
            for column in range(width):
                if not seen[column]:
                    cost = costs[here][column] - by_row[here] - by_column[column]
                    if cost < least[column]:
                        least[column], way[column] = cost, at
                    if least[column] < step:
                        step, following = least[column], column
            for column in range(width + 1):
                if seen[column]:
                    by_row[row_of[column]] += step
                    by_column[column] -= step
                elif column < width:
                    least[column] -= step
            at = following
        while at != width:
            row_of[at] = row_of[way[at]]
            at = way[at]
    found = {row: column for column, row in enumerate(row_of[:width]) if row >= 0}
    return [found[row] for row in range(len(costs))]
