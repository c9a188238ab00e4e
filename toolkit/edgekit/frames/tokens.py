"""Turn a prompt into token ids as CLIP's text encoders read it: byte pairs, with the standard library alone.

The scheme is that of "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020, section 2.4:
lower-cased byte pair encoding between a start and an end token) with GPT-2's printable letters for bytes. `vocab.json` and
`merges.txt` are the files that every such model comes with.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import VerificationError
from edgekit.core.files import write_text

START, END = "<|startoftext|>", "<|endoftext|>"
VOCAB, MERGES = "vocab.json", "merges.txt"
_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A vocabulary with its merges.

    Attributes:
        ids: Of every token.
        ranks: Of every pair that may be merged: the lowest goes first.
        length: Tokens a prompt is cut or filled up to, start and end included.
        pad: What fills it up.
        words: Tokens of whole words found so far.
    """

    ids: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    length: int
    pad: int
    words: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def encode(self, prompt: str) -> NDArray[np.int64]:
        """Return a prompt's ids, (1, length): start, its tokens as far as they fit, end, padding."""
        found: list[int] = []
        for word in pieces(prompt):
            found += self._word(word)
        kept = [self.ids[START], *found[: self.length - 2], self.ids[END]]
        return np.array([kept + [self.pad] * (self.length - len(kept))], np.int64)

    def dropped(self, prompt: str) -> int:
        """Return how many tokens of a prompt do not fit."""
        return max(sum(len(self._word(w)) for w in pieces(prompt)) - (self.length - 2), 0)

    def _word(self, word: str) -> tuple[int, ...]:
        if word not in self.words:
            self.words[word] = tuple(self.ids.get(t, self.ids[END]) for t in self._merged(word))
        return self.words[word]

    def _merged(self, word: str) -> list[str]:
        letters = [byte_letters()[b] for b in word.encode()]
        parts = [*letters[:-1], f"{letters[-1]}</w>"]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda p: self.ranks.get(p, len(self.ranks)))
            if best not in self.ranks:
                break
            k = 0
            while k < len(parts) - 1:
                if (parts[k], parts[k + 1]) == best:
                    parts[k : k + 2] = [best[0] + best[1]]
                k += 1
        return parts


@functools.cache
def byte_letters() -> tuple[str, ...]:
    """Return for every byte the printable letter that stands for it: itself, or one from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return tuple(chr(b) if b in shown else chr(next(others)) for b in range(256))


def pieces(prompt: str) -> Iterator[str]:
    """Give a prompt's words: runs of letters, single digits, runs of other signs, English contractions."""
    text = " ".join(unicodedata.normalize("NFC", prompt).split()).lower()
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if short := _CONTRACTION.match(text, at):
            yield short.group()
            at = short.end()
            continue
        kind, end = _kind(text[at]), at + 1
        while end < len(text) and kind != "N" and not text[end].isspace() and _kind(text[end]) == kind:
            end += 1
        yield text[at:end]
        at = end


def _kind(letter: str) -> str:
    kind = unicodedata.category(letter)[0]
    return kind if kind in "LN" else "other"


def read_tokens(folder: Path, *, length: int, pad: str = END) -> Tokens:
    """Return the tokens of a folder with `vocab.json` and `merges.txt`, or with a `tokenizer.json` that holds both.

    Raises:
        VerificationError: A file is missing or damaged, or it is no vocabulary of CLIP's kind.
    """
    try:
        ids, pairs = _files(folder)
        ranks = {(a, b): k for k, (a, b) in enumerate(pairs)}
        found = Tokens(ids=ids, ranks=ranks, length=length, pad=int(ids[pad]))
        # A prompt begins and ends with these; without room for more it says nothing.
        fault = "" if {START, END} <= set(ids) and length > 2 else "it is no CLIP vocabulary"
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _no_tokenizer(folder, str(error)) from error
    if fault:
        raise _no_tokenizer(folder, fault)
    return found


def _no_tokenizer(folder: Path, why: str) -> VerificationError:
    return VerificationError(f"{folder}: no tokenizer is there ({why})", hint="Fetch it again.")


def _files(folder: Path) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    if (folder / VOCAB).exists():
        ids = json.loads((folder / VOCAB).read_text(encoding="utf-8"))
        lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")
        return ids, [tuple(x.split()) for x in lines if x.strip() and not x.startswith("#version")]
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if model["type"] != "BPE" or model.get("end_of_word_suffix") != "</w>":
        raise ValueError(f"it is {model['type']}, not CLIP's byte pairs")
    return model["vocab"], [tuple(x.split(" ") if isinstance(x, str) else x) for x in model["merges"]]


def write_tokens(tokens: Tokens, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt`."""
    write_text(folder / VOCAB, json.dumps(dict(tokens.ids), ensure_ascii=False, sort_keys=True))
    lines = [" ".join(p) for p in sorted(tokens.ranks, key=tokens.ranks.__getitem__)]
    write_text(folder / MERGES, "#version: 0.2\n" + "\n".join(lines) + "\n")
