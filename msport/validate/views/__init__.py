"""Views of a report: text, HTML page and JSON, and the sentences in them."""
