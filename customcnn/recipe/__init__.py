"""The recipe of a training run: its keys, sampling, schedules and monitor."""
