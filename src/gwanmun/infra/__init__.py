"""Envoy on this machine: its bootstrap, run directory, process, ports and admin interface.

    bootstrap  what Envoy is started with (pure); memory says how much it may take
    ports      which address and port every Gateway port gets (pure); probe asks the machine, bound remembers
    rundir     the directory that outlives a control plane: lock, state, sockets, log
    envoy      the pinned binary and the native module
    local      the process: start, adopt, restart, hot restart; launch makes one, ending drains and ends it
    admin      Envoy's admin interface

Deliberately absent: what is served (`xds`), how it is sent (`xds_server`), and fleets in a cluster.
"""
