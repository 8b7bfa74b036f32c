"""What step scores say about final answers: does the aggregated score rank right answers above wrong ones?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from prm_kit.aggregate import AGGREGATIONS
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray
from prm_kit.evaluate.length import score_or_nan
from prm_kit.evaluate.metrics import weighted_auroc
from prm_kit.records import Labelled
from prm_kit.score import StepScores


def final_answer_table(
    labelled: Sequence[Labelled], scores: Sequence[StepScores], bootstrap: Bootstrap, problem_L: IntArray
) -> dict[str, Any]:
    """AUROC of the solution score for the final answer, by aggregation (of 1 - p(-1), or of unbounded scores).

    Abstained steps are skipped. Solutions whose final answer nobody checked, and those on which the scorer abstains
    throughout, are left out; `n` counts the rest. None where only one kind of answer remains.
    """
    table: dict[str, Any] = {}
    for how in AGGREGATIONS:
        rows = [
            (score, item.solution.is_correct, problem)
            for item, answer, problem in zip(labelled, scores, problem_L.tolist(), strict=True)
            if item.solution.is_correct is not None and np.isfinite(score := score_or_nan(answer, how))
        ]
        table[how] = _auroc(
            np.array([row[0] for row in rows], dtype=np.float64),
            np.array([row[1] for row in rows], dtype=np.bool_),
            np.array([row[2] for row in rows], dtype=np.int64),
            bootstrap,
        )
    return table


def _auroc(score: FloatArray, right: NDArray[np.bool_], problem: IntArray, bootstrap: Bootstrap) -> dict[str, Any]:
    if right.all() or not right.any():
        return bootstrap.measure(None, np.zeros(0), len(score))
    replicates = bootstrap.of_items(problem, lambda weights: weighted_auroc(score, right, weights))
    return bootstrap.measure(float(roc_auc_score(right, score)), replicates, len(score))
