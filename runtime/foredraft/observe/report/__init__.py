"""``foredraft report``: one self-contained HTML page that compares sessions and policies.

What it reads are files that other commands write: records, and what ``generate``, ``simulate`` and
``bench policies`` print with ``--json``. (What a session counts of itself is ``edge.session_report``.)
"""

from foredraft.observe.report.page import report_page
from foredraft.observe.report.reading import read_sources

__all__ = ["read_sources", "report_page"]
