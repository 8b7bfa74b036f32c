"""The figures of a reinforcement-learning run, from the lines of its metrics.jsonl; the empty ones are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.report.curves import Curve, curves
from prm_kit.report.html import Figure

Line = Mapping[str, Any]

_SHAPES = ("model", "right", "wrong", "neutral", "model dashed", "right dashed", "wrong dashed", "neutral dashed")
_Z = 1.96


def run_figures(train: Sequence[Line], held_out: Sequence[Line], alarms: Sequence[Line]) -> list[Figure]:
    """Every figure that there is something of.

    Args:
        train: A line of each update that learnt something.
        held_out: A line of each evaluation on held-out problems.
        alarms: The first of each name, with the "update" that raised it: upright rules.
    """
    marks = sorted({alarm["update"] for alarm in alarms})
    found = [
        _accuracy(train, held_out, marks),
        _process_against_accuracy(train, held_out),
        _process(train, held_out, marks),
    ]
    found += [_several(train, marks, *asked) for asked in _SEVERAL]
    return [figure for figure in found if figure is not None]


def of(lines: Sequence[Line], key: str, words: str, kind: str, shape: str = "") -> Curve | None:
    """A figure of some lines as a curve with its 95 % interval; None where no line has it."""
    known = [line for line in lines if isinstance(line.get(key), int | float)]
    if not known:
        return None
    points = [(float(line["update"]), float(line[key])) for line in known]
    errors = [line.get(f"{key}_error", line.get("errors", {}).get(key)) for line in known]
    reach = [
        (x, y - _Z * error, y + _Z * error) for (x, y), error in zip(points, errors, strict=True) if error is not None
    ]
    return Curve(words, kind, points, reach, shape, whiskers=bool(shape))


def figure(title: str, drawn: Sequence[Curve | None], y_label: str, marks: Sequence[float], caption: str = "",
           y: tuple[float, float] | None = None) -> Figure | None:  # fmt: skip
    """Curves over updates with their legend; None without any."""
    there = [curve for curve in drawn if curve is not None]
    if not there:
        return None
    keys = [(curve.kind, curve.shape, curve.words) for curve in there]
    return Figure(title, curves(title, there, "update", y_label, marks=marks, y=y), keys, caption)


def _accuracy(train: Sequence[Line], held_out: Sequence[Line], marks: Sequence[float]) -> Figure | None:
    return figure(
        "Accuracy",
        [
            of(train, "accuracy", "training rollouts", "neutral"),
            of(held_out, "greedy", "held out, greedy", "right", "square"),
            of(held_out, "sampled", "held out, sampled", "model", "circle"),
        ],
        "share right",
        marks,
        "Bands and whiskers: 95 % over groups or problems. Dashed upright: an alarm was first raised.",
    )


def _process(train: Sequence[Line], held_out: Sequence[Line], marks: Sequence[float]) -> Figure | None:
    return figure(
        "Process reward",
        [
            of(train, "process", "training rollouts", "neutral"),
            of(held_out, "process", "held out, sampled", "model", "circle"),
        ],
        "0 to 1",
        marks,
    )


def _process_against_accuracy(train: Sequence[Line], held_out: Sequence[Line]) -> Figure | None:
    """A path through the evaluations; where those say nothing of the PRM, through tenths of the training."""
    title, key = "What the PRM says against what is right", "sampled"
    known = [line for line in held_out if line.get("process") is not None]
    where = "held-out problems"
    if len(known) < 2:
        both = [line for line in train if line.get("process") is not None and line.get("accuracy") is not None]
        size = max(1, len(both) // 10)
        parts = [both[start : start + size] for start in range(0, len(both) - size + 1, size)]
        known = [{"update": part[0]["update"], **{name: sum(line[name] for line in part) / len(part)
                  for name in ("process", "accuracy")}} for part in parts]  # fmt: skip
        key, where = "accuracy", "training rollouts"
    if len(known) < 2:
        return None
    points = [(float(line[key]), float(line["process"])) for line in known]
    path = Curve("on the way", "neutral", points, shape="circle")
    ends = [
        Curve("at the start", "right", points[:1], shape="square"),
        Curve("now", "model", points[-1:], shape="triangle"),
    ]
    plot = curves(title, [path, *ends], f"accuracy, {where}", "process reward")
    caption = "Up and to the right is learning; up and to the left is a policy that has found what the PRM likes."
    return Figure(title, plot, [(one.kind, one.shape, one.words) for one in (path, *ends)], caption)


def _several(train: Sequence[Line], marks: Sequence[float], title: str, y_label: str, named: Mapping[str, str],
             about: str = "") -> Figure | None:  # fmt: skip
    # A curve that never leaves 0, be it by rounding, says nothing.
    there = [(key, words) for key, words in named.items() if any(abs(line.get(key) or 0) > 1e-9 for line in train)]
    drawn = [of(train, key, words, kind) for (key, words), kind in zip(there, _SHAPES, strict=False)]
    return figure(title, drawn, y_label, marks, about)


_SEVERAL: Sequence[tuple[str, str, Mapping[str, str], str] | tuple[str, str, Mapping[str, str]]] = (
    ("Reward and its parts", "reward", {"reward": "composed", "final": "final", "format": "format", "length": "length"},
     "Parts are unweighed."),
    ("Steps of a solution", "steps", {"steps": "steps"}),
    ("Length", "tokens", {"tokens": "tokens of a completion", "step_tokens": "tokens of a step"}),
    ("Ways of writing", "share", {"repetition": "steps said before", "one_step": "completions of one step",
     "self_correction": "completions with \u201cWait, ...\u201d"}),
    ("Entropy", "nats per token", {"entropy": "of what was sampled"}),
    ("KL", "nats per token", {"kl": "to the reference policy", "kl_update": "within an update"}),
    ("Groups without signal", "share", {"no_signal": "all rewarded alike"}),
    ("Gradient norm", "before clipping", {"gradient_norm": "policy", "gradient_norm_value": "value model"}),
    ("Clipped tokens", "share", {"clip_share": "ratio outside of the range"}),
    ("Loss", "loss", {"loss": "policy", "loss_pairs": "pairs", "loss_value": "value model"}),
    ("Learning rate", "", {"learning_rate": "policy"}),
    ("Weight of the process reward", "", {"process_weight": "weight"}),
)  # fmt: skip
