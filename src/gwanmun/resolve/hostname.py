"""Host names with wildcards: `*` is every host, `*.a.b` any number of labels before `a.b`, anything else one host."""

ANY_HOST = "*"


def canonical(hostname: str | None) -> str:
    """A hostname as written in a manifest, in lower case, `*` where there is none."""
    return hostname.lower() if hostname else ANY_HOST


def covers(wide: str, narrow: str) -> bool:
    """Whether every host that `narrow` stands for is also one of `wide`."""
    if wide in (ANY_HOST, narrow):
        return True
    return wide.startswith("*.") and narrow.endswith(wide[1:])


def wildcards_over(hostname: str) -> tuple[str, ...]:
    """The wildcards that cover a name, the most specific first and itself left out: `*.b.c`, `*.c` and `*` for `a.b.c`."""
    if hostname == ANY_HOST:
        return ()
    labels = hostname.split(".")[1:]  # of `*.b.c` the wildcard's own level goes, as does the first label of `a.b.c`
    first = 1 if hostname.startswith("*.") else 0
    return (*(f"*.{'.'.join(labels[i:])}" for i in range(first, len(labels))), ANY_HOST)
