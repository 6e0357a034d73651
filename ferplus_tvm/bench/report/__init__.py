"""The report: its data, its words, its plots, its page, and how they are written."""
