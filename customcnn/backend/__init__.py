"""Devices, numeric precision, data parallelism and processes: all that depends on Keras's backend."""
