"""Which pixels speak for a class, and the graph of a network: Grad-CAM, occlusion."""
