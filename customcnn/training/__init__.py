"""The only fit(): training, its tasks, batches, callbacks and optimizers."""
