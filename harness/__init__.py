"""How speech and music survive a bad network.

The package reads as one pipeline (see ``docs/architecture.md``):
scenario -> plan -> lab { sender - link - receiver } -> records -> score -> store -> report.
"""

__version__ = "0.1.0"
