"""Snapshot -> (ir.Model, statuses): pure, per object, memoised. Nothing here knows Envoy, sockets or the clock."""
