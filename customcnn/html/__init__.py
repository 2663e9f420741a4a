"""HTML pages: the page itself, its charts and its style."""
