r"""RLHFlow's multi-turn chat: each user turn a step (the first: problem and step), each assistant turn its label.

Where the problem ends in the first turn is not marked: see `prm_kit.formats.tagged.cut_problem`. For files joined by a
blank line (made from solutions that were split at blank lines) set first_step to "" and problem_separator to "\n\n".
The best-of-n sets (`prompt`, `answers`, `label` or `labels`) are read too: solutions without steps, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_text, hard_labels, single
from prm_kit.formats.tagged import TaggedLayout, cut_problem
from prm_kit.records import Annotation, LabelValue, Solution


class RlhflowLayout(Layout):
    """Options.

    Attributes:
        problem_separator: What stands between the problem and the first step.
        first_step: How the first step begins; "" where nothing says so, then the last `problem_separator` counts.
        separator: What stands between two steps of the completion.
        positive: The label of a right step.
        negative: The label of a wrong one.
    """

    problem_separator: str = " "
    first_step: str = "Step 1:"
    separator: str = "\n"
    positive: str = "+"
    negative: str = "-"


def read_row(row: Row, layout: RlhflowLayout) -> Reading:
    """One conversation, one solution; one best-of-n row, one solution an answer."""
    if "answers" in row.value:
        return _best_of_n(row, layout)
    turns = row.array("conversations")
    users: list[str] = []
    labels: list[str] = []
    for index, turn in enumerate(turns):
        role = ("user", "assistant")[index % 2]
        if not isinstance(turn, dict) or turn.get("role") != role:
            raise InputError(f"conversations[{index}]: not a turn of the {role}")
        (users, labels)[index % 2].append(as_text(turn, "content"))
    if not labels or len(users) != len(labels):
        raise InputError("conversations: the last step has no label")
    wrong = next((i for i, label in enumerate(labels) if label not in (layout.positive, layout.negative)), None)
    if wrong is not None:
        raise InputError(f"conversations[{2 * wrong + 1}]: neither {layout.positive!r} nor {layout.negative!r}")
    cut = TaggedLayout(problem_separator=layout.problem_separator, first_step=layout.first_step)
    problem, first = cut_problem(users[0], cut)
    solution = Solution.from_steps(problem, [first, *users[1:]], layout.separator, **layout.fields("rlhflow", row))
    values: list[LabelValue] = [1 if label == layout.positive else -1 for label in labels]
    annotation = Annotation(solution.id, layout.rater("import", "rlhflow"), hard_labels(solution, values))
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update(labels)
    return reading


def _best_of_n(row: Row, layout: RlhflowLayout) -> Reading:
    answers = row.texts("answers")
    key = "labels" if "labels" in row.value else "label"
    labels = row.array(key)
    if len(labels) != len(answers) or any(label not in (0, 1) for label in labels):
        raise InputError(f"{key}: not one 0 or 1 for each of {len(answers)} answers")
    reading = Reading()
    for sample, (answer, label) in enumerate(zip(answers, labels, strict=True)):
        fields = layout.fields("rlhflow", row, sample=sample)
        reading.items.append(Item(Solution(row.text("prompt"), answer, (), is_correct=bool(label), **fields), ()))
    reading.seen.update(f"answer {int(label)}" for label in labels)
    return reading


def write_rows(group: Sequence[Judged], layout: RlhflowLayout) -> dict[str, Any]:
    """One solution, one conversation."""
    solution, _, folded = single(group)
    first, *later = solution.steps
    turns = []
    users = [solution.problem + layout.problem_separator + first, *later]
    for text, target in zip(users, folded.targets, strict=True):
        turns.append({"role": "user", "content": text})
        turns.append({"role": "assistant", "content": layout.positive if target == 1 else layout.negative})
    return {"conversations": turns}


RLHFLOW = Format(
    name="rlhflow",
    about="RLHFlow: a chat with a step per user turn and + or - per assistant turn; its best-of-n sets",
    layout=RlhflowLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(),
)
