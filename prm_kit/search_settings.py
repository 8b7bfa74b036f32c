"""What a search is asked: one class, no torch. `prm_kit.search` is what it drives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prm_kit.settings import Settings

Positive = Annotated[int, Field(gt=0)]


class SearchSettings(Settings):
    """How solutions are looked for.

    Attributes:
        method: "best-of-n" samples whole solutions; "beam" keeps the best prefixes of a problem after every step;
            "dvts" (diverse verifier tree search) keeps the best prefix of each of several independent trees.
        n: Solutions sampled (best-of-n), or prefixes that stand side by side after every step (beam, dvts).
        width: Next steps sampled of each kept prefix; n / width prefixes are kept. Must divide n.
        step: Where a step ends: "newline" or "blank_line", never inside a formula or a code fence.
        aggregation: How the scores of the steps so far rank a prefix, and those of all steps a solution.
        max_new_tokens: Most tokens of a solution.
        max_steps: Most steps of a solution (beam, dvts).
        temperature: Of the sampling; 0 is refused, because all samples of a prefix would be one.
        seed: Of the sampling.
    """

    method: Literal["best-of-n", "beam", "dvts"] = "beam"
    n: Positive = 16
    width: Positive = 4
    step: Literal["newline", "blank_line"] = "newline"
    aggregation: Literal["min", "last", "product", "mean"] = "last"
    max_new_tokens: Positive = 1024
    max_steps: Positive = 40
    temperature: float = Field(0.8, gt=0, allow_inf_nan=False)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _kept_prefixes_are_whole(self) -> SearchSettings:
        if self.method != "best-of-n" and self.n % self.width:
            raise ValueError(f"n is {self.n} and width {self.width}: width must divide n, n / width prefixes are kept")
        return self

    @property
    def trees(self) -> int:
        """Independent trees of a problem."""
        return self.n // self.width if self.method == "dvts" else 1

    @property
    def kept(self) -> int:
        """Prefixes kept of a tree after every step."""
        return self.n // self.width // self.trees
