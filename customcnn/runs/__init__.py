"""What a training run leaves: its directory and the saved network."""
