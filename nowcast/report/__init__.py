"""Presentation of results: tables, sentences, pictures, report.html."""
