"""Programs that tests start, in processes of their own: python -m tests.programs.NAME, from the repository's root."""
