"""From the sources of a recipe (or the arguments of a verb) to labelled solutions: import, filter, hold out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.recipe import Source
from prm_kit.errors import InputError, UsageError

if TYPE_CHECKING:
    from prm_kit.records import Labelled, Solution


def source_files(source: Source, root: Path | None) -> list[str]:
    """Resolve the paths of a source: globs below `root`, hub ids as they are.

    Raises:
        UsageError: A path or glob matches nothing.
    """
    found: list[str] = []
    for pattern in source.paths:
        if pattern.startswith("hf://"):
            found.append(pattern)
            continue
        base = Path(pattern).expanduser()
        if not base.is_absolute():
            base = (root or Path()) / base
        matches = sorted(base.parent.glob(base.name)) if any(c in base.name for c in "*?[") else [base]
        if not matches or not matches[0].exists():
            raise UsageError(f"{base}: no such file; set `root=DIR` (or the source's `paths`) to where the data lies")
        found += [str(path) for path in matches]
    return found


def is_snapshot(path: str | Path) -> bool:
    """Whether the path is a directory that `prm-kit import` made."""
    return (Path(path) / "manifest.json").is_file()


def labelled_solutions(
    snapshots: Sequence[Path], ledger: Path | None = None, rater_kinds: Sequence[str] = ()
) -> list[Labelled]:
    """Every annotation that labels at least one step, with its solution, from snapshots and a ledger.

    Raises:
        InputError: There is none.
    """
    from prm_kit.view import View

    found = [
        pair
        for pair in View(snapshots, ledger).labelled(rater_kinds=list(rater_kinds) or None)
        if pair.annotation.labels
    ]
    if not found:
        kinds = f" by raters of kind {', '.join(rater_kinds)}" if rater_kinds else ""
        raise InputError(f"no labelled solution{kinds} in {', '.join(map(str, snapshots))}")
    return found


def evaluated_rows(
    snapshots: Sequence[Path], ledger: Path | None = None, rater_kinds: Sequence[str] = ()
) -> list[Labelled]:
    """What an evaluation reads: every labelled solution, and with an empty annotation those there are to pick from.

    The latter are solutions of known outcome without labels, of a problem with several of known outcome.

    Raises:
        InputError: There is neither.
    """
    from prm_kit.records import Annotation, Labelled, Rater
    from prm_kit.view import View

    pairs = View(snapshots, ledger).labelled(rater_kinds=list(rater_kinds) or None)
    found = [pair for pair in pairs if pair.annotation.labels]
    labelled = {pair.solution.id for pair in found}
    known = {one.id: one for one in solutions(snapshots) if one.is_correct is not None}
    several = Counter(one.problem for one in known.values())
    rater = Rater("import", "final-answer")
    more = [one for one in known.values() if one.id not in labelled and several[one.problem] > 1]
    found += [Labelled(one, Annotation(one.id, rater, ())) for one in more]
    if not found:
        kinds = f" by raters of kind {', '.join(rater_kinds)}" if rater_kinds else ""
        raise InputError(f"no labelled solution{kinds}, and no outcomes, in {', '.join(map(str, snapshots))}")
    return found


def outcome_rows(snapshots: Sequence[Path]) -> list[Labelled]:
    """Solutions whose final answer is known to be right or wrong, with an empty annotation: data for an ORM.

    Raises:
        InputError: There is none.
    """
    from prm_kit.records import Annotation, Labelled, Rater

    rater = Rater("import", "final-answer")
    found = [
        Labelled(solution, Annotation(solution.id, rater, ()))
        for solution in solutions(snapshots)
        if solution.is_correct is not None
    ]
    if not found:
        raise InputError(f"no solution with a known outcome in {', '.join(map(str, snapshots))}")
    return found


def solutions(snapshots: Iterable[Path]) -> Iterable[Solution]:
    """Every solution of the snapshots."""
    from prm_kit.view import View

    return View(snapshots).iter_solutions()


def snapshots_of(
    inputs: Sequence[str | Path],
    imported: Path,
    progress: Callable[..., None] | None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Snapshot directories as they are; files and hf://... (format told from the first row) imported below `imported`.

    A folder is named after the whole path: two files of one name in two folders are two data sets. `options` are those
    of a format's reader, by the format's name.
    """
    from prm_kit.files import value_sha256
    from prm_kit.formats.hub import is_dataset
    from prm_kit.importing import format_of_inputs

    found = []
    for given in map(str, inputs):
        if is_snapshot(given):
            found.append(Path(given))
            continue
        place = given if is_dataset(given) else str(Path(given).resolve())
        target = imported / f"{Path(given).name.replace(':', '-')}-{value_sha256(place)[:8]}"
        source = Source(paths=[given])
        if options:
            name = format_of_inputs(source_files(source, None)).name
            source = Source(paths=[given], format=name, options=dict(options.get(name, {})))
        import_source(source, None, target, progress)
        found.append(target)
    return found


def hold_out(rows: Sequence[Labelled], fraction: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Split by problem into (rest, held out): the same problem is never on both sides.

    Raises:
        InputError: One side is empty.
    """
    from prm_kit.view import split_by_problem

    parts = split_by_problem(rows, {"rest": 1 - fraction, "held_out": fraction}, seed)
    if not parts["rest"] or not parts["held_out"]:
        raise InputError(f"holding out {fraction:.0%} of the problems leaves one side empty; give development data")
    return parts["rest"], parts["held_out"]


def without_problems_of(rows: Sequence[Labelled], evaluation: Sequence[Labelled]) -> tuple[list[Labelled], int]:
    """Remove rows whose problem is also evaluated on; return the rest and the number removed.

    Problems are the same when their texts are equal after folding case and white space.
    """
    from prm_kit.view import problem_key

    seen = {problem_key(pair.solution.problem) for pair in evaluation}
    kept = [pair for pair in rows if problem_key(pair.solution.problem) not in seen]
    return kept, len(rows) - len(kept)


def import_source(source: Source, root: Path | None, out: Path, progress: Callable[..., None] | None) -> dict[str, Any]:
    """Import a source into the snapshot directory `out`; return the counts."""
    from prm_kit.importing import import_data

    return import_data(
        source.format,
        source_files(source, root),
        out,
        options=source.options,
        max_reject_share=source.max_reject_share,
        limit=source.limit,
        progress=progress,
    )
