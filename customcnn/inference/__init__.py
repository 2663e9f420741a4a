"""Trained networks that answer: the classifier, its decisions, runtimes and test-time augmentation."""
