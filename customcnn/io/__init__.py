"""Local and remote paths, atomic writes, parallel work, standard streams."""
