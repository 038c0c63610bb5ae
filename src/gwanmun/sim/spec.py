"""What a simulated server is asked to be: values only, so that a command line can build them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gwanmun.sim.faults import AnyFault
from gwanmun.sim.profile import PROFILES, Profile

EngineKind = Literal["vllm", "tgi", "openai", "echo", "grpc"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server that speaks TLS; with `client_ca` every client must show a certificate of that authority."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class SimSpec:
    """One simulated server. Port 0 takes a free one; `SimServer.start` says which."""

    name: str
    engine: EngineKind = "vllm"
    models: tuple[str, ...] = ("sim-model",)
    """Names the model answers to; the first labels metrics and is TGI's model id."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters, served as further models (vLLM only)."""
    host: str = "127.0.0.1"
    port: int = 0
    profile: str = "tiny"
    """A name in `profile.PROFILES`."""
    seed: int = 0
    speed: float = 1.0
    """Simulated seconds per second of the clock."""
    seats: int | None = None
    """Overrides the profile's number of requests in one step."""
    kv_tokens: int | None = None
    """Overrides the profile's KV cache; also bounds the longest prompt."""
    max_concurrent: int = 128
    """TGI answers 429 above this many requests."""
    keep_alive: float = 75.0
    """Seconds an idle connection is kept. Real vLLM closes after 5, a known cause of resets behind proxies."""
    faults: tuple[AnyFault, ...] = ()
    zone: str | None = None
    """Told to clients in `x-served-zone`; the simulator itself does nothing with it."""
    tls: TlsFiles | None = None

    def engine_profile(self) -> Profile:
        """The profile with this server's overrides. Raises ValueError for an unknown name."""
        if self.profile not in PROFILES:
            raise ValueError(f"profile {self.profile!r} is unknown; choose one of {', '.join(PROFILES)}")
        profile = PROFILES[self.profile]
        if self.seats is not None:
            profile = replace(profile, seats=self.seats)
        if self.kv_tokens is not None:
            longest = min(profile.max_model_tokens, self.kv_tokens // profile.block_tokens * profile.block_tokens)
            profile = replace(profile, kv_tokens=self.kv_tokens, max_model_tokens=longest)
        return profile
