"""A small reversible tokenizer and the hashes of token blocks.

The tokenizer is greedy from the left, so the tokens of a text are a prefix of the tokens of every longer text (up to the
last token): what a prefix cache needs. It is not any real model's vocabulary; its density is close to one (about four
characters of English a token, one Korean syllable a token).
"""

import hashlib
import re
from collections.abc import Sequence

SPECIAL_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")

_FIRST_TEXT_ID = 16
_TOKEN = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS) + r"| ?[!-~]{1,5}|.", re.DOTALL)


def tokenize(text: str) -> list[str]:
    """The tokens of `text`, as text; their concatenation is `text`."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    """A stable number for one token: below 2**49, so that it survives JSON readers that use floats."""
    if token in SPECIAL_TOKENS:
        return SPECIAL_TOKENS.index(token)
    return _FIRST_TEXT_ID + int.from_bytes(token.encode("utf-8", "surrogatepass"), "big")


def token_text(number: int) -> str:
    """The inverse of `token_id`. Raises ValueError for a number that is no token's."""
    if 0 <= number < len(SPECIAL_TOKENS):
        return SPECIAL_TOKENS[number]
    value = number - _FIRST_TEXT_ID
    if value < 0:
        raise ValueError(f"{number} is not a token id")
    try:
        return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{number} is not a token id") from error


def block_hashes(tokens: Sequence[str], *, block_tokens: int, salt: str = "") -> tuple[int, ...]:
    """One hash for every full block of `tokens`; each also covers all blocks before it.

    `salt` separates what must not share cache entries although the text is equal: LoRA adapters, tenants.
    """
    parent = hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    hashes: list[int] = []
    for end in range(block_tokens, len(tokens) + 1, block_tokens):
        # The separator keeps ["ab", "c"] and ["a", "bc"] apart.
        block = "\x00".join(tokens[end - block_tokens : end]).encode("utf-8", "surrogatepass")
        parent = hashlib.blake2b(block, digest_size=8, key=parent).digest()
        hashes.append(int.from_bytes(parent, "big"))
    return tuple(hashes)
