"""Sections of the report's page, for each subject."""
