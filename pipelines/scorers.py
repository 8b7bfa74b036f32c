"""From what a person names to a step scorer: a checkpoint of ours, a published PRM, or a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from prm_kit.encode import Overlong
    from prm_kit.endpoint import Key
    from prm_kit.score import StepScorer

TOKEN_VARIABLE = "PRM_KIT_TOKEN"  # noqa: S105 - the name of a variable
"""Where the bearer token of a server is looked for."""

Family = Annotated[
    str | None, typer.Option("--family", help="Family of a published PRM, where its files do not say it.")
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Number format of the model; auto: float32 on the CPU, bfloat16 elsewhere."),
]
Reference = Annotated[
    str | None, typer.Option("--reference", help="Reference model of an implicit PRM, or base of an adapter.")
]


def scorer_of(
    source: str | Path,
    name: str | None = None,
    *,
    family: str | None = None,
    reference: str | Path | None = None,
    precision: str = "auto",
    too_long: Overlong | None = None,
    token: Key | None = None,
) -> StepScorer:
    """A step scorer, on CUDA if there is a device.

    Args:
        source: Folder or hub id of a PRM, trained here or published; or the http(s) address of a `prm-kit serve`.
        name: What reports call it; None: its source.
        family: See `prm_kit.released.registry.load_prm`.
        reference: See `prm_kit.released.registry.load_prm`.
        precision: Of the trunk: "auto" (float32 on the CPU, bfloat16 elsewhere), "float32" or "bfloat16".
        too_long: See `prm_kit.released.registry.load_prm`.
        token: Bearer token of a server; None: what the environment variable `TOKEN_VARIABLE` holds, if anything.

    Raises:
        UsageError: The family is unknown or cannot be told, or does not go with a server.
        InputError: The checkpoint cannot be read.
    """
    if str(source).startswith(("http://", "https://")):
        from prm_kit.endpoint import read_key
        from prm_kit.errors import UsageError
        from prm_kit.serve.remote import RemoteScorer

        if family or reference or too_long or precision != "auto":
            reason = "the server knows its PRM; family, reference, precision and too_long are not for it"
            raise UsageError(f"{source}: {reason}")
        return RemoteScorer(str(source), token or read_key(TOKEN_VARIABLE, None), name=name)
    import torch

    from prm_kit.released.registry import load_prm

    return load_prm(
        source,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype=None if precision == "auto" else getattr(torch, precision),
        reference=reference,
        family=family,
        name=name,
        too_long=too_long,
    )


def fingerprint_of(source: str | Path | None) -> str | None:
    """Tells a PRM from another one under the same name: a hash of a folder's files, or what a server says of itself.

    None of a hub id, and of a server that does not know.

    Raises:
        RemoteError: The server does not answer.
    """
    from prm_kit.files import folder_sha256

    if source is not None and Path(source).is_dir():
        return folder_sha256(Path(source))
    if str(source).startswith(("http://", "https://")):
        from prm_kit.endpoint import read_key
        from prm_kit.serve.remote import RemoteScorer

        return RemoteScorer(str(source), read_key(TOKEN_VARIABLE, None)).ask()
    return None


def aggregation_of(scorer: StepScorer) -> str:
    """How a scorer's steps make a solution's score unless asked otherwise: as its card says, else "min"."""
    card = getattr(getattr(scorer, "prm", None), "card", None)
    return str(getattr(card, "aggregation", None) or getattr(scorer, "aggregation", None) or "min")
