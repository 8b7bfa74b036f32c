"""UniversalPRM: one scalar at the end of each prefix of a solution.

Every prefix of k steps is a sequence of its own, closed by the end-of-sequence token; they differ from each other in
their tails alone, so that the shared part is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prm_kit.encode import Encoded, Overlong, TooLongError
from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.records import Solution
from prm_kit.released.assembly import chat_parts, released_prm
from prm_kit.released.checkpoint import Checkpoint
from prm_kit.segments import SegmentEncoder, SegmentReading

NO_REFERENCE = "\n\n###\n\nThe reference answer is: There is no reference answer for this question."
"""What stands behind the problem. The model may also be shown the reference answer; a scorer here never sees it."""


class PrefixEncoder(SegmentEncoder):
    """Encodes each prefix of k steps as a sequence of its own, read at its last token."""

    def encode(
        self,
        solutions: Sequence[Solution],
        max_tokens: int | None = None,
        too_long: Overlong = "refuse",
    ) -> list[Encoded]:
        """Encode solutions: for each one as many sequences as it has steps, in order.

        Raises:
            TooLongError: A prefix has more tokens than fit; `too_long` changes nothing, as no prefix can be cut.
        """
        found = []
        for index, solution in enumerate(solutions):
            problem = self._text(self._problem, self.reading.problem_text(solution.problem))
            prompt = [*self._before, *problem, *self._after]
            steps = solution.steps
            for step in range(len(steps)):
                text = "\n\n".join(steps[: step + 1]) + "\n\n"
                ids = [*prompt, *self._text(self._first, text), *self.mark_ids]
                if max_tokens is not None and len(ids) > max_tokens:
                    raise TooLongError(
                        f"solution {solution.id}: step {step} has {len(ids)} tokens with all before it, "
                        f"more than the {max_tokens} allowed",
                        solution.id,
                        len(ids),
                        max_tokens,
                        step,
                    )
                found.append(Encoded(index, ids, [len(ids) - 1], [step], len(prompt)))
        return found


def universal(checkpoint: Checkpoint) -> Prm:
    """UniversalPRM (arXiv 2502.11520), infly/Universal-PRM-7B: sigmoid of the scalar at the end of each prefix."""
    roles: list[tuple[str, str | None]] = [("system", "You are a helpful assistant."), ("user", None)]
    before, after = chat_parts(checkpoint, roles, generate=True)
    reading = SegmentReading(before=before, problem_after=NO_REFERENCE, after=after, mark=checkpoint.special("eos"))
    prm = released_prm(checkpoint, checkpoint.trunk(), _scalar_head(checkpoint), reading, "sigmoid")
    prm.encoder = PrefixEncoder(checkpoint.tokenizer, reading)
    return prm


def _scalar_head(checkpoint: Checkpoint) -> nn.Module:
    """The head, whatever it is called: one linear layer, or two with a ReLU, that end in one number."""
    names = [name for name in HEADS if checkpoint.has(f"{name}.weight")]
    if len(names) != 1:
        raise InputError(f"{checkpoint.name}: {len(names)} of the heads {', '.join(HEADS)}, not one")
    last = checkpoint.linear(names[0])
    if last.out_features != 1:
        raise InputError(f"{checkpoint.name}: the head {names[0]} has {last.out_features} outputs, not one")
    return nn.Sequential(checkpoint.linear("score.0"), nn.ReLU(), last) if names[0] == "score.2" else last


HEADS = ("score", "score.2", "v_head", "v_head.summary", "value_head", "reward_head")
"""Names under which published reward models keep their scalar head."""
