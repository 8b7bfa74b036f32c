"""Reports from plain data: one offline HTML file, and tables for the terminal."""

from prm_kit.report.evaluation_tables import print_tables
from prm_kit.report.html import render, write_report

__all__ = ["print_tables", "render", "write_report"]
