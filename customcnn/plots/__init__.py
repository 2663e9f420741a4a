"""Matplotlib figures from arrays, written as PNG files."""
