"""Image files and pixels: decoding, reading, resizing, the nucleus, the eight flips and 90-degree rotations."""
