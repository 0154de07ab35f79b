"""One self-contained HTML file from the tables of a run."""

from harness.report.page import write_report

__all__ = ["write_report"]
