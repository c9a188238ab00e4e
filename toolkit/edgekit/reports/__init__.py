"""JSON, Markdown, HTML."""
