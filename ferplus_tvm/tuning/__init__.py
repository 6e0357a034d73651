"""Tuned configurations: where they are kept and how they are found."""
