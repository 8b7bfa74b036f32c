"""How many labelled solutions do random and active order need for the same score?

    python benchmarks/active_selection.py BRANCHES.jsonl.gz [--backbone DIR --cache FEATURES.npz]

BRANCHES is PRM800K phase 1 as step-list JSONL, one alternative step after its chosen prefix a line ("problem", "steps",
"labels"). People's labels are all there already; they are only looked up when a solution's turn comes.

The learner is light on purpose: 96 components of every step (of its words and of what it shares with the problem and
the steps before; with --backbone of the hidden states of a frozen language model, first layers only), multinomial
logistic regression. Each round it learns from what is labelled so far, scores the rest, and
`labeling.queue.plan_queue` (the code behind `prm-kit label queue`) says what is labelled next. Problems are split into
a pool and development problems; every score is on the latter. A figure is the mean over seeds (the seed chooses the
split, the first solutions and the random order) and its standard deviation.
"""

import argparse
import gzip
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from labeling.queue import Candidate, draw, plan_queue
from labeling.rules import RuleLabeler
from prm_kit.records import Solution
from prm_kit.targets import prefix_keys
from prm_kit.view import problem_key

FIRST = 100
"""Solutions that every arm starts from, drawn at random."""

COMPONENTS = 96

# Per arm: order ("" is random), members of the ensemble, random share.
ARMS = {"random": ("", 1, 1.0), "uncertainty": ("uncertainty", 1, 0.1), "ensemble of 4": ("uncertainty", 4, 0.1)}


class Data(NamedTuple):
    """Solutions; the row of `features` of each of their steps; and people's label of each row (-9: none)."""

    solutions: list[Solution]
    rows: list[np.ndarray]
    features: np.ndarray
    labels: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("branches", type=Path)
    parser.add_argument("--backbone", help="folder of a causal language model: features are its hidden states")
    parser.add_argument("--cache", type=Path, help="with --backbone: where its features are kept")
    parser.add_argument("--layers", type=int, default=8, help="with --backbone: how many of its layers")
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=150, help="solutions labelled a round")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, help="write the curves as JSON")
    arguments = parser.parse_args()
    start = time.process_time()
    data = read(arguments)
    print(
        f"{len(data.solutions)} solutions of {len({s.problem for s in data.solutions})} problems, {len(data.features)} "
        f"distinct steps, of them labelled -1, 0, +1: {[int((data.labels == v).sum()) for v in (-1, 0, 1)]}; "
        f"{time.process_time() - start:.0f} CPU-seconds",
        flush=True,
    )
    curves: dict[str, list] = {arm: [] for arm in arguments.arms}
    for seed in range(arguments.seeds):
        pool, dev = split(data.solutions, seed)
        for arm in curves:
            curves[arm].append(curve(data, pool, dev, ARMS[arm], seed, arguments))
        print(f"seed {seed}: {len(pool)} solutions in the pool, {len(dev)} for development", flush=True)
    report(curves)
    print(f"{time.process_time() - start:.0f} CPU-seconds")
    if arguments.out:
        arguments.out.write_text(json.dumps(curves))


def read(arguments: argparse.Namespace) -> Data:
    """The problems whose hash comes first; steps that several solutions share are one row."""
    with gzip.open(arguments.branches, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    problems = sorted({line["problem"] for line in lines}, key=lambda text: draw(text, 0))[: arguments.problems]
    chosen, by_id = set(problems), {}
    for line in lines:
        if line["problem"] in chosen and all(step.strip() for step in line["steps"]):
            solution = Solution.from_steps(line["problem"], line["steps"], "\n")
            by_id[solution.id] = (solution, line["labels"])
    number: dict[bytes, int] = {}
    solutions, rows, labels = [], [], {}
    for solution, values in by_id.values():
        here = [number.setdefault(key, len(number)) for key in prefix_keys(solution)]
        labels |= {row: value for row, value in zip(here, values, strict=True) if value is not None}
        solutions.append(solution)
        rows.append(np.array(here))
    features = hidden_states(solutions, rows, arguments) if arguments.backbone else words(solutions, rows)
    return Data(solutions, rows, features, np.array([labels.get(row, -9) for row in range(len(number))]))


def words(solutions: list[Solution], rows: list[np.ndarray]) -> np.ndarray:
    """Components of a step's words, and how it stands to the problem, the steps before it and the rules."""
    texts: dict[int, str] = {}
    shape: dict[int, list[float]] = {}
    for solution, here, ruled in zip(solutions, rows, RuleLabeler().label(solutions), strict=True):
        said = ruled.values(len(here))
        seen = set(re.findall(r"\w+", solution.problem.lower()))
        for step, (row, text) in enumerate(zip(here.tolist(), solution.steps, strict=True)):
            found = re.findall(r"\w+", text.lower())
            numbers = [word for word in found if word.isdigit()]
            texts[row] = text
            shape[row] = [
                np.log1p(step), np.log1p(len(text)), len(set(found) & seen) / max(1, len(set(found))),
                sum(n not in seen for n in numbers), text.count("="), "answer" in found, "?" in text,
                said[step] == -1, said[step] == 0, said[step] == 1,
            ]  # fmt: skip
            seen |= set(found)
    order = sorted(texts)
    counts = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), min_df=3, sublinear_tf=True)
    components = TruncatedSVD(COMPONENTS, random_state=0).fit_transform(counts.fit_transform(texts[i] for i in order))
    features = np.concatenate([components, np.array([shape[i] for i in order], dtype=np.float64)], axis=1)
    return (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)


def hidden_states(solutions: list[Solution], rows: list[np.ndarray], arguments: argparse.Namespace) -> np.ndarray:
    """Components of the hidden state at the last token of each distinct step and of the mean over its tokens."""
    if arguments.cache is None or not arguments.cache.exists():
        found = run_backbone(solutions, rows, arguments)
        if arguments.cache:
            np.save(arguments.cache.open("wb"), found)
    else:
        found = np.load(arguments.cache)
    return PCA(COMPONENTS, whiten=True, random_state=0).fit_transform(found.astype(np.float32))


def run_backbone(solutions: list[Solution], rows: list[np.ndarray], arguments: argparse.Namespace) -> np.ndarray:
    import torch

    from prm_kit.model import Prm
    from prm_kit.pack import prefix_groups, prefix_tree, prefix_tree_attention

    prm = Prm.from_backbone(arguments.backbone)
    prm.trunk.layers = prm.trunk.layers[: arguments.layers]
    prm.trunk.config.num_hidden_layers = arguments.layers
    prm.model.eval()
    encoded = prm.encoder.encode(solutions, prm.card.max_tokens, "window")
    found: dict[int, np.ndarray] = {}
    tokens = 0
    with torch.inference_mode(), prefix_tree_attention(prm.model):
        for members in prefix_groups([one.ids for one in encoded], 3072):
            tree = prefix_tree([encoded[member].ids for member in members])
            tokens += len(tree.ids)
            hidden = prm.trunk(
                input_ids=tree.ids[None], position_ids=tree.position_ids[None], use_cache=False, prefix_tree=tree
            ).last_hidden_state[0]
            for member, columns in zip(members, tree.columns, strict=True):
                one = encoded[member]
                begin = one.prompt_length
                for step, mark in zip(one.steps, one.read_positions, strict=True):
                    here = hidden[columns[begin:mark]]
                    found.setdefault(
                        int(rows[one.solution][step]), torch.cat([here[-1], here.mean(dim=0)]).half().numpy()
                    )
                    begin = mark + 1
    print(f"{tokens} tokens through {arguments.layers} layers")
    return np.stack([found[row] for row in sorted(found)])


def split(solutions: list[Solution], seed: int) -> tuple[list[int], list[int]]:
    """Indices of the pool and of development solutions, by problem."""
    side = {s.problem: draw(problem_key(s.problem), seed) < 0.3 for s in solutions}
    dev = [i for i, s in enumerate(solutions) if side[s.problem]]
    return [i for i, s in enumerate(solutions) if not side[s.problem]], dev


def labelled_rows(indices: Sequence[int], data: Data) -> np.ndarray:
    """The distinct labelled steps of some solutions."""
    rows = np.unique(np.concatenate([data.rows[i] for i in indices]))
    return rows[data.labels[rows] != -9]


def curve(
    data: Data, pool: list[int], dev: list[int], how: tuple[str, int, float], seed: int, arguments: argparse.Namespace
) -> list[dict[str, float]]:
    """Scores on development steps after every round."""
    order, members, random_share = how
    measured = labelled_rows(dev, data)
    by_id = {data.solutions[i].id: i for i in pool}
    done = sorted(pool, key=lambda i: draw(data.solutions[i].id, seed))[:FIRST]
    points = []
    for number in range(arguments.rounds + 1):
        rows = labelled_rows(done, data)
        models = ensemble(data.features[rows], data.labels[rows], members, seed)
        scored = scores(models[0], data.features[measured], data.labels[measured])
        points.append({"solutions": len(done), "steps": len(rows)} | scored)
        if number == arguments.rounds:
            break
        taken = set(done)
        said = [[tuple(p) for p in model.predict_proba(data.features).tolist()] for model in models] if order else []
        candidates = [
            Candidate(data.solutions[i].id, i in taken, members=[[m[row] for row in data.rows[i]] for m in said])
            for i in pool
        ]
        queued = plan_queue(candidates, [order] if order else [], arguments.batch, random_share, seed=seed)
        done = done + [by_id[row.solution_id] for row in queued.queue]
    return points


def ensemble(x: np.ndarray, y: np.ndarray, members: int, seed: int) -> list[LogisticRegression]:
    """Models of resamples of the rows; the first, which is measured, of the rows themselves."""
    rng = np.random.default_rng(seed)
    models = []
    for member in range(members):
        chosen = np.arange(len(y)) if member == 0 else rng.integers(0, len(y), len(y))
        models.append(LogisticRegression(C=0.03, max_iter=200).fit(x[chosen], y[chosen]))
    return models


def scores(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {
        "auroc_wrong": roc_auc_score(y == -1, model.predict_proba(x)[:, 0]),
        "macro_f1": f1_score(y, model.predict(x), average="macro"),
    }


def report(curves: dict[str, list]) -> None:
    for metric in ("auroc_wrong", "macro_f1"):
        print(f"\n{metric} on development steps, mean and standard deviation over seeds")
        print("labelled".rjust(10), *(arm.rjust(20) for arm in curves))
        runs = {arm: np.array([[p[metric] for p in run] for run in found]) for arm, found in curves.items()}
        sizes = np.array([p["solutions"] for p in curves["random"][0]])
        for k, size in enumerate(sizes):
            cells = (f"{runs[arm][:, k].mean():.4f} +- {runs[arm][:, k].std(ddof=1):.4f}" for arm in curves)
            print(str(size).rjust(10), *(cell.rjust(20) for cell in cells))
        print("solutions needed for the score that random order reaches with so many (mean curves, interpolated):")
        for target in sorted({int(size) for size in sizes[[len(sizes) // 4, len(sizes) // 2, -1]]}):
            score = float(np.interp(target, sizes, runs["random"].mean(axis=0)))
            needs = [f"{arm} {needed(sizes, runs[arm].mean(axis=0), score)}" for arm in curves if arm != "random"]
            print(f"  random {target} ({score:.4f}):", ", ".join(needs))
        for arm in curves:
            apart = (runs[arm] - runs["random"])[:, -1]
            if arm != "random":
                print(f"  {arm} minus random at the end: {apart.mean():+.4f} +- {apart.std(ddof=1):.4f}")
    steps = {arm: round(float(np.mean([run[-1]["steps"] for run in found]))) for arm, found in curves.items()}
    print("\ndistinct steps labelled at the end:", steps)


def needed(sizes: np.ndarray, means: np.ndarray, score: float) -> str:
    """Where a curve first reaches a score."""
    above = np.nonzero(means >= score)[0]
    if not len(above):
        return f"> {sizes[-1]}"
    k = int(above[0])
    if k == 0:
        return f"<= {sizes[0]}"
    return str(round(float(np.interp(score, means[k - 1 : k + 1], sizes[k - 1 : k + 1]))))


if __name__ == "__main__":
    main()
