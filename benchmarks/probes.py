"""What is in a frozen backbone? Heads of every objective on its hidden states, by neutral policy and amount of data.

    python benchmarks/probes.py extract --backbone DIR --cache DIR FILE.jsonl.gz... [--per-subset N]
    python benchmarks/probes.py table --cache DIR --train NAME --test NAME... [--seeds 3] [--out FILE.json]

`extract` runs the backbone once over step-list JSONL and keeps the hidden states of some layers at every step: at the
step mark, where a PRM reads, and at the token before it. `table` trains heads on them (layer, place and weight decay
are chosen by the loss on held-out problems of the training file, the same for all objectives) and measures them on
other files. A head on frozen states is the least that an objective can be compared by: the differences are those of
the losses, not of what the backbone may learn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.evaluate.first_error import NO_ERROR, true_first_errors
from prm_kit.files import value_sha256
from prm_kit.importing import import_data
from prm_kit.model import Prm
from prm_kit.objectives import Objective, StepTargets
from prm_kit.pack import prefix_groups, prefix_tree, prefix_tree_attention
from prm_kit.prefix_labels import with_prefix_labels
from prm_kit.readout import READOUTS
from prm_kit.records import Labelled, Solution
from prm_kit.score import StepScores
from prm_kit.targets import prefix_keys, targets_of
from prm_kit.view import View, split_by_problem

DEPTHS = (0.3, 0.5, 0.7, 0.87, 1.0)
"""Layers whose states are kept, as shares of the depth."""

PLACES = ("token before the mark", "mark")

WEIGHT_DECAYS = (0.001, 0.01, 0.1, 1.0)
"""Of the squared weights of a head on standardised states; the one with the least held-out loss is taken."""

UPDATES = 300
MAX_TOKENS = 1024

ARMS = {
    "cross-entropy, keep": ("cross-entropy", "keep"),
    "cross-entropy, drop": ("cross-entropy", "drop"),
    "ordinal, keep": ("ordinal", "keep"),
    "binary, positive": ("binary", "positive"),
    "binary, negative": ("binary", "negative"),
    "binary, half": ("binary", "half"),
    "binary, drop": ("binary", "drop"),
    "mse, positive": ("mse", "positive"),
    "pqm, positive": ("pqm", "positive"),
}
"""Objective and neutral policy."""

SHARES = (0.03, 0.1, 0.3)
"""Of the training problems, for cross-entropy that keeps the 0."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    extracting = verbs.add_parser("extract")
    extracting.add_argument("--backbone", required=True)
    extracting.add_argument("--per-subset", type=int, help="at most so many solutions of each meta.subset")
    extracting.add_argument("--problems", type=int, help="only so many problems, drawn by the hash of their text")
    extracting.add_argument("files", type=Path, nargs="+")
    tabling = verbs.add_parser("table")
    tabling.add_argument("--train", required=True, help="name of an extracted file")
    tabling.add_argument("--test", required=True, nargs="+")
    tabling.add_argument("--out", type=Path)
    for one in (extracting, tabling):
        one.add_argument("--cache", type=Path, required=True)
    asked = parser.parse_args()
    if asked.verb == "extract":
        for file in asked.files:
            extract(file, asked.backbone, asked.cache, asked.per_subset, asked.problems)
    else:
        found = table(asked.train, asked.test, asked.cache)
        if asked.out:
            asked.out.write_text(json.dumps(found, indent=1))


def name_of(file: Path) -> str:
    return file.name.partition(".")[0]


def extract(file: Path, backbone: str, cache: Path, per_subset: int | None, problems: int | None) -> None:
    """Hidden states of every distinct step of a file, float16 [N, layers, places, D], and the steps' keys.

    Solutions of more than `MAX_TOKENS` are left out and counted.
    """
    cache.mkdir(parents=True, exist_ok=True)
    snapshot = cache / name_of(file)
    if not snapshot.exists():
        import_data("steps", [str(file)], snapshot)
    prm = Prm.from_backbone(backbone, max_tokens=MAX_TOKENS, dtype=torch.bfloat16)
    prm.model.eval()
    layers = sorted({round(depth * prm.model.config.num_hidden_layers) for depth in DEPTHS})
    solutions = chosen(list(View([snapshot]).iter_solutions()), per_subset, problems)
    states: dict[bytes, np.ndarray] = {}
    tokens, too_long, start = 0, 0, time.process_time()
    for begin in range(0, len(solutions), 512):
        part = solutions[begin : begin + 512]
        every = prm.encoder.encode(part)
        encoded = [one for one in every if len(one.ids) <= MAX_TOKENS]
        too_long += len(every) - len(encoded)
        keys = [prefix_keys(solution) for solution in part]
        for members in prefix_groups([one.ids for one in encoded], 2048):
            tree = prefix_tree([encoded[member].ids for member in members], prm.device)
            with torch.inference_mode(), prefix_tree_attention(prm.model):
                hidden = prm.trunk(
                    input_ids=tree.ids[None],
                    position_ids=tree.position_ids[None],
                    prefix_tree=tree,
                    use_cache=False,
                    output_hidden_states=True,
                ).hidden_states
            tokens += tree.ids.numel()
            for member, columns in zip(members, tree.columns, strict=True):
                one = encoded[member]
                for step, position in zip(one.steps, one.read_positions, strict=True):
                    here = [int(columns[position - 1]), int(columns[position])]
                    state = torch.stack([hidden[layer][0, here] for layer in layers])
                    states[keys[one.solution][step]] = state.to(torch.float16).numpy()
        print(
            f"{begin + len(part)} of {len(solutions)} solutions ({too_long} too long), {len(states)} steps, "
            f"{tokens} tokens computed, "
            f"{time.process_time() - start:.0f} CPU-seconds",
            flush=True,
        )
    np.savez(
        cache / f"{snapshot.name}.npz",
        features=np.stack(list(states.values())),
        keys=np.frombuffer(b"".join(states), dtype="V16"),
        layers=layers,
    )


def chosen(solutions: Sequence[Solution], per_subset: int | None, problems: int | None) -> list[Solution]:
    """Sorted by problem, so that prefixes are shared; the same few of each subset every time."""
    kept = sorted({solution.problem for solution in solutions}, key=value_sha256)[:problems]
    kept_set, subsets = set(kept), defaultdict(list)
    for solution in sorted(solutions, key=lambda one: one.id):
        if solution.problem in kept_set:
            subsets[solution.meta.get("subset")].append(solution)
    return sorted((one for few in subsets.values() for one in few[:per_subset]), key=lambda one: one.problem)


class Extracted(NamedTuple):
    """A file: its solutions with people's labels, and the hidden states of its steps by key."""

    rows: list[Labelled]
    features: np.ndarray
    place: dict[bytes, int]


def extracted(name: str, cache: Path) -> Extracted:
    """Read what `extract` kept; solutions that it left out are left out."""
    kept = np.load(cache / f"{name}.npz")
    place = {key.tobytes(): row for row, key in enumerate(kept["keys"])}
    rows = [
        pair
        for pair in View([cache / name]).labelled(rater_kinds=["human"])
        if pair.annotation.labels and all(key in place for key in prefix_keys(pair.solution))
    ]
    return Extracted(rows, kept["features"], place)


class Steps(NamedTuple):
    """Steps with a target: where their states lie, and what they should become."""

    rows: np.ndarray
    targets: StepTargets


def steps_of(rows: Sequence[Labelled], place: dict[bytes, int], policy: str) -> Steps:
    """Each distinct (prefix, step) once, as in training."""
    items = targets_of(rows, neutral_policy=policy).items
    keys = [key for item in items for key in np.array(prefix_keys(item.solution), dtype=object)[list(item.steps)]]
    solution = [number for number, item in enumerate(items) for _ in item.steps]
    target = [one for item in items for one in item.distributions]
    return Steps(
        np.array([place[key] for key in keys]), StepTargets(torch.tensor(target).float(), torch.tensor(solution))
    )


def fit(
    states_ND: torch.Tensor, targets: StepTargets, objective: Objective, outputs: int, weight_decay: float
) -> torch.Tensor:
    """Weights [K, 1 + D] of a head (a bias first), by full-batch L-BFGS on the loss plus weight decay."""
    head = torch.zeros(outputs, states_ND.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([head], max_iter=UPDATES, line_search_fn="strong_wolfe")
    total = objective.total(targets)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective.loss(outputs_of(head, states_ND), targets) / total + weight_decay * (head[:, 1:] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head.detach()


def outputs_of(head: torch.Tensor, states_ND: torch.Tensor) -> torch.Tensor:
    return states_ND @ head[:, 1:].T + head[:, 0]


class Probe:
    """A head on one layer and place, with its standardisation."""

    def __init__(
        self, data: Extracted, train: Sequence[Labelled], arm: tuple[str, str], where: tuple[int, int]
    ) -> None:
        self.arm, self.where = arm, where
        self.objective = Objective(arm[0], class_weights=None)
        steps = steps_of(train, data.place, arm[1])
        states = self._raw(data, steps.rows)
        self.mean, self.std = states.mean(0), states.std(0) + 1e-6
        self.states, self.targets = (states - self.mean) / self.std, steps.targets

    def _raw(self, data: Extracted, rows: np.ndarray) -> torch.Tensor:
        layer, place = self.where
        return torch.from_numpy(data.features[rows, layer, place].astype(np.float32))

    def read(self, data: Extracted, rows: np.ndarray) -> torch.Tensor:
        return (self._raw(data, rows) - self.mean) / self.std

    def trained(self, weight_decay: float) -> torch.Tensor:
        outputs = len(READOUTS[self.objective.kind.readout].labels)
        return fit(self.states, self.targets, self.objective, outputs, weight_decay)

    def loss(self, head: torch.Tensor, data: Extracted, rows: Sequence[Labelled]) -> float:
        steps = steps_of(rows, data.place, self.arm[1])
        outputs = outputs_of(head, self.read(data, steps.rows))
        return float(self.objective.loss(outputs, steps.targets)) / self.objective.total(steps.targets)

    def score(self, head: torch.Tensor, data: Extracted, rows: Sequence[Labelled]) -> list[StepScores]:
        readout = READOUTS[self.objective.kind.readout]
        found = []
        for pair in rows:
            here = np.array([data.place[key] for key in prefix_keys(pair.solution)])
            outputs = outputs_of(head, self.read(data, here))
            if readout.log_probabilities is None:
                found.append(StepScores((None,) * len(here), tuple(outputs[:, 0].tolist())))
            else:
                found.append(StepScores(tuple(map(tuple, readout.probabilities(outputs).tolist()))))
        return found


def table(train_name: str, test_names: Sequence[str], cache: Path) -> dict:
    data = extracted(train_name, cache)
    parts = split_by_problem(data.rows, {"train": 0.9, "dev": 0.1}, 0)
    train, dev = parts["train"], parts["dev"]
    places = [(layer, place) for layer in range(data.features.shape[1]) for place in range(len(PLACES))]
    base = ARMS["cross-entropy, keep"]
    print("held-out loss by layer and place (cross-entropy, keep, best weight decay):")
    losses = {}
    for where in places:
        probe = Probe(data, train, base, where)
        losses[where] = min(probe.loss(probe.trained(decay), data, dev) for decay in WEIGHT_DECAYS)
        print(f"  layer {where[0]}, {PLACES[where[1]]}: {losses[where]:.4f}", flush=True)
    where = min(losses, key=losses.__getitem__)
    arms = {name: (arm, train) for name, arm in ARMS.items()}
    for share in SHARES:
        part = split_by_problem(train, {"kept": share, "rest": 1 - share}, 1)["kept"]
        arms[f"cross-entropy, keep, {share:.0%} of the problems"] = (base, part)
    heads = {}
    for name, (arm, rows) in arms.items():
        probe = Probe(data, rows, arm, where)
        tried = {decay: probe.trained(decay) for decay in WEIGHT_DECAYS}
        decay = min(tried, key=lambda one: probe.loss(tried[one], data, dev))
        heads[name] = probe, tried[decay]
        print(f"{name}: {len(probe.states)} steps, weight decay {decay}", flush=True)
    found = {}
    for test in test_names:
        tested = extracted(test, cache)
        rows = with_prefix_labels(tested.rows)
        halves = split_by_problem(rows, {"threshold": 0.3, "test": 0.7}, 0)
        scores = {
            name: [probe.score(head, tested, halves[part]) for part in ("test", "threshold")]
            for name, (probe, head) in heads.items()
        }
        truth = true_first_errors(halves["threshold"])
        chooses = (truth >= 0).any() and (truth == NO_ERROR).any()  # branches are no whole solutions
        if not chooses:
            scores = {name: both for name, both in scores.items() if both[0][0].is_bounded}
        evaluation = evaluate(
            halves["test"],
            {name: both[0] for name, both in scores.items()},
            name=test,
            dev=DevSplit("threshold", halves["threshold"], {name: both[1] for name, both in scores.items()})
            if chooses
            else None,
            train=train,
        )
        found[test] = show(test, evaluation)
    return found


def show(test: str, evaluation: dict) -> dict:
    """Rows of a table in Markdown, and the same as data."""
    print(f"\n{test}: {evaluation['data']['solutions']} solutions, {evaluation['data']['judged_steps']} judged steps")
    print("| | macro-F1 | AUROC of wrong steps | first-error F1 |\n|---|---|---|---|")
    rows = {}
    for scorer in evaluation["scorers"]:
        name = scorer["name"]
        steps, first = evaluation["steps"][name], evaluation["first_error"].get(name, {})
        figures = [steps.get("macro_f1"), steps.get("auroc_wrong"), first.get("f1_mean")]
        print(f"| {name} | " + " | ".join(cell(figure) for figure in figures) + " |")
        rows[name] = figures
    return rows


def cell(figure: dict | None) -> str:
    if not figure or figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


if __name__ == "__main__":
    main()
