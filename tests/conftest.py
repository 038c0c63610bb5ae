"""Options of the whole test suite."""

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of us; what has to be quick is measured in benchmarks/.
settings.register_profile("gwanmun", deadline=None)
settings.load_profile("gwanmun")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens",
        action="store_true",
        dest="rewrite_goldens",
        help="write the outputs of tests/golden anew instead of comparing them",
    )
