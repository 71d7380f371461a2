"""A report for people and programs: text, page and JSON."""
