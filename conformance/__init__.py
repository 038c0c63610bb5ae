"""The official Gateway API conformance suite, run against a controller in a test cluster: `python -m conformance --help`.

The suite's binary is built unmodified from its Go module; options become its own flags. Deliberately absent: exemptions and
longer timeouts of ours, so that a report is worth what an upstream report is worth.
"""
