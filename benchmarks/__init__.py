"""Speed, proven: each goal has one command that races customcnn against its named peers, in turn, in one run."""
