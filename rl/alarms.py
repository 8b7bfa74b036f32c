"""Alarms: what the last updates look like beside the first ones, and beside those before them, in plain sentences.

A figure has moved where the difference of two means of updates is more than noise (`SURE` standard errors, see
`rl.changes`) and more than a trifle. Of runs of 60 updates in which nothing but noise moves about one in thirty
raises an alarm; longer runs, which are looked at more often, are asked for more (`enough`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from rl.changes import Change, Line, change

WINDOW = 10
"""Updates that are averaged on either side of a comparison; never more than a third of those that there are."""

FEWEST = 9
"""Updates before which nothing is said."""

SURE = 3.5
"""Standard errors that a figure on its own must have moved, in a run of `SHORT` updates at most."""

SHORT = 60
"""Updates beyond which each further look needs more, so that many looks do not raise what one would not."""

LIKELY = 2.0
"""Standard errors that each of two figures must have moved that are read together."""


@dataclass(frozen=True)
class Alarm:
    """What is wrong.

    Attributes:
        name: Of the alarm; the same as long as it lasts.
        kind: "prm": the policy serves the PRM instead of the problem; "policy": it comes apart; "signal": there is
            little to learn from.
        began: Update at which the figure broke.
        text: A sentence with the numbers, and what to try.
    """

    name: str
    kind: Literal["prm", "policy", "signal"]
    began: int
    text: str


Changes = Callable[[str], Change | None]
"""How a figure has changed between the two windows that are compared; None where one of them lacks it."""


def alarms(lines: Sequence[Line], held_out: Sequence[Line] = ()) -> list[Alarm]:
    """Everything that looks wrong now; nothing is the good case.

    Args:
        lines: One of each update that trained, oldest first, as `rl.update_metrics.update_line` makes them; a figure
            that is missing or None is no figure.
        held_out: Evaluations on held-out problems, oldest first, as `rl.held_out.held_out_line` makes them.

    Returns:
        One alarm of a name at most: what held-out problems show before what the start of the run shows, and that
        before what the window before shows.
    """
    found = {alarm.name: alarm for alarm in _held_out(held_out)}
    width = min(WINDOW, len(lines) // 3)
    starts = () if len(lines) < FEWEST else (0,) if width < WINDOW // 2 else (0, len(lines) - 2 * width)
    for start in starts:

        @cache
        def changes(key: str, start: int = start) -> Change | None:
            return change(lines, key, start, width)

        for rule in _RULES:
            for alarm in rule(changes, enough(len(lines))):
                found.setdefault(alarm.name, alarm)
    return list(found.values())


def enough(updates: int) -> float:
    """Standard errors that a figure must have moved: looks at noise that pass grow rarer as looks grow in number."""
    return math.sqrt(SURE**2 + 2 * math.log(max(1.0, updates / SHORT)))


def raised_by(line: Line, trained: Sequence[Line], evaluated: Sequence[Line]) -> list[dict[str, Any]]:
    """The alarms that the last of some lines raises: what an evaluation shows it says once, not with every update."""
    return [asdict(alarm) for alarm in alarms(trained, evaluated if line["part"] == "held_out" else ())]


def first_alarms(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The first alarm of each name in the "alarms" of some lines, with the "update" that raised it, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        for alarm in line.get("alarms", ()):
            found.setdefault(alarm["name"], {"update": line["update"], **alarm})
    return list(found.values())


def raised(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """`first_alarms` of a whole metrics.jsonl, as today's rules raise them."""
    told: list[Line] = []
    parts: dict[str, list[Line]] = {"train": [], "held_out": []}
    for line in lines:
        if "skipped" not in line:
            parts[line["part"]].append(line)
            told.append({**line, "alarms": raised_by(line, parts["train"], parts["held_out"])})
    return first_alarms(told)


def _outcome(changes: Changes, sure: float) -> Iterator[Alarm]:
    """Accuracy falls, and with it or against it what is rewarded."""
    accuracy, process, reward = changes("accuracy"), changes("process"), changes("reward")
    gap = changes("process_gap")  # problems that are easy are easy for both: the difference is the quieter figure
    pleased = process is not None and process.moved > 0.02 and process.sigmas > LIKELY
    if process and pleased and accuracy and not _risen(changes) and gap and gap.sigmas > sure:
        yield Alarm(
            "process against accuracy",
            "prm",
            gap.began,
            f"the process reward rises ({process.said()}) and accuracy does not ({accuracy.said()}): the policy has "
            "found what the PRM likes. Try a smaller process weight, min-form credit, a PRM that has seen such "
            "solutions",
        )
    if accuracy and accuracy.moved < -0.05 and accuracy.sigmas < -sure:
        yield Alarm("accuracy", "policy", accuracy.began, f"accuracy fell ({accuracy.said()}). {_GENTLER}")
    weight = changes("process_weight")
    same = weight is None or weight.before == weight.now  # another reward is no lower reward
    if reward and same and reward.moved < 0 and reward.sigmas < -sure:
        yield Alarm(
            "reward",
            "policy",
            reward.began,
            f"the reward falls, which the updates are to raise ({reward.said()}): what is learnt is not what is "
            f"rewarded. {_GENTLER}",
        )


_GENTLER = "Try a lower learning rate, an anchored or clipped loss, a KL to the reference"


def _distribution(changes: Changes, sure: float) -> Iterator[Alarm]:
    """Entropy and divergences."""
    entropy = changes("entropy")
    if entropy and entropy.sigmas > sure and entropy.ratio > 1.2 and not _risen(changes):
        yield Alarm(
            "entropy rises",
            "policy",
            entropy.began,
            f"entropy rises ({entropy.said('.3f', ' nats per token')}) and accuracy does not: the policy comes apart. "
            f"{_GENTLER}",
        )
    if entropy and entropy.sigmas < -sure and entropy.ratio < 0.3:
        yield Alarm(
            "entropy collapses",
            "policy",
            entropy.began,
            f"entropy collapses ({entropy.said('.3f', ' nats per token')}): all rollouts of a problem say the same. "
            "Try clip-higher, an entropy bonus, a lower learning rate",
        )
    for key, of, limit in (("kl", "the reference policy", 0.3), ("kl_update", "the policy that sampled", 0.1)):
        kl = changes(key)
        if kl and kl.sigmas > sure and kl.now > limit:
            yield Alarm(
                key,
                "policy",
                kl.began,
                f"the policy runs away from {of} ({kl.said('.3f', ' nats per token')}). Try a lower learning rate, "
                "fewer passes, a larger KL weight",
            )


def _shape(changes: Changes, sure: float) -> Iterator[Alarm]:
    """How completions are written: what a PRM can be pleased with, and what a policy that comes apart writes."""
    process = changes("process")
    kind: Literal["prm", "policy"] = "prm" if process and process.sigmas > -LIKELY else "policy"
    for key, more, less in (
        ("steps", "completions have more and more steps", "completions have fewer and fewer steps"),
        ("step_tokens", "steps grow longer", "steps grow shorter"),
    ):
        now = changes(key)
        if now and abs(now.sigmas) > sure and not 0.8 <= now.ratio <= 1.25 and not _risen(changes):
            words = more if now.moved > 0 else less
            yield Alarm(key, kind, now.began, f"{words} ({now.said('.1f')}) and accuracy does not rise. {_READ}")
    for key, words, at_least in (
        ("one_step", "more and more completions have at most one step", 0.1),
        ("repetition", "more and more steps repeat an earlier one", 0.1),
        ("self_correction", "more and more completions correct themselves (\u201cWait, ...\u201d)", 0.2),
    ):
        now = changes(key)
        if now and now.sigmas > sure and now.moved > at_least and not _risen(changes):
            yield Alarm(key, kind, now.began, f"{words} ({now.said('.0%')}) and accuracy does not rise. {_READ}")


_READ = "Read the last rollouts; try credit that length does not move (min-form), a PRM that has seen such solutions"


def _signal(changes: Changes, sure: float) -> Iterator[Alarm]:
    silent = changes("no_signal")
    if silent and silent.sigmas > sure and silent.now > 0.8:
        yield Alarm(
            "no signal",
            "signal",
            silent.began,
            f"most groups teach nothing, all of a group being rewarded alike ({silent.said('.0%')}). Try dynamic "
            "sampling, other problems, larger groups; or the run is done",
        )


def _held_out(evaluations: Sequence[Line]) -> Iterator[Alarm]:
    """The last evaluation beside the best before it, the same problems each with itself."""
    if len(evaluations) < 2:
        return
    now = evaluations[-1]
    fall, error = now.get("sampled_fall"), now.get("sampled_fall_error")
    if fall is None or error is None or fall <= 0.05 or fall <= (enough(len(evaluations)) + 0.5) * error:
        return  # the best of many is the best by chance too
    best = max(evaluations[:-1], key=lambda line: float(line["sampled"]))
    process = now.get("process"), best.get("process")
    words = (
        f"accuracy on held-out problems fell ({best['sampled']:.2f} after update {best['update']}, "
        f"{now['sampled']:.2f} now, {fall / error if error > 0 else math.inf:.1f} standard errors)"
    )
    if None not in process and process[0] > process[1] + 0.02:  # type: ignore[operator]
        text = f"{words} while the process reward on them rises ({process[1]:.2f} to {process[0]:.2f})"
        yield Alarm("process against accuracy", "prm", int(best["update"]), f"{text}. Try a smaller process weight")
    yield Alarm("held-out accuracy", "policy", int(best["update"]), f"{words}. Go back to it. {_GENTLER}")


def _risen(changes: Changes) -> bool:
    """Whether accuracy, or where there is none the reward, has risen: what changes beside it may be what helps."""
    judge = changes("accuracy") or changes("reward")
    return judge is not None and judge.sigmas > LIKELY and judge.moved > 0.02


_RULES: tuple[Callable[[Changes, float], Iterator[Alarm]], ...] = (_outcome, _distribution, _shape, _signal)
