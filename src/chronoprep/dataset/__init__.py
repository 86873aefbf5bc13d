"""A dataset folder: its paths and lock, its index of pairs, its journal, its table."""

from chronoprep.dataset.folder import Dataset, read_table, rewrite_table, write_table

__all__ = ["Dataset", "read_table", "rewrite_table", "write_table"]
