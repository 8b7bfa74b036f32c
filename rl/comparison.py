"""Algorithms side by side: curves over rollouts, what was reached, how steady it was, and the handbook's claims.

Runs of the same seed share problems and their order, so that algorithms are compared seed by seed. Intervals are 95 %
of a t distribution over seeds: with three of them they are wide, and a spread over three seeds is a rough thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Any

Figure = dict[str, Any]
"""mean, low and high (95 %, None for one seed), standard_error (None for one seed), seeds: the figure of each."""

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of the t distribution with 1 to 10 degrees of freedom; the last serves for more."""


@dataclass(frozen=True)
class Ran:
    """The runs of one algorithm, one a seed.

    Attributes:
        dense: Whether steps are rewarded.
        lines: Of each run the lines of metrics.jsonl.
        summaries: Of each run.
    """

    dense: bool
    lines: Sequence[Sequence[Mapping[str, Any]]]
    summaries: Sequence[Mapping[str, Any]]


def comparison(runs: Mapping[str, Ran]) -> dict[str, Any]:
    """Everything that is said of some algorithms; plain data.

    Returns:
        budget (rollouts that every run had at least: where "equal" is read off), algorithms (see `_reached`) and claims
        (claim, verdict, figures in words).
    """
    curves = {name: [curve(lines) for lines in ran.lines] for name, ran in runs.items()}
    budget = min(points[-1]["rollouts"] for of in curves.values() for points in of)
    reached = {name: _reached(ran, curves[name], budget) for name, ran in runs.items()}
    return {"budget": budget, "algorithms": reached, "claims": claims(reached)}


def curve(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One point an evaluation: update, rollouts sampled up to it, sampled and greedy accuracy on held-out problems."""
    rollouts, points = 0, []
    for line in lines:
        if line["part"] == "held_out":
            figures = {key: line[key] for key in ("sampled", "greedy")}
            points.append({"update": line["update"], "rollouts": rollouts, **figures})
        else:
            rollouts += line.get("sampled", 0)
    return points


def at(points: Sequence[Mapping[str, float]], rollouts: float, key: str = "sampled") -> float:
    """A curve's height at some rollouts, in a line between the evaluations on either side."""
    for before, after in pairwise(points):
        if rollouts <= after["rollouts"]:
            share = (rollouts - before["rollouts"]) / (after["rollouts"] - before["rollouts"])
            return before[key] + share * (after[key] - before[key])
    return points[-1][key]


def figure(values: Sequence[float]) -> Figure:
    """Mean over seeds with its 95 % interval."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "standard_error": None, "seeds": list(values)}
    error = stdev(values) / n**0.5
    reach = _T[min(n - 1, len(_T)) - 1] * error
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "standard_error": error, "seeds": list(values)}


def _reached(ran: Ran, points: Sequence[Sequence[Mapping[str, float]]], budget: float) -> dict[str, Any]:
    """Of an algorithm.

    Returns:
        dense, rollouts (of a run in the mean), equal (sampled accuracy at the common budget, a `Figure`), early (at a
        third of it), sampled_before, sampled_after, greedy_before, greedy_after, worst (the lowest seed's
        sampled_after), spread (standard deviation over seeds, the mean of all evaluations but the first; None for one
        seed), fall (the most that a run ended below its best evaluation), alarms (of each run), curve (per evaluation
        update, rollouts, and sampled and greedy accuracy of each seed).
    """
    told: dict[str, Any] = {
        "dense": ran.dense,
        "rollouts": fmean(of[-1]["rollouts"] for of in points),
        "equal": figure([at(of, budget) for of in points]),
        "early": figure([at(of, budget / 3) for of in points]),
    }
    for when in ("before", "after"):
        for how in ("greedy", "sampled"):
            told[f"{how}_{when}"] = figure([fmean(summary["held_out"][when][how]) for summary in ran.summaries])
    together = [
        {"update": of[0]["update"], "rollouts": fmean(one["rollouts"] for one in of),
         **{key: [one[key] for one in of] for key in ("sampled", "greedy")}}
        for of in zip(*points, strict=False)
    ]  # fmt: skip
    told["worst"] = min(told["sampled_after"]["seeds"])
    several = len(points) > 1 and len(together) > 1
    told["spread"] = fmean(stdev(one["sampled"]) for one in together[1:]) if several else None
    told["fall"] = max(max(one["sampled"] for one in of) - of[-1]["sampled"] for of in points)
    told["alarms"] = [summary["alarms"] for summary in ran.summaries]
    return told | {"curve": together}


Reached = Mapping[str, Mapping[str, Any]]
Verdict = tuple[str, str]
_NOT_RUN = ("not run", "")

_FACTOR = 2.0
"""Times by which two spreads over a few seeds must differ to say anything."""


def claims(reached: Reached) -> list[dict[str, str]]:
    """What the handbook claims, against what these runs show.

    A verdict is "holds" where the figures say so beyond their noise, "does not hold" where they say the contrary beyond
    it, "undecided" where noise explains them either way, and "not run" where an algorithm is missing.
    """
    judged = [(claim, judge(reached)) for claim, judge in _CLAIMS]
    return [{"claim": claim, "verdict": verdict, "figures": figures} for claim, (verdict, figures) in judged]


def _dense_beats_outcome(reached: Reached) -> Verdict:
    parts = [[one["equal"]["seeds"] for one in reached.values() if one["dense"] is dense] for dense in (True, False)]
    if not all(parts):
        return _NOT_RUN
    # The median: one algorithm whose loss is broken says nothing about its rewards.
    dense, outcome = ([median(seeds) for seeds in zip(*part, strict=True)] for part in parts)
    words = (
        f"median of {len(parts[0])} rewarded for steps {fmean(dense):.3f}, of {len(parts[1])} for outcomes alone "
        f"{fmean(outcome):.3f}"
    )
    return _judged(figure([a - b for a, b in zip(dense, outcome, strict=True)]), words)


def _best(name: str) -> Callable[[Reached], Verdict]:
    def judge(reached: Reached) -> Verdict:
        if name not in reached or len(reached) < 2:
            return _NOT_RUN
        rest = {other: one for other, one in reached.items() if other != name}
        best = max(rest, key=lambda other: float(rest[other]["equal"]["mean"]))
        own, its = (reached[one]["equal"] for one in (name, best))
        gain = figure([a - b for a, b in zip(own["seeds"], its["seeds"], strict=True)])
        return _judged(gain, f"{own['mean']:.3f}, {best} {its['mean']:.3f}")

    return judge


def _fast_but_unstable(reached: Reached) -> Verdict:
    own, rest = reached.get("dapo"), [one for name, one in reached.items() if name != "dapo"]
    if own is None or not rest:
        return _NOT_RUN
    others = [median(seeds) for seeds in zip(*(one["early"]["seeds"] for one in rest), strict=True)]
    gain = figure([a - b for a, b in zip(own["early"]["seeds"], others, strict=True)])
    words = f"after a third of the rollouts {own['early']['mean']:.3f}, median of the others {fmean(others):.3f}"
    parts = _judged(gain, words), _spread(own, rest, 1)
    verdicts = [verdict for verdict, _ in parts]
    verdict = next((one for one in ("not run", "does not hold", "undecided") if one in verdicts), "holds")
    return verdict, "; ".join(words for _, words in parts)


def _steady(name: str, than: Callable[[Sequence[float]], float]) -> Callable[[Reached], Verdict]:
    def judge(reached: Reached) -> Verdict:
        rest = [one for other, one in reached.items() if other != name]
        return _spread(reached[name], rest, -1, than) if name in reached and rest else _NOT_RUN

    return judge


def _spread(
    own: Mapping[str, Any],
    rest: Sequence[Mapping[str, Any]],
    sign: int,
    than: Callable[[Sequence[float]], float] = median,
) -> Verdict:
    """Whether an algorithm's spread over seeds is larger (sign 1) or smaller (-1) than that of the others."""
    if own["spread"] is None or any(one["spread"] is None for one in rest):
        return "undecided", "one seed has no spread"
    other = than([one["spread"] for one in rest])
    words = f"spread over seeds {own['spread']:.3f}, {'least' if than is min else 'median'} of the others {other:.3f}"
    larger, smaller = (own["spread"], other) if sign > 0 else (other, own["spread"])
    if smaller > _FACTOR * larger:
        return "does not hold", words
    return ("holds" if larger > _FACTOR * smaller else "undecided"), words


def _judged(gain: Figure, words: str) -> Verdict:
    verdict = "undecided"
    if gain["low"] is not None and not gain["low"] <= 0 <= gain["high"]:
        verdict = "holds" if gain["mean"] > 0 else "does not hold"
    around = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f} over seeds)"
    return verdict, f"{words}; difference {gain['mean']:+.3f}{around}"


_CLAIMS: Sequence[tuple[str, Callable[[Reached], Verdict]]] = (
    ("dense rewards beat outcomes alone", _dense_beats_outcome),
    ("gfpo is best on reasoning", _best("gfpo")),
    ("gfpo-anchored, its corrected form, is", _best("gfpo-anchored")),
    ("dapo is fast but unstable", _fast_but_unstable),
    ("vapo is steady", _steady("vapo", median)),
    ("srpo is the most stable", _steady("srpo", min)),
)
