"""Promises about single features, one table or subject a file."""
