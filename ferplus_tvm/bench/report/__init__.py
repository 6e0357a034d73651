"""The report: its data, its words, its pictures, its page, and how they are written."""
