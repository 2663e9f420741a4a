"""Evaluate, calibrate and compare trained networks."""
