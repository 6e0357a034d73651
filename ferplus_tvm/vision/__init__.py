"""Whole pictures: the faces in them, and what is done with each."""
