"""Evaluation of step scores: step-level metrics, the first-error protocol, calibration, intervals, baselines."""

from prm_kit.evaluate.baselines import trivial_scorers
from prm_kit.evaluate.evaluation import evaluate
from prm_kit.evaluate.first_error import Threshold, choose_threshold, predicted_first_error
from prm_kit.evaluate.inputs import DevSplit

__all__ = ["DevSplit", "Threshold", "choose_threshold", "evaluate", "predicted_first_error", "trivial_scorers"]
