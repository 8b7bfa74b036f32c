"""Tables of an evaluation beyond its steps: best-of-N, PRMBench, temperature, length, contamination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.report.tables import DASH, Cell, Row, Table, by_scorer, plain, roles_of, share, signed

_SHOWN_OVERLAPS = 200
_CLIP = 160


def selection_rows(data: Mapping[str, Any]) -> Table:
    """Picking one of N solutions by each score, beside random, majority and oracle."""
    return _picks(data, "selection", "Best of N", {"random", "majority", "oracle", "best"}, detail=False)


def vote_rows(data: Mapping[str, Any]) -> Table:
    """Majority votes weighed by each score."""
    return _picks(data, "votes", "Votes weighed by scores", {"random", "majority", "oracle", "vote"}, detail=True)


def prmbench_rows(data: Mapping[str, Any]) -> Table:
    """PRMScore as its leaderboard has it: overall, by category and by class of errors."""
    from prm_kit.evaluate.prmbench import CATEGORIES

    columns = [("overall", "PRMScore over the steps of all classes together")]
    for category, classes in CATEGORIES.items():
        columns += [(category, f"plain mean over {', '.join(classes)}")]
        columns += [(short, f"PRMScore of {name}") for name, short in classes.items()]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        made = [share(found["overall"]["prmscore"])]
        for category, classes in CATEGORIES.items():
            made.append(share(found["categories"][category]["prmscore"]))
            made += [share(found["classes"][name]["prmscore"]) for name in classes]
        return made

    solutions = next((found["solutions"] for found in data["prmbench"].values()), 0)
    note = (
        f"PRMScore over {solutions:,} modified solutions: the mean of F1 and negative F1 of steps; F1 alone for MS, "
        "which has no error. A step is called wrong below the scorer's threshold (first-error table)."
    )
    return by_scorer(data, "prmbench", "PRMBench", note, columns, "prmbench", cells)


def prmbench_field_rows(data: Mapping[str, Any]) -> Table:
    """The further fields of PRMBench over all classes."""
    columns = [
        ("F1", "F1 of steps, right steps being the positive class"),
        ("negative F1", "F1 of steps, errors being the positive class"),
        ("steps", "steps called what they are"),
        ("right steps", "right steps called right"),
        ("errors", "errors called wrong"),
        ("first error", "solutions whose first error is called wrong"),
        ("similarity", "mean difference of the share of steps called right, modified against original solution"),
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        keys = ("f1", "negative_f1", "step_accuracy", "right_step_accuracy", "error_step_accuracy",
                "first_error_accuracy", "similarity")  # fmt: skip
        return [share(found["overall"][key]) for key in keys]

    note = "Over all classes together. Similarity needs the original solutions."
    return by_scorer(data, "prmbench-fields", "PRMBench, further fields", note, columns, "prmbench", cells, detail=True)


def calibrated_rows(data: Mapping[str, Any]) -> Table:
    """Calibration before and after the temperature."""
    columns = [("temperature", "fitted on the development split; above 1 softens")]
    for key, words in (("brier", "Brier"), ("nll", "NLL"), ("-1", f"ECE {signed(-1, 0)}"), ("1", "ECE +1")):
        columns += [(f"{words} before", f"{key}: as scored"), (f"{words} after", f"{key}: at the temperature")]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        before = data["calibration"][next(name for name, one in data["calibration_after"].items() if one is found)]
        made = [Cell(f"{found['temperature']['value']:.3g}")]
        for key in ("brier", "nll"):
            made += [plain(before[key]), plain(found[key])]
        for label in ("-1", "1"):
            made += [share(one["classes"][label]["ece_equal_mass"]) for one in (before, found)]
        return made

    split = data["data"]["threshold_split"]
    note = (
        f"Temperatures are fitted on {split}, never on the evaluated steps. Lower is better; calibration errors in "
        "percent, over bins of equal mass."
    )
    title = "Calibration before and after temperature scaling"
    return by_scorer(data, "calibrated", title, note, columns, "calibration_after", cells)


def length_rows(data: Mapping[str, Any]) -> Table:
    """Rank correlation of solution scores with length."""
    from prm_kit.aggregate import AGGREGATIONS

    columns = [
        (f"{how}, {of}", f"rank correlation of the {how} with the number of {of}")
        for how in AGGREGATIONS
        for of in ("steps", "tokens")
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [_rho(found[how][f"{of}_without_error"]) for how in AGGREGATIONS for of in ("steps", "tokens")]

    n = max((one["min"]["steps_without_error"]["n"] for one in data["length"].values()), default=0)
    note = (
        f"Spearman's rho of the solution score with its length over the {n:,} solutions without an error, "
        f"{signed(-1, 0)} to +1: there, length says nothing of worth. Over all solutions: see the JSON."
    )
    return by_scorer(data, "length", "Scores and length", note, columns, "length", cells, detail=True)


def contamination_rows(data: Mapping[str, Any]) -> Table:
    """How many evaluated problems and solutions training texts hold."""
    found = data["contamination"]
    columns = [
        ("evaluated", "different texts"),
        ("share a run", "with a run of words in common with a training text of the same kind, or the same"),
        ("same text", "equal to a training text after folding case and white space"),
        ("too short", "fewer words than a run: only found as the same text"),
        ("trained on", "different training texts"),
    ]
    keys = ("evaluated", "sharing", "exact", "too_short", "trained_on")
    rows = [
        Row(kind, False, [Cell(f"{found[kind][key]:,}") for key in keys])
        for kind in (("problems", "solutions") if found else ())
    ]
    note = f"Runs of {found['words']} words in training problems and training solutions." if found else ""
    return Table("contamination", "Contamination", note, columns, rows, of="kind")


def overlap_rows(data: Mapping[str, Any]) -> Table:
    """The evaluated problems that training problems hold, the most shared first."""
    listed: Sequence[Mapping[str, Any]] = data["contamination"]["problems"]["listed"] if data["contamination"] else ()
    columns = [("shared, %", "share of its runs of words"), ("first shared run", ""), ("training problem", "")]
    rows = [
        Row(
            _clipped(one["key"]),
            False,
            [
                Cell(f"{100 * one['share']:.1f}"),
                Cell(one["words"] or ("the same text" if one["exact"] else DASH)),
                Cell(_clipped(one["training"])),
            ],
        )
        for one in listed[:_SHOWN_OVERLAPS]
    ]
    note = f"{min(len(listed), _SHOWN_OVERLAPS):,} of {len(listed):,} evaluated problems; all are in the JSON."
    return Table("overlaps", "Shared problems", note, columns, rows, detail=True, of="evaluated problem")


def _picks(data: Mapping[str, Any], key: str, title: str, picks: set[str], detail: bool) -> Table:
    found = data["best_of_n"]
    if not found or not any(line["pick"] in picks - {"random", "majority", "oracle"} for line in found["lines"]):
        return Table(key, title, "", [], [])
    columns = [
        (f"N = {size}", f"over {problems:,} problems")
        for size, problems in zip(found["sizes"], found["problems"], strict=True)
    ]
    roles = roles_of(data)
    rows = [
        Row(line["name"], roles.get(line["scorer"], True), [share(figure) for figure in line["figures"]])
        for line in found["lines"]
        if line["pick"] in picks
    ]
    note = (
        f"Percent of problems answered rightly by one pick of N, over {found['candidates']:,} solutions; a mean over "
        "all choices of N. Random is pass@1, oracle pass@N: no pick can do better."
    )
    return Table(key, title, note, columns, rows, detail, of="pick")


def _rho(figure: Mapping[str, Any]) -> Cell:
    if figure["value"] is None:
        return Cell(DASH)
    interval = f"{signed(figure['low'])} to {signed(figure['high'])}" if figure["low"] is not None else ""
    return Cell(signed(figure["value"]), interval)


def _clipped(text: str) -> str:
    return text if len(text) <= _CLIP else f"{text[: _CLIP - 1]}…"
