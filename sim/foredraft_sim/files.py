"""Output files that are there completely or not at all: ``foredraft.files``, by its former name."""

from foredraft.files import check_folders, written_together

__all__ = ["check_folders", "written_together"]
