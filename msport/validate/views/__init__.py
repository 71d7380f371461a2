"""Views of a report: text, HTML page and JSON."""
