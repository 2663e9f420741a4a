"""The price of a leak: one recipe trained on a split by image and on a split by group, both scored on new groups."""
