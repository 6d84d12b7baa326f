"""Click logs of typed queries: read, cleaned by stated rules, and turned into queries with weighted clicks."""
