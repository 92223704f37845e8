"""A file for each dashboard: what it asks, and what an operator does about the answer."""
