"""Which published PRM a checkpoint is, and the scorer that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from prm_kit.checkpoints import load_own
from prm_kit.encode import Overlong
from prm_kit.errors import UsageError, unknown_name
from prm_kit.model import Prm, default_dtype
from prm_kit.prm_scorer import PrmScorer
from prm_kit.released.causal_pair import math_psa, math_shepherd, rlhflow, versaprm
from prm_kit.released.checkpoint import Checkpoint, open_checkpoint
from prm_kit.released.generative import genprm, thinkprm
from prm_kit.released.implicit_prm import eurus
from prm_kit.released.token_heads import pqm, pure, qwen_prm, reasoneval, skywork, trl, trl_blank_lines
from prm_kit.released.universal import universal
from prm_kit.score import StepScorer


@dataclass(frozen=True)
class Family:
    """A family of published PRMs.

    Attributes:
        read: Makes a PRM, or a scorer, of a checkpoint.
        hub: Hub ids of its members.
        looks: Whether the files alone say that a checkpoint is of this family; None: they cannot, as it is a plain
            language model or shares its form with another family.
        not_convertible: Why it cannot become a token-classification checkpoint; "": it can.
    """

    read: Callable[[Checkpoint], Prm | StepScorer]
    hub: tuple[str, ...] = ()
    looks: Callable[[Checkpoint], bool] | None = None
    not_convertible: str = ""


def load_prm(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    reference: str | Path | None = None,
    family: str | None = None,
    name: str | None = None,
    too_long: Overlong | None = None,
) -> StepScorer:
    """Load a PRM as a scorer: a checkpoint of ours, or a published one of any family in `FAMILIES`.

    No code of a checkpoint is run and no pickle is read. Published PRMs are read as their authors read them.

    Args:
        name_or_path: Folder, or hub id ("owner/name", "owner/name@revision").
        device: Where to put it.
        dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere. Heads are always float32.
        reference: Of an implicit PRM: the model that its scores are relative to; of an adapter: its base model, where
            that is not to be found under the name that the adapter gives. None: the published one.
        family: A name in `FAMILIES`, where the files do not say which one it is; None: recognise it.
        name: What reports call the scorer; None: `name_or_path`.
        too_long: What to do with a solution that has more tokens than the model's positions, see
            `StepEncoder.encode`; None: "window" for checkpoints of ours, "refuse" for published ones, whose rules
            know no windows.

    Raises:
        InputError: The checkpoint is absent, damaged, a pickle, or its tokenizer is not the family's.
        UsageError: The family is unknown or cannot be told; the message lists the families.
    """
    device, dtype = torch.device(device), dtype or default_dtype(device)
    called = name or str(name_or_path)
    if (Path(name_or_path) / "prm.json").is_file():
        return PrmScorer(load_own(name_or_path, device, dtype), name=called, too_long=too_long or "window")
    checkpoint = open_checkpoint(name_or_path, device, dtype, str(reference) if reference else None)
    if (checkpoint.folder / "prm.json").is_file():  # one of ours on the hub
        return PrmScorer(load_own(checkpoint.folder, device, dtype), name=called, too_long=too_long or "window")
    found = FAMILIES[family_of(checkpoint, family)].read(checkpoint)
    return PrmScorer(found, name=called, too_long=too_long or "refuse") if isinstance(found, Prm) else found


def family_of(checkpoint: Checkpoint, asked: str | None = None) -> str:
    """The name of a checkpoint's family: as asked, by its hub id, by its files, or by the name it was published under.

    Raises:
        UsageError: There is no family of that name, or none can be told; the message lists the families.
    """
    if asked is not None:
        if asked not in FAMILIES:
            raise unknown_name("family", asked, FAMILIES)
        return asked
    if checkpoint.published in HUB:
        return HUB[checkpoint.published]
    by_files = [name for name, family in FAMILIES.items() if family.looks and family.looks(checkpoint)]
    by_name = {name for hub, name in HUB.items() if _called(hub) in _names(checkpoint)}
    if len(by_files) == 1:
        return by_files[0]
    if len(by_name) == 1:
        return by_name.pop()
    kind = "an adapter" if checkpoint.adapter else f"a checkpoint of the architecture {checkpoint.architecture or '?'}"
    raise UsageError(
        f"{checkpoint.name}: {kind}, from which its family cannot be told; name it with `family` (--family NAME), "
        f"one of {', '.join(sorted(FAMILIES))}"
    )


def _names(checkpoint: Checkpoint) -> set[str]:
    """Names that a checkpoint carries: its folder's, and what its configuration says that it was loaded from."""
    said = [str(checkpoint.folder.resolve()), str(checkpoint.config.get("_name_or_path") or "")]
    if checkpoint.adapter:
        said.append(str(checkpoint.adapter.get("base_model_name_or_path") or ""))
    return {_called(one) for one in said}


def _called(name: str) -> str:
    """The last part of a path or hub id, without regard to case."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _is_token_classification(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith("ForTokenClassification") and checkpoint.has("score.weight")


def _is_pure(checkpoint: Checkpoint) -> bool:
    return "pure-prm-7b" in _names(checkpoint)


def _has_prm_token(checkpoint: Checkpoint) -> bool:
    return "[PRM]" in checkpoint.tokenizer.get_vocab()


_WRITES = "it writes its verdicts, so that no single reading of a token gives its scores"

FAMILIES: dict[str, Family] = {
    "qwen-prm": Family(
        qwen_prm,
        (
            "Qwen/Qwen2.5-Math-PRM-7B",
            "Qwen/Qwen2.5-Math-PRM-72B",
            "Qwen/Qwen2.5-Math-7B-PRM800K",
            "Gen-Verse/ReasonFlux-PRM-1.5B",
            "Gen-Verse/ReasonFlux-PRM-7B",
        ),
        looks=lambda it: it.architecture.endswith("ForProcessRewardModel"),
        not_convertible="its head has two layers with a ReLU between them, which no single linear layer equals",
    ),
    "math-shepherd": Family(math_shepherd, ("peiyi9979/math-shepherd-mistral-7b-prm",)),
    "math-psa": Family(math_psa, ("openreasoner/Math-psa",)),
    "versaprm": Family(
        versaprm,
        (
            "UW-Madison-Lee-Lab/VersaPRM",
            "UW-Madison-Lee-Lab/VersaPRM-Base-8B",
            "UW-Madison-Lee-Lab/VersaPRM-Aug",
            "UW-Madison-Lee-Lab/Llama-PRM800K",
        ),
    ),
    "rlhflow": Family(rlhflow, ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data")),
    "skywork": Family(
        skywork,
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B"),
        looks=lambda it: not it.adapter and it.has("v_head.summary.weight") and not _has_prm_token(it),
    ),
    "eurus": Family(
        eurus,
        ("PRIME-RL/EurusPRM-Stage1", "PRIME-RL/EurusPRM-Stage2"),
        not_convertible="its scores are log-ratios of two language models over whole vocabularies",
    ),
    "universal": Family(
        universal,
        ("infly/Universal-PRM-7B",),
        not_convertible="it reads every prefix as a sequence of its own, closed by a token that the next one lacks",
    ),
    "trl": Family(trl, looks=lambda it: _is_token_classification(it) and not _is_pure(it)),
    "trl-blank-lines": Family(trl_blank_lines),
    "pure": Family(pure, ("jinachris/PURE-PRM-7B",), looks=lambda it: _is_token_classification(it) and _is_pure(it)),
    "genprm": Family(genprm, ("GenPRM/GenPRM-1.5B", "GenPRM/GenPRM-7B", "GenPRM/GenPRM-32B"), not_convertible=_WRITES),
    "thinkprm": Family(
        thinkprm, ("launch/ThinkPRM-1.5B", "launch/ThinkPRM-7B", "launch/ThinkPRM-14B"), not_convertible=_WRITES
    ),
    "reasoneval": Family(
        reasoneval,
        ("GAIR/ReasonEval-7B", "GAIR/ReasonEval-34B"),
        looks=lambda it: not it.adapter and it.has("score_head.weight"),
    ),
    "pqm": Family(
        pqm,
        ("Windy0822/PQM",),
        looks=lambda it: not it.adapter and it.has("v_head.summary.weight") and _has_prm_token(it),
    ),
}
"""By the name that `family` takes."""

HUB: dict[str, str] = {hub: name for name, family in FAMILIES.items() for hub in family.hub}
"""Family by hub id."""
