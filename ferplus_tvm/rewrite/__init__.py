"""Relax to Relax: recognise the layers, choose a kernel for each, lay out its weights."""
