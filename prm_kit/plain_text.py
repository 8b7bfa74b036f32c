"""Backends of a tokenizer that read text as text: no special tokens out of it, no prefix before a continuation.

A tokenizer file is changed as JSON and loaded anew, so that the tokenizer it came from stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer

from prm_kit.errors import UsageError


def split_of(backend: Tokenizer) -> Tokenizer:
    """A copy for text that continues a text: the space that opens a text (SentencePiece's dummy prefix) is left out."""
    return Tokenizer.from_str(json.dumps(_file(backend, continued=True), ensure_ascii=False))


def plain_text_backend(backend: Tokenizer, *, literal: Collection[int], continued: bool) -> Tokenizer:
    """A copy that reads user text: special tokens written in the text stay text.

    Args:
        backend: The tokenizer.
        literal: Further token ids that text may never become, whether flagged special or not.
        continued: Whether the text continues one, so that no dummy prefix opens it.

    Raises:
        UsageError: A special token of `literal` can still be written as text.
    """
    file = _file(backend, continued)
    for token in file["added_tokens"]:
        token["special"] = token["special"] or token["id"] in literal
    special = {token["content"]: token["id"] for token in file["added_tokens"] if token["special"]}
    plain = _load_plain(file)
    if not _leaks(plain, special):
        return plain
    # Unigram and word-level models hold their control symbols as ordinary pieces. There they get names that no text
    # has; every added token then counts as special, because the numbering of the others could shift.
    for token in file["added_tokens"]:
        token["special"] = True
    _hide_pieces(file["model"], special)
    plain = _load_plain(file)
    if leaks := [content for content in _leaks(plain, special) if special[content] in literal]:
        raise UsageError(f"the text {leaks[0]!r} still becomes the special token: this tokenizer cannot be used")
    return plain


def _file(backend: Tokenizer, continued: bool) -> dict[str, Any]:
    try:
        file: dict[str, Any] = json.loads(backend.to_str())
    except Exception as error:  # the library raises bare Exception for parts written in Python
        raise UsageError(f"the tokenizer has parts that cannot be copied: {error}") from None
    file["truncation"] = file["padding"] = file["post_processor"] = None
    if continued:
        for part in ("normalizer", "pre_tokenizer"):
            file[part] = _without_prefix(file[part])
    return file


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        return {**part, key: [kept for kept in map(_without_prefix, part[key]) if kept is not None]}
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part


def _load_plain(file: dict[str, Any]) -> Tokenizer:
    plain = Tokenizer.from_str(json.dumps(file, ensure_ascii=False))
    plain.encode_special_tokens = True
    return plain


def _leaks(plain: Tokenizer, special: dict[str, int]) -> list[str]:
    """Special tokens whose written form becomes their id."""
    contents = list(special)
    done = plain.encode_batch_fast(contents, add_special_tokens=False)
    return [content for content, encoding in zip(contents, done, strict=True) if special[content] in encoding.ids]


def _hide_pieces(model: dict[str, Any], special: dict[str, int]) -> None:
    unknown = model.get("unk_token")
    hidden = {content: f"\U0010fffd{index}\U0010fffd" for content, index in special.items() if content != unknown}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {hidden.get(piece, piece): index for piece, index in vocabulary.items()}
