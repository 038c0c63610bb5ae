"""How fast and how big a simulated replica is. Times are seconds, sizes are tokens.

One engine step takes `overhead + max(floor, base + per_token * T) + per_context * decode context
+ per_prefill_context * sum(prefill chunk * its mean context)`, where T = prefill tokens + decoding requests. The figures
for an 8B model on one H100 and one A100 are estimates from published measurements of the linear operators and from the
memory bandwidth (128 KB of KV cache a token); they give the right order, not the right digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of replica."""

    name: str
    overhead: float = 0.0
    floor: float = 0.0
    base: float = 0.0
    per_token: float = 0.0
    per_context: float = 0.0
    per_prefill_context: float = 0.0
    jitter: float = 0.0
    """Largest relative deviation of a step's duration, up or down."""
    kv_tokens: int = 400_000
    block_tokens: int = 16
    max_model_tokens: int = 131_072
    """Longest prompt plus answer."""
    seats: int = 256
    """Most requests in one step (vLLM: max_num_seqs)."""
    step_tokens: int = 8192
    """Most tokens in one step (vLLM: max_num_batched_tokens): longer prompts are prefilled in chunks."""
    lora_slots: int = 4
    lora_load: float = 0.0
    prefix_caching: bool = True

    @property
    def blocks(self) -> int:
        """Capacity of the KV cache in blocks."""
        return self.kv_tokens // self.block_tokens


def step_seconds(profile: Profile, prefills: Sequence[tuple[int, int]], decode_contexts: Sequence[int]) -> float:
    """Duration of one step without jitter. `prefills` holds (chunk, tokens already computed) of each request."""
    tokens = sum(chunk for chunk, _ in prefills) + len(decode_contexts)
    attention = sum(chunk * (computed + chunk / 2) for chunk, computed in prefills)
    return (
        profile.overhead
        + max(profile.floor, profile.base + profile.per_token * tokens)
        + profile.per_context * sum(decode_contexts)
        + profile.per_prefill_context * attention
    )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="8b-h100",
            overhead=0.002,
            floor=0.0065,
            base=0.0015,
            per_token=24e-6,
            per_context=5e-8,
            per_prefill_context=1.3e-9,
            jitter=0.03,
            lora_load=0.2,
        ),
        Profile(
            name="8b-a100",
            overhead=0.002,
            floor=0.0097,
            base=0.0025,
            per_token=66e-6,
            per_context=8e-8,
            per_prefill_context=3.6e-9,
            jitter=0.03,
            lora_load=0.3,
        ),
        # For tests and the demo: the shape of a real replica at about a fortieth of its time, and a cache that can be filled.
        Profile(
            name="tiny",
            overhead=0.0001,
            floor=0.0002,
            per_token=1e-6,
            per_context=1e-9,
            kv_tokens=65_536,
            max_model_tokens=32_768,
            lora_load=0.001,
        ),
        # For benchmarks of proxies: no time passes in the engine, and nothing is tokenized or cached.
        Profile(
            name="instant",
            kv_tokens=10**12,
            max_model_tokens=10**9,
            seats=10**6,
            step_tokens=10**12,
            prefix_caching=False,
        ),
    )
}
