"""``foredraft report``: one self-contained HTML page that compares sessions and policies.

What it reads are files that other commands write: records, and what ``generate``, ``simulate`` and
``bench policies`` print with ``--json``. (What a session counts of itself is ``core.report``.)
"""

from foredraft.report.page import report_page
from foredraft.report.reading import read_sources

__all__ = ["read_sources", "report_page"]
