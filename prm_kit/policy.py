"""A policy: a causal language model with its tokenizer and the template that it is prompted with.

DIR/  a Hugging Face checkpoint (safetensors, tokenizer, no remote code) with policy.json, the template, beside it
"""

from __future__ import annotations

import json
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from prm_kit.backbone import load_tokenizer
from prm_kit.chat import end_of_turn
from prm_kit.engines.engine import Rollout
from prm_kit.errors import InputError, UsageError
from prm_kit.files import write_json
from prm_kit.plain_text import plain_text_backend, split_of
from prm_kit.records import Solution
from prm_kit.settings import validated
from prm_kit.step_reading import PromptTemplate, chat_template, default_reading

TEMPLATE_FILE = "policy.json"


@dataclass
class Policy:
    """Problems in, completions out; text of either never becomes a special token.

    Attributes:
        model: A causal language model.
        tokenizer: With a tokenizers backend and an end-of-sequence token.
        template: Text around the problem, the same that a PRM over this policy's solutions reads.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no end-of-sequence token: completions could not end")

    @classmethod
    def of(cls, model: Any, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate | None = None) -> Policy:
        """Put a policy together; the template defaults to the one that `default_reading` chooses."""
        if template is None:
            with warnings.catch_warnings():  # the missing mark that it warns of is a PRM's business
                warnings.simplefilter("ignore", UserWarning)
                template = default_reading(tokenizer).template
        return cls(model, tokenizer, template)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        system_prompt: str | None = None,
    ) -> Policy:
        """Load a folder that `save` wrote, or any Hugging Face causal model (folder or hub id).

        Args:
            path: Folder or hub id.
            device: Where the model goes.
            dtype: Of its weights.
            system_prompt: Asked with through the tokenizer's chat template; None: the template of policy.json, else
                the chat template as it is, else plain text.

        Raises:
            InputError: The model, the tokenizer or policy.json cannot be read.
            UsageError: A system prompt, and no chat template that shows one.
        """
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=False)
            tokenizer = load_tokenizer(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no causal language model can be loaded from it: {error}") from None
        model.to(device)
        if system_prompt is not None:
            if not getattr(tokenizer, "chat_template", None):
                raise UsageError(f"{path}: a system prompt needs a chat template, and its tokenizer has none")
            return cls.of(model, tokenizer, chat_template(tokenizer, system_prompt))
        file = Path(path) / TEMPLATE_FILE
        if not file.exists():
            return cls.of(model, tokenizer)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: not JSON: {error}") from None
        return cls(model, tokenizer, validated(PromptTemplate, values, str(file)))

    def save(self, path: Path) -> None:
        """Write a checkpoint that `AutoModelForCausalLM` loads; policy.json goes last."""
        path.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        write_json(path / TEMPLATE_FILE, self.template.model_dump())

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion: the tokenizer's, the chat template's, and those of the generation settings."""
        settings = getattr(self.model, "generation_config", None)
        further = getattr(settings, "eos_token_id", None) or []
        ids = {self.tokenizer.eos_token_id, self._end, *([further] if isinstance(further, int) else further)}
        return tuple(sorted(ids))

    def prompt_ids(self, problems: Sequence[str]) -> list[list[int]]:
        """Token ids that each problem is asked with: the template parsed, the problem as plain text."""
        backend = self.tokenizer.backend_tokenizer
        before = backend.encode(self.template.before, add_special_tokens=False).ids
        after = split_of(backend).encode(self.template.after, add_special_tokens=False).ids
        opens = set(before) <= set(self.tokenizer.added_tokens_decoder)  # as StepEncoder decides it
        plain = self._plain_opening if opens else self._plain
        return [[*before, *ids, *after] for ids in _encode(plain, problems)]

    def completion_ids(self, completions: Sequence[str]) -> list[list[int]]:
        """Token ids of each completion as plain text, with the token that ends a turn, or else the sequence."""
        return [[*ids, self._end] for ids in _encode(self._plain, completions)]

    def prefix_ids(self, solutions: Sequence[Solution]) -> list[list[list[int]]]:
        """Token ids of each solution's completion up to the start, and up to the end of each step: S + 1 lists.

        They are cut from the ids of the whole completion, as a policy would have written it: a prefix ends with the
        last token that stands wholly before the next step, so the separator belongs to it unless the next step's
        first token does, and longer prefixes begin with shorter ones. Only where a token reaches from one step into
        the next is the text up to there encoded by itself. The last list is the whole completion, not ended.
        """
        completions = [solution.completion for solution in solutions]
        encodings = self._plain.encode_batch(completions, add_special_tokens=False)
        return [
            self._prefixes(solution, encoding.ids, [end for _, end in encoding.offsets])
            for solution, encoding in zip(solutions, encodings, strict=True)
        ]

    def _prefixes(self, solution: Solution, ids: list[int], ends: list[int]) -> list[list[int]]:
        """The ids up to each cut. `ends`: where each token ends, in characters."""
        prefixes: list[list[int]] = [[]]
        starts = [start for start, _ in solution.spans[1:]]
        for (_, end), cut in zip(solution.spans, [*starts, len(solution.completion)], strict=False):
            count = bisect_right(ends, cut)
            if count and ends[count - 1] >= end:
                prefixes.append(ids[:count])
            else:
                prefixes.append(self._plain.encode(solution.completion[:cut], add_special_tokens=False).ids)
        return prefixes

    def text(self, rollout: Rollout) -> str:
        """The completion that a rollout says, without the token that stopped it; a NUL is a replacement character."""
        ids = rollout.ids[:-1] if rollout.finish == "stop" else rollout.ids
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text.replace("\0", "\ufffd")  # no record can hold one, and an untrained policy writes any byte

    def token_ends(self, ids: Sequence[int]) -> list[int]:
        """Characters of the completion that have begun once each token is written, without a stop token: increasing.

        A token that ends inside a character counts that character too.
        """
        text = self._said(ids)
        encoding = self._plain.encode(text, add_special_tokens=False)
        if encoding.ids == list(ids):
            return [end for _, end in encoding.offsets]
        # The policy cut the text in another way than its tokenizer would: read it prefix by prefix, from the last
        # place on that is known to say by itself what it says after all before it.
        ends: list[int] = []
        start = base = 0
        while len(ends) < len(ids):
            stop = min(len(ends) + _WINDOW, len(ids))
            whole, part = self._said(ids[:stop]), self._said(ids[start:stop])
            alone = whole == text[:base] + part
            ends += [
                base + _begun(text[base:], self._said(ids[start:count]))
                if alone
                else _begun(text, self._said(ids[:count]))
                for count in range(len(ends) + 1, stop + 1)
            ]
            if text.startswith(whole):
                start, base = stop, len(whole)
        return ends

    def _said(self, ids: Sequence[int]) -> str:
        return self.text(Rollout(tuple(ids), (), "length"))

    @cached_property
    def _end(self) -> int:
        """What a completion of this policy ends with: in a chat, what ends a turn."""
        end = end_of_turn(self.tokenizer)
        asked = self.template.before + self.template.after
        if end is not None and self.tokenizer.added_tokens_decoder[end].content in asked:
            return end
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def _plain(self) -> Tokenizer:
        return plain_text_backend(self.tokenizer.backend_tokenizer, literal=[], continued=True)

    @cached_property
    def _plain_opening(self) -> Tokenizer:
        return plain_text_backend(self.tokenizer.backend_tokenizer, literal=[], continued=False)


_WINDOW = 64
"""Tokens that are read together."""


def _begun(text: str, said: str) -> int:
    """How many characters of the text have begun in what its first tokens say."""
    common = len(commonprefix([text, said]))  # noqa: RUF071  characters, not paths
    return min(common + (len(said) > common), len(text))


def _encode(backend: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
