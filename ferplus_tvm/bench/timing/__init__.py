"""What is measured, and how: engines in processes of their own, which take turns.

The processes stand here and not beside the engines, since they rest and tell the machine's pace as
the measurement wants it: imports point from here to the engines, never back.
"""
