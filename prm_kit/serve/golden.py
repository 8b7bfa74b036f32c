"""Golden scores: what a checkpoint says of sixteen fixed solutions, to hold a server's answers against.

`golden.jsonl` lies in the checkpoint. It holds token ids, because servers of other makes are sent ids and never text
(a text would meet their own template, beginning-of-sequence token and special tokens), and texts for a server of ours.
Light to import: torch is loaded where scores are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from prm_kit.errors import InputError
from prm_kit.files import whole_file
from prm_kit.record_checks import Span
from prm_kit.records import Solution
from prm_kit.score import Probabilities
from prm_kit.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from prm_kit.model import Prm

FILE_NAME = "golden.jsonl"

ACTIVATIONS = {"classes": "softmax", "binary": "softmax", "sigmoid": "sigmoid", "unbounded": "identity"}
"""What servers of other makes make of a head's outputs, by the card's read-out; of others nothing that makes sense."""


class GoldenItem(Settings):
    """One solution and its scores.

    Attributes:
        problem: The problem's text.
        completion: Verbatim text.
        spans: Per step (start, end) as character offsets into the completion.
        ids: Token ids, marks included.
        prompt_length: How many of the first ids are template and problem.
        read_positions: Index into `ids` of each step's mark.
        outputs: Per step the head's outputs after the activation that other servers apply, in the head's order and
            without the card's temperature; null where they apply none that makes sense.
        probabilities: Per step p(-1), p(0), p(+1) as this project says; null where the scores are no probabilities.
        values: Per step p(+1) - p(-1), or the unbounded score.
    """

    problem: str
    completion: str
    spans: list[Span]
    ids: list[int]
    prompt_length: int
    read_positions: list[int]
    outputs: list[list[float]] | None
    probabilities: list[Probabilities | None]
    values: list[float]


def samples() -> list[Solution]:
    """Sixteen short worked sums: right, wrong, in English and Chinese, of one to four steps."""
    made = []
    for n in range(16):
        a, b, c = 3 * n + 12, 7 + 2 * n, n % 5 + 2
        error = n % 3 == 1
        total, product = a + b + error, (a + b + error) * c
        if n % 4 == 3:
            problem = f"计算 ({a} + {b}) × {c}。"
            steps = [f"第1步：{a} + {b} = {total}。", f"第2步：{total} × {c} = {product}。", f"答案：{product}"]
        else:
            problem = f"What is ({a} + {b}) * {c}?"
            steps = [f"Step 1: {a} + {b} = {total}.", f"Step 2: {total} * {c} = {product}.", f"So ${product}$."]
        steps = [*steps, f"The answer is \\boxed{{{product}}}."][: n % 4 + 1]
        made.append(Solution.from_steps(problem, steps, "\n"))
    return made


def write_golden(prm: Prm, folder: str | Path) -> int:
    """Write FOLDER/golden.jsonl; samples that do not fit the PRM's longest sequence are left out.

    Returns:
        How many were written.
    """
    items = golden_items(prm)
    write_items(items, Path(folder))
    return len(items)


def write_items(items: Sequence[GoldenItem], folder: Path) -> None:
    """Write FOLDER/golden.jsonl, one item a line."""
    with whole_file(folder / FILE_NAME) as file:
        file.writelines(item.model_dump_json() + "\n" for item in items)


def read_golden(path: Path) -> list[GoldenItem]:
    """Read a golden file.

    Raises:
        InputError: It is not there, no text, empty, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 text: {error.reason} at byte {error.start}") from None
    items = []
    for number, line in enumerate(lines, 1):
        try:
            items.append(GoldenItem.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {error.errors()[0]['msg']}") from None
    if not items:
        raise InputError(f"{path}: holds no golden scores")
    return items


def golden_items(prm: Prm) -> list[GoldenItem]:
    """Score the samples: the head's outputs by one plain forward each, the rest as `PrmScorer` does."""
    import torch

    from prm_kit.prm_scorer import PrmScorer

    limit = prm.card.max_tokens
    pairs = list(zip(samples(), prm.encoder.encode(samples()), strict=True))
    pairs = [(solution, one) for solution, one in pairs if limit is None or len(one.ids) <= limit]
    scores = PrmScorer(prm).score([solution for solution, _ in pairs])
    items = []
    for (solution, one), score in zip(pairs, scores, strict=True):
        ids_BT = torch.tensor([one.ids], device=prm.device)
        position_N = torch.tensor(one.read_positions, device=prm.device)
        with torch.inference_mode():
            logits_NK = prm.read_logits(ids_BT, None, torch.zeros_like(position_N), position_N)
        outputs_NK = activated(logits_NK, prm.card.readout)
        items.append(
            GoldenItem(
                problem=solution.problem,
                completion=solution.completion,
                spans=list(solution.spans),
                ids=one.ids,
                prompt_length=one.prompt_length,
                read_positions=one.read_positions,
                outputs=None if outputs_NK is None else outputs_NK.tolist(),
                probabilities=list(score.probabilities),
                values=[value for value in score.values if value is not None],
            )
        )
    return items


def activated(logits_NK: Tensor, readout: str) -> Tensor | None:
    """What servers of other makes return for a head's outputs; None where that makes no sense."""
    kind = ACTIVATIONS.get(readout)
    if kind == "softmax":
        return logits_NK.float().softmax(dim=-1)
    if kind == "sigmoid":
        return logits_NK.float().sigmoid()
    return logits_NK.float() if kind == "identity" else None
