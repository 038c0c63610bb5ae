"""Simulated model servers: the real HTTP APIs and metrics of vLLM and TGI over a seeded model of one replica.

Pure (time and chance are arguments): `tokens`, `kvcache`, `profile`, `engine`, `faults`, `exposition`, `workload`.
Shell: `http` (connections), `replica` (engine on a clock), `vllm`, `tgi`, `echo`, `grpc_echo` (the APIs), `server`.

Deliberately absent: any language model (answers are fixed sentences that say who answered), request preemption,
multi-GPU effects, and every decision of the gateway. Nothing here imports the rest of gwanmun.
"""
