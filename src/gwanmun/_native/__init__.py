"""Where the native module lives: `libgwanmun.so`, built from `native/` when the package is built.

Deliberately absent: code. A package without the library serves everything but the AI features.
"""
