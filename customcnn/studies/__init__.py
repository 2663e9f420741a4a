"""Studies: their data prepared, their recipes trained, and what is measured set beside what was published."""
