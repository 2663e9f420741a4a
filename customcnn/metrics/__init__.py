"""Arrays in, numbers out: scores, intervals, paired tests, clinical curves, calibration, conformal prediction."""
